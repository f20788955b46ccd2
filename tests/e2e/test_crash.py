"""kill -9 between any two effects of an apply or a follower; one more pass, and everything agrees."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from espalier.backends.local.queue import FILE
from espalier.core.events import Record
from espalier.core.names import run_key
from espalier.ledger.fsck import check
from espalier.ledger.gitref import GitLedger
from espalier.testing.crash import points_of
from espalier.wiring import SystemClock
from tests.conftest import ROOT
from tests.repository import Repository, new_repository

PARTS = 4
"""Each scenario is cut into so many tests, so that workers share its points."""

TRAIN = """\
import json, os, pathlib
out = pathlib.Path(os.environ["ESPALIER_OUTPUT_DIR"])
with open(os.environ["STARTS"], "a") as starts:
    print(*(os.environ[f"ESPALIER_{name}"] for name in ("VERSION", "TRIAL", "ATTEMPT")), file=starts)
params = json.loads(pathlib.Path(os.environ["ESPALIER_PARAMS"]).read_text())
(out / "metrics.jsonl").write_text(json.dumps({"score": params["width"]}) + "\\n")
"""


def one_pass(repo: Path, what: str, point: str = "", journal: str = "") -> int:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "tests.e2e.one_pass", str(repo), what, point, journal]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.fixture
def sweep(tmp_path: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Repository]:
    """Make a repository with a sweep of two trials; each program notes its start outside."""

    def make(name: str) -> Repository:
        repository = new_repository(tmp_path / name)
        repository.remove("conf/job/single.yaml")
        repository.replace("conf/job/group/sweep.yaml", "choice(1,2,3)", "choice(1,2)")
        repository.replace("conf/config.yaml", "project: demo", f"project: {tmp_path.name}-{name}")
        repository.write("train.py", TRAIN)
        repository.commit("A sweep of two")
        monkeypatch.setenv("STARTS", str(tmp_path / f"{name}.starts"))
        return repository

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    return make


def agree(repository: Repository, starts: Path, server: str) -> None:
    """Assert that ledger, queue and MLflow tell one story, in which nothing ran twice."""
    assert [problem.message for problem in check(repository.path, SystemClock().now())] == []
    ran = starts.read_text().splitlines()
    assert len(ran) == len(set(ran)), "an attempt ran twice"
    ledger = GitLedger(repository.path, "")
    snapshot = ledger.read(None)
    assert snapshot.ledger_id
    attempts, last, handles = set(), set(), set()
    for name, line in snapshot.lines.items():
        numbers = [*(old.version.version for old in line.earlier), line.last.version.version]
        assert numbers == list(range(1, len(numbers) + 1))
        for number in numbers:
            record = ledger.version(name, number)
            assert record
            shows_the_truth(server, snapshot.ledger_id, record)
            for trial in record.trials:
                if trial.state == "succeeded":
                    attempts |= {f"{number} {trial.id} {attempt}" for attempt in range(1, trial.attempt + 1)}
                    last.add(f"{number} {trial.id} {trial.attempt}")
                    handles.add(trial.handle)
    assert last <= set(ran) <= attempts  # an attempt that was lost may have ended before its program began
    assert handles <= queued(repository)


def shows_the_truth(server: str, ledger_id: str, record: Record) -> None:
    """Assert that a version is whole, and that MLflow has one finished run for it and for each trial."""
    version = record.version
    assert (version.state, version.tracked) == ("succeeded", True), record
    for trial in record.trials:
        assert (trial.state in ("succeeded", "reused"), trial.tracked) == (True, True)
        assert trial.metrics == {"score": trial.params["width"]}
        key = run_key(ledger_id, version.job, None, version.version, trial.id)
        assert runs_with(server, key) == [(trial.run_id, "FINISHED")]
    whole = run_key(ledger_id, version.job, None, version.version, None)
    assert runs_with(server, whole) == [(version.run_id, "FINISHED")]


def runs_with(server: str, key: str) -> list[tuple[str, str]]:
    """Return id and status of every run with this key."""
    found = httpx.get(f"{server}/api/2.0/mlflow/experiments/search", params={"max_results": "5000"}).json()
    ids = [experiment["experiment_id"] for experiment in found["experiments"]]
    asked = {"experiment_ids": ids, "filter": f"tags.`espalier.key` = '{key}'"}
    runs = httpx.post(f"{server}/api/2.0/mlflow/runs/search", json=asked).json().get("runs", [])
    return [(run["info"]["run_id"], run["info"]["status"]) for run in runs]


def queued(repository: Repository) -> set[str]:
    """Return the keys that the local queue ever got."""
    with closing(sqlite3.connect(repository.path / ".espalier" / FILE)) as queue:
        return {key for (key,) in queue.execute("SELECT key FROM trials")}


def visit_each_point(
    make: Callable[[str], Repository], tmp_path: Path, server: str, before: Callable[[Repository], None], part: int
) -> None:
    """List the effects of an apply once; then kill one at each point, let a second one finish, and compare."""
    first = make("first")
    before(first)
    assert one_pass(first.path, "apply", journal=str(tmp_path / "journal")) == 0
    agree(first, tmp_path / "first.starts", server)
    reached = 0
    points = [point for point in points_of(tmp_path / "journal") if point.method != "log"]
    mine = list(enumerate(points))[part::PARTS]
    for number, point in mine:
        name = f"at{number}"
        repository = make(name)
        before(repository)
        reached += one_pass(repository.path, "apply", str(point)) == -signal.SIGKILL
        assert one_pass(repository.path, "apply") == 0, point
        agree(repository, tmp_path / f"{name}.starts", server)
    assert reached >= len(mine) - 2, f"{reached} of {len(mine)}"  # how often a pass appends depends on the machine


@pytest.mark.parametrize("part", range(PARTS))
def test_an_apply_killed_between_any_two_effects_is_finished_by_the_next(
    sweep: Callable[[str], Repository], tmp_path: Path, mlflow_server: str, part: int
) -> None:
    visit_each_point(sweep, tmp_path, mlflow_server, lambda _: None, part)


@pytest.mark.parametrize("part", range(PARTS))
def test_a_revision_killed_between_any_two_effects_is_finished_by_the_next(
    sweep: Callable[[str], Repository], tmp_path: Path, mlflow_server: str, part: int
) -> None:
    def revise(repository: Repository) -> None:
        assert one_pass(repository.path, "apply") == 0
        repository.replace("conf/job/group/sweep.yaml", "choice(1,2)", "choice(2,3)")
        repository.commit("Move the sweep")

    visit_each_point(sweep, tmp_path, mlflow_server, revise, part)
