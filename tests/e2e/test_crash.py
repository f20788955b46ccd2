"""kill -9 between any two effects of an apply or a follower; one more pass, and everything agrees."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from espalier.core.names import run_key
from espalier.ledger.fsck import check
from espalier.ledger.gitref import GitLedger
from espalier.tracking.mlflow import MLflowTracker
from espalier.wiring import SystemClock
from tests.conftest import ROOT
from tests.repository import Repository, new_repository

pytestmark = pytest.mark.xdist_group("mlflow")

TRAIN = """\
import json, os, pathlib
out = pathlib.Path(os.environ["ESPALIER_OUTPUT_DIR"])
with open(os.environ["STARTS"], "a") as starts:
    print(os.environ["ESPALIER_TRIAL"], os.environ["ESPALIER_ATTEMPT"], file=starts)
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


def agree(repository: Repository, starts: Path, tracker: MLflowTracker) -> None:
    """Assert that ledger, queue and MLflow tell one story, in which nothing ran twice."""
    assert [problem.message for problem in check(repository.path, SystemClock().now())] == []
    snapshot = GitLedger(repository.path, "").read(None)
    assert snapshot.ledger_id
    ran = starts.read_text().split("\n")[:-1]
    assert len(ran) == len(set(ran)), "an attempt ran twice"
    recorded = set()
    for line in snapshot.lines.values():
        numbers = [old.version.version for old in line.earlier] + [line.last.version.version]
        assert numbers == list(range(1, len(numbers) + 1))
        record = line.last
        assert (record.version.state, record.version.tracked) == ("succeeded", True)
        for trial in record.trials:
            assert trial.state in ("succeeded", "reused"), (trial.id, trial.state, trial.message)
            assert trial.tracked
            assert trial.metrics == {"score": float(trial.params["width"])}  # type: ignore[arg-type]
            key = run_key(snapshot.ledger_id, record.version.job, None, record.version.version, trial.id)
            assert runs_with(tracker, key) == [trial.run_id]
            if trial.state == "succeeded":
                recorded |= {f"{trial.id} {attempt}" for attempt in range(1, trial.attempt + 1)}
    assert {start for start in ran} <= recorded | {start for start in ran if start in recorded}


def runs_with(tracker: MLflowTracker, key: str) -> list[str]:
    import mlflow

    client = mlflow.MlflowClient(tracker.uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return [run.info.run_id for run in client.search_runs(ids, f"tags.`espalier.key` = '{key}'")]
