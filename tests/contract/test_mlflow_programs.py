"""What programs do with mlflow themselves: they go on with our run, and its end stays ours."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from espalier.core.model import Artifacts
from espalier.core.ports import Report, Subject
from espalier.testing.memory import Shown
from espalier.testing.tracker import CREATED, ENDED, subjects, trial, version
from espalier.tracking.mlflow import MLflowTracker
from tests.looking import HttpLook, SqliteLook
from tests.servers import clean_environment

PROGRAMS = {
    "plain": "mlflow.log_metric('score', 0.5)",
    "same experiment": (
        "mlflow.set_experiment(experiment_id=os.environ['MLFLOW_EXPERIMENT_ID']); mlflow.log_metric('score', 0.5)"
    ),
    "renames": "r = mlflow.start_run(run_name='mine'); mlflow.log_metric('score', 0.5)",
    "raises": """
with mlflow.start_run():
    mlflow.log_metric('score', 0.5)
    raise ValueError('no')
""",
    "killed": "mlflow.log_metric('score', 0.5); os.kill(os.getpid(), signal.SIGKILL)",
    "two blocks": """
with mlflow.start_run(): mlflow.log_metric('score', 0.5)
with mlflow.start_run(): mlflow.log_metric('score', 0.7)
""",
    "own params": (
        "mlflow.log_params({'lr': 0.1, 'hidden': 64, 'deep': True, 'none': None, 'list': [1, 2]});"
        "mlflow.log_metric('score', 0.5)"
    ),
    "artifact": "mlflow.log_text('its own', 'notes/own.txt'); mlflow.log_metric('score', 0.5)",
}
DRIVER = """
import atexit, json, os, signal, sys, traceback
import mlflow
for name, variables, program in json.load(sys.stdin):
    pid = os.fork()
    if not pid:
        os.environ.update(variables)
        code = 0
        try:
            exec(program)
        except BaseException:
            traceback.print_exc()
            code = 1
        atexit._run_exitfuncs()
        os._exit(code)
    os.waitpid(pid, 0)
"""


@dataclass(frozen=True)
class Outcome:
    subject: Subject
    run_id: str
    before: Shown
    metrics: Mapping[str, float]
    after: Shown


def outcomes(tracker: MLflowTracker, look: SqliteLook | HttpLook, folder: Path, prefix: str) -> dict[str, Outcome]:
    """Run every program in a run of its own, close the runs, and return what there is to see."""
    opened: dict[str, tuple[Subject, str]] = {}
    orders = []
    for name, program in PROGRAMS.items():
        made = trial(0.1, attempt=1)
        made = replace(made, params={**made.params, "deep": True, "none": None, "list": [1, 2]})
        (both,) = subjects(version(f"{prefix}/{name.replace(' ', '-')}"), [made], sweep=False)
        run_id = tracker.open([both])[both.key]
        tracker.log(run_id, Report("running", started_at=CREATED), 1)
        opened[name] = both, run_id
        orders.append((name, dict(tracker.variables(run_id)), program))
    environ = clean_environment(folder)
    driven = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(orders),
        text=True,
        env=environ,
        cwd=folder,
        capture_output=True,
    )
    assert driven.returncode == 0, driven.stderr
    found = {}
    for name, (both, run_id) in opened.items():
        before = look(run_id)
        state = "failed" if name in ("raises", "killed") else "succeeded"
        metrics = tracker.close(both, run_id, Report(state, ended_at=ENDED), state, Artifacts())
        found[name] = Outcome(both, run_id, before, metrics, look(run_id))
    return found


STORES = [
    pytest.param("sqlite", marks=pytest.mark.xdist_group("mlflow-sqlite")),
    pytest.param("server", marks=pytest.mark.xdist_group("mlflow-server")),
]


@pytest.fixture(scope="module", params=STORES)
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    folder = tmp_path_factory.mktemp("programs")
    if request.param == "sqlite":
        look = SqliteLook(request.getfixturevalue("sqlite_repository") / "mlflow.db")
        yield outcomes(request.getfixturevalue("sqlite_tracker"), look, folder, "sqlite")
        return
    url = request.getfixturevalue("mlflow_server")
    tracker = MLflowTracker(url, folder / ".espalier", folder, None, clean_environment(folder))
    yield outcomes(tracker, HttpLook(url), folder, "server")
    tracker.release()


def test_every_program_goes_on_with_our_run(ended: dict[str, Outcome]) -> None:
    assert {name: outcome.metrics for name, outcome in ended.items()} == {name: {"score": 0.5} for name in PROGRAMS}


def test_the_name_of_the_run_stays_ours(ended: dict[str, Outcome]) -> None:
    assert ended["renames"].before.name == "mine"
    for outcome in ended.values():
        assert outcome.after.name == f"{outcome.subject.version.job}@v1"
        assert outcome.after.tags["mlflow.runName"] == outcome.after.name


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_final_status_stays_ours(ended: dict[str, Outcome], name: str) -> None:
    assert ended[name].after.status == ("FAILED" if name in ("raises", "killed") else "FINISHED")


def test_a_program_may_log_the_params_that_we_logged(ended: dict[str, Outcome]) -> None:
    expected = {"lr": "0.1", "hidden": "64", "deep": "True", "none": "None", "list": "[1, 2]"}
    assert ended["own params"].after.params == expected


def test_runs_that_a_program_opened_beside_ours_are_named_and_left_alone(ended: dict[str, Outcome]) -> None:
    assert "further runs" in ended["two blocks"].after.tags["mlflow.note.content"]
    assert "further runs" not in ended["plain"].after.tags["mlflow.note.content"]


def test_its_own_artifacts_lie_beside_ours(ended: dict[str, Outcome]) -> None:
    artifacts = ended["artifact"].after.artifacts
    assert artifacts["notes/own.txt"] == "its own"
    assert "espalier/spec.yaml" in artifacts
