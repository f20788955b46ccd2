"""The local backend keeps the contract, with real processes; and what it promises beyond it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from espalier.backends.local import channel, order, supervisor
from espalier.backends.local.client import LocalBackend, place_of, root_of
from espalier.backends.local.process import kill_left_over
from espalier.backends.local.queue import FILE
from espalier.core.errors import RejectedError
from espalier.core.model import Data, Resources
from espalier.core.ports import Launch, Report
from espalier.testing.backend import FAILS, RUNS_ON, SHOWS, SUCCEEDS, ProgramContract, a_launch, key_of, until
from tests.repository import Repository, new_repository
from tests.wait import wait_until


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return new_repository(tmp_path / "repo")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "VIRTUAL_ENV": sys.prefix}


@pytest.fixture
def local(repository: Repository, environ: dict[str, str]) -> Iterator[LocalBackend]:
    backend = LocalBackend(repository.path / ".espalier", repository.path, environ)
    yield backend
    end_runner(backend.root)


class TestLocalBackend(ProgramContract):
    @pytest.fixture
    def backend(self, local: LocalBackend) -> LocalBackend:
        return local


def runner_of(root: Path) -> int | None:
    """The number of the runner's process, None when there is none."""
    answer = channel.ask(root, {"do": "hello"})
    return int(answer["pid"]) if answer else None


def kill(pid: int) -> None:
    """SIGKILL a process and wait until it is gone."""
    fd = os.pidfd_open(pid)
    signal.pidfd_send_signal(fd, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid))
    os.close(fd)


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


def end_runner(root: Path) -> None:
    """End the runner and everything that its trials started."""
    pid = runner_of(root)
    if pid:
        with suppress(ProcessLookupError):
            kill(pid)
    if (root / "trials").is_dir():
        for folder in (root / "trials").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                claim = json.loads((folder / "claim.1").read_text())
                if not (folder / "end.json").exists() and "pid" in claim:
                    os.kill(claim["pid"], signal.SIGKILL)
            kill_left_over(folder)


def state(backend: LocalBackend, key: str) -> Report:
    return backend.status([key])[key]


def ended(backend: LocalBackend, key: str) -> Report:
    return until(lambda: state(backend, key), lambda report: report.state not in ("queued", "running"))


def running(backend: LocalBackend, key: str) -> Report:
    return until(lambda: state(backend, key), lambda report: "started" in list(backend.logs(key)))


def send(backend: LocalBackend, launch: Launch) -> str:
    return backend.submit(key_of(launch), launch)


def worker_of(backend: LocalBackend, key: str) -> int:
    return int(json.loads((order.home(backend.root, key) / "claim.1").read_text())["pid"])


def noting(path: Path, then: str = RUNS_ON) -> str:
    """A script that leaves a line in a file outside first: how often it ran can be counted."""
    return f"open({str(path)!r}, 'a').write('ran\\n'); {then}"


# Places


def test_a_queue_is_found_by_its_place_on_this_machine(local: LocalBackend) -> None:
    assert root_of(local.place) is None
    ended(local, send(local, a_launch()))
    assert root_of(local.place) == local.root
    assert place_of(local.root) == local.place
    assert root_of("another-machine:" + local.place.partition(":")[2]) is None


def test_another_clone_asks_by_path(local: LocalBackend, tmp_path: Path) -> None:
    key = send(local, a_launch())
    root = root_of(local.place)
    assert root is not None
    other = LocalBackend(root, tmp_path / "elsewhere", {}, start_runner=False)
    assert ended(other, key).state == "succeeded"


def test_asking_makes_and_starts_nothing(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path / ".espalier", tmp_path, {}, start_runner=False)
    assert backend.status(["x"])["x"].state == "unknown"
    assert backend.find(["x"]) == {}
    assert list(backend.logs("x")) == []
    backend.cancel("x")
    backend.wake()
    assert list(tmp_path.iterdir()) == []


def test_all_that_it_makes_is_private_and_ignored_by_git(local: LocalBackend, repository: Repository) -> None:
    ended(local, send(local, a_launch()))
    assert local.root.stat().st_mode & 0o777 == 0o700
    assert repository.git("status", "--porcelain") == ""
    for path in local.root.rglob("*"):
        if "layouts" not in path.parts:
            assert path.lstat().st_mode & 0o077 == 0 or path.is_symlink(), path


# The runner


def test_the_runner_ends_when_there_is_nothing_to_do_and_comes_back(local: LocalBackend) -> None:
    ended(local, send(local, a_launch(name="a")))
    wait_until(lambda: runner_of(local.root) is None)
    assert ended(local, send(local, a_launch(name="b"))).state == "succeeded"


def test_the_runner_has_no_terminal_and_nothing_of_the_commands_environment(local: LocalBackend) -> None:
    local.environ["VERY_PRIVATE"] = "x1y2z3w4"
    key = send(local, a_launch(RUNS_ON))
    running(local, key)
    pid = runner_of(local.root)
    assert os.getsid(pid or 0) == pid
    assert b"x1y2z3w4" not in Path(f"/proc/{pid}/environ").read_bytes()
    worker = worker_of(local, key)
    assert (
        b"x1y2z3w4" not in Path(f"/proc/{worker}/environ").read_bytes() + Path(f"/proc/{worker}/cmdline").read_bytes()
    )
    found = subprocess.run(["grep", "-rl", "x1y2z3w4", str(local.root)], capture_output=True, text=True)
    assert found.stdout == ""
    local.cancel(key)
    ended(local, key)


SUBMIT = """
import sys
from pathlib import Path
from espalier.backends.local.client import LocalBackend
from espalier.testing.backend import a_launch, key_of
root, ran, number = sys.argv[1:]
backend = LocalBackend(Path(root), Path(root).parent, {"PATH": "/usr/bin:/bin", "VIRTUAL_ENV": sys.prefix})
for name in (number, "same"):
    launch = a_launch(f"open({ran!r}, 'a').write('ran ')", name=name)
    print(backend.submit(key_of(launch), launch))
"""


def test_commands_that_come_first_at_once_share_one_queue_and_one_runner(local: LocalBackend, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    commands = [
        subprocess.Popen(
            [sys.executable, "-c", SUBMIT, str(local.root), str(ran), str(number)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in range(5)
    ]
    keys = {key for command in commands for key in command.communicate()[0].split()}
    assert [command.returncode for command in commands] == [0] * 5
    assert {ended(local, key).state for key in keys} == {"succeeded"}
    assert len(keys) == ran.read_text().count("ran") == 6
    assert (local.root / "runner.log").read_text().count("runner started") == 1


def test_a_long_path_of_the_repository_is_no_hindrance(tmp_path: Path, environ: dict[str, str]) -> None:
    repository = new_repository(tmp_path / ("long" * 20) / ("path" * 20))
    backend = LocalBackend(repository.path / ".espalier", repository.path, environ)
    assert ended(backend, send(backend, a_launch())).state == "succeeded"
    end_runner(backend.root)


def test_a_killed_runner_is_brought_back_and_its_trials_found_again(local: LocalBackend, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    gate = tmp_path / "gate"
    wait = f"import os, time; print('started', flush=True)\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    key = send(local, a_launch(noting(ran, wait)))
    running(local, key)
    kill(runner_of(local.root) or 0)
    gate.touch()
    local.wake()
    assert ended(local, key).state == "succeeded"
    assert ran.read_text() == "ran\n"


def test_what_ended_without_a_runner_is_told_by_the_next(local: LocalBackend, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    wait = (
        f"import os, sys, time; print('started', flush=True)\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    )
    key = send(local, a_launch(wait + "\nsys.exit(7)"))
    running(local, key)
    kill(runner_of(local.root) or 0)
    gate.touch()
    wait_until((order.home(local.root, key) / "end.json").exists)
    report = ended(LocalBackend(local.root, local.repository, local.environ), key)
    assert (report.state, report.exit_code) == ("failed", 7)


def test_a_killed_worker_takes_its_program_along_and_is_lost(local: LocalBackend, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        "import os, subprocess, sys, time; child = subprocess.Popen(['sleep', '600'], start_new_session=True);"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); "
    ) + RUNS_ON
    key = send(local, a_launch(script))
    running(local, key)
    kill(worker_of(local, key))
    report = ended(local, key)
    assert (report.state, report.message) == ("lost", "its worker was killed")
    for pid in pids.read_text().split():
        assert not is_alive(int(pid))


def test_a_worker_killed_while_there_is_no_runner_is_lost(local: LocalBackend, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    key = send(local, a_launch(noting(ran)))
    running(local, key)
    kill(runner_of(local.root) or 0)
    kill(worker_of(local, key))
    local.wake()
    assert ended(local, key).state == "lost"
    assert ran.read_text() == "ran\n"


def test_a_killed_program_fails(local: LocalBackend) -> None:
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    report = ended(local, send(local, a_launch(script)))
    assert (report.state, report.exit_code, report.message) == ("failed", 137, "killed by SIGKILL (out of memory?)")


def test_what_a_program_leaves_running_ends_with_it(local: LocalBackend, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        "import subprocess; a = subprocess.Popen(['sleep', '600']);"
        "b = subprocess.Popen(['sleep', '600'], start_new_session=True);"
        f"open({str(pids)!r}, 'w').write(f'{{a.pid}} {{b.pid}}')"
    )
    assert ended(local, send(local, a_launch(script))).state == "succeeded"
    assert not any(is_alive(int(pid)) for pid in pids.read_text().split())


@pytest.mark.parametrize("killed_after", [0, 1, 2, 3, 4, 5])
def test_a_runner_killed_at_any_moment_runs_nothing_twice(
    local: LocalBackend, tmp_path: Path, killed_after: int
) -> None:
    """The moments are those of the queue's and the files' writes that the runner has come to."""
    ran = tmp_path / "ran"
    launches = [a_launch(noting(ran, SUCCEEDS), name=str(number)) for number in range(4)]
    keys = [send(local, launch) for launch in launches]
    log = local.root / "runner.log"
    wait_until(lambda: log.read_text().count("\n") > killed_after)
    pid = runner_of(local.root)
    if pid:
        kill(pid)
    local.wake()
    states = {ended(local, key).state for key in keys}
    assert states == {"succeeded"}
    assert ran.read_text() == "ran\n" * 4


def test_a_copy_of_the_repository_does_not_kill_what_runs_under_the_same_key(
    local: LocalBackend, tmp_path: Path
) -> None:
    key = send(local, a_launch(RUNS_ON))
    running(local, key)
    assert kill_left_over(tmp_path / "copy" / "trials" / key) == 0
    assert state(local, key).state == "running"
    assert kill_left_over(local.root / "trials" / key) > 0


def test_a_cancel_without_a_runner_is_carried_out(local: LocalBackend) -> None:
    key = send(local, a_launch(RUNS_ON))
    running(local, key)
    kill(runner_of(local.root) or 0)
    local.cancel(key)
    assert ended(local, key).state == "cancelled"


# Slots, parallel, failures


def test_a_trial_for_which_the_machine_is_too_small_is_refused(local: LocalBackend) -> None:
    for resources in (Resources(cpus=4096), Resources(gpus=64), Resources(nodes=2), Resources(gpus=0.5)):
        with pytest.raises(RejectedError, match="this machine cannot run it"):
            send(local, a_launch(spec={"resources": resources}))


def test_a_queued_trial_is_cancelled_at_once(local: LocalBackend) -> None:
    cpus = float(len(os.sched_getaffinity(0)))
    first = send(local, a_launch(RUNS_ON, name="a", spec={"resources": Resources(cpus=cpus)}))
    second = send(local, a_launch(RUNS_ON, name="b", spec={"resources": Resources(cpus=cpus)}))
    running(local, first)
    local.cancel(second)
    assert state(local, second).state == "cancelled"
    assert state(local, second).started_at is None
    local.cancel(first)
    assert ended(local, first).state == "cancelled"


def test_parallel_bounds_the_trials_of_a_version(local: LocalBackend) -> None:
    few = {"resources": Resources(cpus=0.1)}
    first, second = (send(local, a_launch(RUNS_ON, name=name, spec=few, parallel=1)) for name in "ab")
    other = send(local, a_launch(RUNS_ON, name="c", spec=few, version=4))
    running(local, first)
    running(local, other)
    assert state(local, second).state == "queued"
    local.cancel(first)
    running(local, second)
    for key in (second, other):
        local.cancel(key)
        ended(local, key)


def test_no_more_are_started_once_too_many_failed(local: LocalBackend) -> None:
    one = {"resources": Resources(cpus=float(len(os.sched_getaffinity(0))))}
    keys = [send(local, a_launch(FAILS, name=str(n), spec=one, max_failures=2)) for n in range(4)]
    reports = [ended(local, key) for key in keys]
    assert [report.state for report in reports] == ["failed", "failed", "cancelled", "cancelled"]
    assert reports[2].message == "not started: 2 trials failed and none succeeded (policy.max_failures)"
    forced = a_launch(SUCCEEDS, name="9", max_failures=2, forced=True)
    assert ended(local, send(local, forced)).state == "succeeded"


def test_gpus_are_handed_out_by_index_and_hidden_from_the_others(local: LocalBackend) -> None:
    local.environ["CUDA_VISIBLE_DEVICES"] = "4,7"
    script = "import os; print('GPU', os.environ['CUDA_VISIBLE_DEVICES']); " + RUNS_ON
    keys = [send(local, a_launch(script, name=name, spec={"resources": Resources(gpus=1, cpus=0.1)})) for name in "ab"]
    without = send(local, a_launch(script, name="c", spec={"resources": Resources(cpus=0.1)}))
    for key in (*keys, without):
        running(local, key)
    assert sorted(line for key in keys for line in local.logs(key) if line.startswith("GPU")) == ["GPU 4", "GPU 7"]
    assert "GPU " in list(local.logs(without))
    assert any("hidden" in line for line in local.logs(without))
    for key in (*keys, without):
        local.cancel(key)
        ended(local, key)


# Environments


def test_a_secret_reaches_the_program_and_neither_log_nor_disk(local: LocalBackend) -> None:
    local.environ["HF_TOKEN"] = "s3cr3t-value-0123"
    script = (
        "import os, sys, time; t = os.environ['HF_TOKEN']; print(len(t)); sys.stdout.write(t[:5]); sys.stdout.flush();"
        "time.sleep(0.2); print(t[5:], t)"
    )
    key = send(local, a_launch(script, spec={"secrets": ("HF_TOKEN",)}))
    assert ended(local, key).state == "succeeded"
    assert list(local.logs(key)) == ["17", "*** ***"]
    found = subprocess.run(["grep", "-rl", "s3cr3t-value", str(local.root)], capture_output=True, text=True)
    assert found.stdout == ""


def test_after_a_runners_death_a_trial_waits_for_an_environment_with_its_secret(local: LocalBackend) -> None:
    local.environ["HF_TOKEN"] = "s3cr3t-value-0123"
    whole = {"resources": Resources(cpus=float(len(os.sched_getaffinity(0)))), "secrets": ("HF_TOKEN",)}
    first = send(local, a_launch(RUNS_ON, name="a", spec=whole))
    second = send(local, a_launch(SUCCEEDS, name="b", spec=whole))
    running(local, first)
    kill(runner_of(local.root) or 0)
    without = {name: value for name, value in local.environ.items() if name != "HF_TOKEN"}
    other = LocalBackend(local.root, local.repository, without)
    other.cancel(first)
    assert ended(other, first).state == "cancelled"
    waiting = until(lambda: state(other, second), lambda report: bool(report.message))
    assert (waiting.state, waiting.message) == ("queued", "waits for an environment that has HF_TOKEN")
    local.wake()
    assert ended(local, second).state == "succeeded"


def test_credentials_that_continue_a_run_stay_in_memory(local: LocalBackend) -> None:
    uri = "https://ada:hunter2@mlflow.example"
    handle = send(local, a_launch(SHOWS, variables={"MLFLOW_TRACKING_URI": uri}))
    ended(local, handle)
    (line,) = (line for line in local.logs(handle) if line.startswith("{"))
    assert json.loads(line)["MLFLOW_TRACKING_URI"] == "https://***@mlflow.example"  # what a log shows is masked
    queue = (local.root / "queue.sqlite").read_bytes()
    assert b"hunter2" not in queue


# What is declared


def test_a_trial_has_exactly_what_is_declared(local: LocalBackend, repository: Repository) -> None:
    repository.write("tool.sh", "#!/bin/sh\necho tool\n")
    os.chmod(repository.path / "tool.sh", 0o755)
    os.symlink("train.py", repository.path / "link.py")
    repository.write("data/a/x.csv", "1,2\n")
    commit = repository.commit()
    repository.write("train.py", "raise SystemExit('the working tree was read')\n")
    code = {}
    for name in ("train.py", "tool.sh", "link.py"):
        mode, _, rest = repository.git("ls-tree", commit, name).partition(" ")
        code[name] = f"{rest.split()[1]} {mode}" if mode != "100644" else rest.split()[1]
    tree = repository.git("rev-parse", f"{commit}:data/a")
    data = {"points": Data(path="data/a", id=f"{tree} 040000")}
    script = (
        "import json, os, subprocess; print(subprocess.check_output(['./tool.sh'], text=True));"
        "open('train.py', 'a').write('#'); open('new.txt', 'w').write('n'); os.makedirs('__pycache__');"
        "open('__pycache__/x', 'w'); seen = sorted(os.path.join(d, f) for d, _, fs in os.walk('.') for f in fs);"
        "print(json.dumps({'seen': seen, 'link': os.readlink('link.py'), 'data': os.environ['ESPALIER_DATA_POINTS']}))"
    )
    launch = a_launch(script, spec={"code": code, "data": data})
    for name in ("a", "b"):
        handle = send(local, replace(launch, trial=name * 12))
        report = ended(local, handle)
        assert report.state == "succeeded", list(local.logs(handle))
        seen = json.loads(next(line for line in local.logs(handle) if line.startswith("{")))
        assert seen["seen"] == [
            *("./__pycache__/x", "./data/a/x.csv", "./link.py", "./new.txt", "./tool.sh", "./train.py"),
        ]
        assert seen["link"] == "train.py"
        assert seen["data"].endswith("/work/data/a")
        kept = Path(report.output or "") / "workdir"
        assert sorted(path.name for path in kept.iterdir()) == ["new.txt", "train.py"]
        assert (kept / "train.py").read_text().count("#") == 1  # the shared copy is not what it wrote to
        assert not (order.home(local.root, handle) / "work").exists()


def test_a_program_finds_no_repository_though_its_folder_lies_in_one(local: LocalBackend) -> None:
    script = "import subprocess; print(subprocess.run(['git', 'rev-parse', 'HEAD'], stderr=-3).returncode)"
    handle = send(local, a_launch(script))
    assert ended(local, handle).state == "succeeded"
    assert list(local.logs(handle)) == ["128"]


def test_untracked_data_of_this_machine_is_linked_into_its_place(local: LocalBackend, repository: Repository) -> None:
    data = {"cifar": Data(uri="file:data/cifar"), "far": Data(uri="gs://bucket/eval/", version="3")}
    with pytest.raises(RejectedError, match="data 'cifar'"):
        send(local, a_launch(SHOWS, spec={"data": data}))
    repository.write("data/cifar/a.bin", "bytes")
    script = "import os; assert open('data/cifar/a.bin').read() == 'bytes'; " + SHOWS
    handle = send(local, a_launch(script, spec={"data": data}))
    assert ended(local, handle).state == "succeeded", list(local.logs(handle))
    (line,) = (line for line in local.logs(handle) if line.startswith("{"))
    seen = json.loads(line)
    assert seen["ESPALIER_DATA_CIFAR"] == seen["CWD"] + "/data/cifar"
    assert seen["ESPALIER_DATA_FAR"] == "gs://bucket/eval/"


def test_an_lfs_pointer_is_replaced_by_its_object_or_refused(local: LocalBackend, repository: Repository) -> None:
    oid = "ab" * 32
    repository.write("model.bin", f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 7\n")
    repository.commit()
    code = {"model.bin": repository.git("rev-parse", "HEAD:model.bin")}
    launch = a_launch("print(open('model.bin').read())", spec={"code": code})
    with pytest.raises(RejectedError, match=r"model\.bin is a Git LFS pointer"):
        send(local, launch)
    stored = repository.path / ".git/lfs/objects" / oid[:2] / oid[2:4]
    stored.mkdir(parents=True)
    (stored / oid).write_text("weights")
    handle = send(local, launch)
    assert ended(local, handle).state == "succeeded"
    assert list(local.logs(handle)) == ["weights"]


def test_an_editable_install_is_shadowed_by_the_commits_copy(
    local: LocalBackend, repository: Repository, tmp_path: Path
) -> None:
    repository.write("src/trainer/__init__.py", "WHERE = 'committed'\n")
    repository.write("src/undeclared.py", "")
    repository.commit()
    repository.write("src/trainer/__init__.py", "WHERE = 'working tree'\n")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "__editable__.trainer.pth").write_text(str(repository.path / "src"))
    (site / "sitecustomize.py").write_text("import sys; sys.own_sitecustomize = True")
    local.environ["VIRTUAL_ENV"] = str(venv)
    script = (
        "import importlib.util, sys, trainer;"
        "print(trainer.WHERE, importlib.util.find_spec('undeclared'), getattr(sys, 'own_sitecustomize', False))"
    )
    with pytest.raises(RejectedError, match="not in the job's code"):
        send(local, a_launch(script))
    code = {"src/trainer/__init__.py": repository.git("rev-parse", "HEAD:src/trainer/__init__.py")}
    handle = send(local, a_launch(script, spec={"code": code}))
    assert ended(local, handle).state == "succeeded", list(local.logs(handle))
    alone = "import sys; print(getattr(sys, 'own_sitecustomize', False))"  # Debian's own comes first, and hides it
    own = subprocess.run([venv / "bin/python", "-c", alone], capture_output=True, text=True, check=True).stdout.strip()
    assert list(local.logs(handle)) == [f"committed None {own}"]


def test_a_package_that_an_editable_finder_maps_is_shadowed_too(
    local: LocalBackend, repository: Repository, tmp_path: Path
) -> None:
    repository.write("lib/trainer/__init__.py", "WHERE = 'committed'\n")
    repository.write("lib/other/__init__.py", "")
    repository.commit()
    repository.write("lib/trainer/__init__.py", "WHERE = 'working tree'\n")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    mapping = {name: str(repository.path / "lib" / name) for name in ("trainer", "other")}
    (site / "__editable__.trainer.pth").write_text(
        "import __editable___trainer_finder; __editable___trainer_finder.install()"
    )
    (site / "__editable___trainer_finder.py").write_text(
        "import sys\nfrom importlib.util import spec_from_file_location\n"
        f"MAPPING: dict[str, str] = {mapping!r}\n"
        "class Finder:\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        "        return spec_from_file_location(name, MAPPING[name] + '/__init__.py') if name in MAPPING else None\n"
        "def install():\n    sys.meta_path.append(Finder)\n"
    )
    local.environ["VIRTUAL_ENV"] = str(venv)
    code = {"lib/trainer/__init__.py": repository.git("rev-parse", "HEAD:lib/trainer/__init__.py")}
    script = "import importlib.util, trainer; print(trainer.WHERE, importlib.util.find_spec('other'))"
    handle = send(local, a_launch(script, spec={"code": code}))
    assert ended(local, handle).state == "succeeded", list(local.logs(handle))
    assert list(local.logs(handle)) == ["committed None"]


def test_interpreter_and_packages_are_reported(local: LocalBackend) -> None:
    report = ended(local, send(local, a_launch()))
    assert report.environment["python"] == ".".join(map(str, sys.version_info[:3]))
    packages = (local.root / "environments" / f"{report.environment['packages']}.txt").read_text().splitlines()
    assert any(package.startswith("pytest==") for package in packages)


# The follower


def test_a_follower_runs_beside_the_trials_and_once_more_after_their_end(
    repository: Repository, environ: dict[str, str], tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    queue = repository.path / ".espalier" / FILE
    look = f"""import os, sqlite3
state, = sqlite3.connect({str(queue)!r}).execute("SELECT state FROM trials").fetchone()
open({str(seen)!r}, "a").write(os.environ["ESPALIER_FOLLOWER"] + " " + state + " ")"""
    follower = (sys.executable, "-c", look)
    backend = LocalBackend(repository.path / ".espalier", repository.path, environ, follower)
    key = send(backend, a_launch(RUNS_ON))
    running(backend, key)
    wait_until(lambda: seen.exists() and seen.read_text())
    backend.cancel(key)
    ended(backend, key)
    wait_until(lambda: "cancelled" in seen.read_text())
    wait_until(lambda: runner_of(backend.root) is None)


# A death of any process at any system call


@pytest.mark.needs("strace")
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("call", ["fdatasync:3", "rename:2", "waitid:1", "link:1", "mkdir:3", "pwrite64:9"])
def test_a_death_at_a_system_call_runs_nothing_twice_and_calls_nothing_succeeded(
    repository: Repository, environ: dict[str, str], tmp_path: Path, call: str
) -> None:
    """Runner, workers and programs each die at the call's nth use; then one more command comes by."""
    name, _, nth = call.partition(":")
    ran = tmp_path / "ran"
    backend = LocalBackend(repository.path / ".espalier", repository.path, environ)
    ended(backend, send(backend, a_launch(name="first")))
    kill(runner_of(backend.root) or 0)
    killing = ["-e", f"trace={name}", "-e", f"inject={name}:signal=SIGKILL:when={nth}"]
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", os.devnull, *killing, *supervisor.command(backend.root, backend.repository)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until(lambda: tracer.poll() is not None or runner_of(backend.root))
    launches = [a_launch(noting(ran, "print('done')"), name=name) for name in "abc"]
    keys = [send(backend, launch) for launch in launches]
    wait_until(lambda: tracer.poll() is not None)
    for _ in range(2):
        backend.wake()
    reports = [ended(backend, key) for key in keys]
    runs = ran.read_text().count("ran") if ran.exists() else 0
    assert {report.state for report in reports} <= {"succeeded", "lost"}
    assert [report.state for report in reports].count("succeeded") <= runs <= 3
    end_runner(backend.root)
