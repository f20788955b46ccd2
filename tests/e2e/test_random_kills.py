"""kill -9 at random moments of any process of ours while a sweep runs; then one more apply, and everything agrees.

``ESPALIER_TEST_ROUNDS`` sets how many rounds (three by default), ``ESPALIER_TEST_SEED`` the moments.
"""

import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.test_crash import agree
from tests.repository import Repository, new_repository

ROUNDS = int(os.environ.get("ESPALIER_TEST_ROUNDS", "3"))
SEED = int(os.environ.get("ESPALIER_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)

TRAIN = """\
import json, os, pathlib, select
out = pathlib.Path(os.environ["ESPALIER_OUTPUT_DIR"])
with open(os.environ["STARTS"], "a") as starts:
    print(*(os.environ[f"ESPALIER_{name}"] for name in ("VERSION", "TRIAL", "ATTEMPT")), file=starts)
params = json.loads(pathlib.Path(os.environ["ESPALIER_PARAMS"]).read_text())
select.select([], [], [], 0.3)
(out / "metrics.jsonl").write_text(json.dumps({"score": params["width"]}) + "\\n")
"""


def command(repository: Repository) -> list[str]:
    return [sys.executable, "-m", "espalier", "-C", str(repository.path), "apply"]


def processes(repository: Repository) -> list[tuple[int, str]]:
    """Return the processes of ours that work for this repository, with their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                if str(repository.path) in line:
                    found.append((int(entry.name), line.strip()))
    return found


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_nothing_runs_twice_and_nothing_is_lost(
    round_: int,
    tmp_path: Path,
    mlflow_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moments = random.Random(SEED + round_)
    print("seed", SEED + round_)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    repository = new_repository(tmp_path / "killed")
    repository.remove("conf/job/single.yaml")
    repository.replace("conf/job/group/sweep.yaml", "choice(1,2,3)", "choice(1,2,3,4,5,6)")
    repository.replace("conf/config.yaml", "project: demo", f"project: {tmp_path.name}")
    with (repository.path / "conf/job/group/sweep.yaml").open("a") as job:
        job.write("policy: {recoveries: 100}\n")
    repository.write("train.py", TRAIN)
    repository.commit("A sweep of six")
    killed = []
    for _ in range(3):
        apply = subprocess.Popen(command(repository), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(moments.randint(1, 3)):
            with suppress(subprocess.TimeoutExpired):
                apply.wait(moments.uniform(0.1, 1.2))
            running = processes(repository)
            if running:
                pid, line = moments.choice(running)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                killed.append(line[-80:])
        with suppress(subprocess.TimeoutExpired):
            apply.wait(moments.uniform(0.1, 1.0))
        apply.kill()
        apply.wait()
    done = subprocess.run(command(repository), capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, (killed, done.stderr)
    agree(repository, tmp_path / "starts", mlflow_server)
