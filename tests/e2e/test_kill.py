"""SIGKILL of each process of ours while work runs: the next command finds the truth, and nothing runs twice."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import NewDesk
from tests.e2e.desk import Desk, finish, processes
from tests.looking import HttpLook
from tests.wait import wait_until

PROGRAM = """\
    import os, pathlib, sys, time
    here = pathlib.Path(os.environ["GATES"])
    (here / "started").open("a").write(os.environ["ESPALIER_KEY"] + "\\n")
    (here / "pids").write_text(f"{os.getpid()} {os.getppid()}")
    end = time.monotonic() + 120
    while not (here / "open").exists() and time.monotonic() < end:
        time.sleep(0.02)
    """
HELD = "command: python held.py\ncode: [held.py]\n"


@pytest.fixture
def held(new_desk: NewDesk) -> Desk:
    """A job whose program runs, submitted by a command that has ended."""
    desk = new_desk({"a": f"{HELD}policy: {{recoveries: 0}}\n"}, {"held.py": PROGRAM})
    desk.run("apply", "--no-wait")
    wait_until(lambda: (Path(desk.environ["GATES"]) / "pids").exists(), within_s=90)
    return desk


def pids(desk: Desk) -> tuple[int, int]:
    """Return the ids of the program and of its worker."""
    program, worker = (Path(desk.environ["GATES"]) / "pids").read_text().split()
    return int(program), int(worker)


def parent(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text()
    return int(fields[fields.rindex(")") + 2 :].split()[1])


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except OSError:
        return True


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: gone(pid))


def starts(desk: Desk) -> list[str]:
    return (Path(desk.environ["GATES"]) / "started").read_text().split()


def let_go(desk: Desk) -> None:
    (Path(desk.environ["GATES"]) / "open").touch()


def is_shown(desk: Desk, look: HttpLook, status: str) -> Any:
    return look(desk.json("show", "a")["run_id"]).status == status


def test_after_no_wait_the_follower_writes_ledger_and_mlflow_to_the_end(held: Desk, look: HttpLook) -> None:
    let_go(held)
    shown = held.wait_for("a", "succeeded", "failed", "lost")
    assert shown["state"] == "succeeded"
    wait_until(lambda: is_shown(held, look, "FINISHED"), within_s=60, every_s=0.2)
    wait_until(lambda: not processes(held.state, "espalier"), within_s=90, every_s=0.1)


def test_a_killed_runner_is_found_again_and_its_trial_goes_on(held: Desk) -> None:
    program, worker = pids(held)
    end(parent(worker))
    assert not gone(program)
    assert held.json("follow", "--once")["versions"][0]["state"] == "running"
    let_go(held)
    held.run("follow", code=None)
    assert held.json("show", "a")["state"] == "succeeded"
    assert len(starts(held)) == 1


def test_an_end_that_no_runner_saw_is_found_by_the_next_command(held: Desk) -> None:
    program, worker = pids(held)
    runner = parent(worker)
    for follower in processes(held.state, "--beside"):
        end(follower)
    end(runner)
    let_go(held)
    wait_until(lambda: gone(program) and gone(worker), within_s=60)
    assert held.json("show", "a")["state"] == "running", "who only looks asks nobody"
    finish(held.start("follow"), None)
    shown = held.json("show", "a")
    assert (shown["state"], shown["trials"][0]["exit_code"]) == ("succeeded", 0)
    assert len(starts(held)) == 1


def test_a_killed_follower_leaves_nothing_out(held: Desk, look: HttpLook) -> None:
    wait_until(lambda: processes(held.state, "--beside"), within_s=60)
    for follower in processes(held.state, "--beside"):
        end(follower)
    let_go(held)
    held.run("follow", code=None)
    assert held.json("show", "a")["state"] == "succeeded"
    assert is_shown(held, look, "FINISHED")


def test_a_killed_worker_is_no_success_and_leaves_no_program_behind(held: Desk) -> None:
    program, worker = pids(held)
    end(worker)
    shown = held.wait_for("a", "succeeded", "failed", "lost", "cancelled")
    assert (shown["state"], shown["trials"][0]["state"]) == ("failed", "lost")
    wait_until(lambda: gone(program), within_s=30)
    assert held.json("apply") == {"format": 1, "versions": []}
    assert len(starts(held)) == 1


def test_a_killed_program_has_failed_by_its_signal(held: Desk) -> None:
    program, _ = pids(held)
    end(program)
    shown = held.wait_for("a", "succeeded", "failed", "lost", "cancelled")
    [trial] = shown["trials"]
    assert trial["state"] == "failed"
    assert trial["exit_code"] == 128 + signal.SIGKILL
    assert "SIGKILL" in trial["message"]


def test_a_lost_trial_is_recovered_by_policy_with_its_checkpoints(new_desk: NewDesk) -> None:
    desk = new_desk({"a": f"{HELD}policy: {{recoveries: 1}}\n"}, {"held.py": PROGRAM})
    desk.run("apply", "--no-wait")
    wait_until(lambda: (Path(desk.environ["GATES"]) / "pids").exists(), within_s=90)
    _, worker = pids(desk)
    end(worker)
    wait_until(lambda: len(starts(desk)) == 2, within_s=90)
    let_go(desk)
    shown = desk.wait_for("a", "succeeded", "failed")
    assert shown["state"] == "succeeded"
    assert shown["trials"][0]["attempt"] == 2
    assert len(set(starts(desk))) == 2, "each attempt ran once"


def test_a_killed_apply_is_finished_by_the_next_and_launches_nothing_twice(new_desk: NewDesk) -> None:
    text = f"{HELD}resources: {{cpus: 0.1}}\nsweep: {{params: {{a: 'range(4)'}}}}\n"
    desk = new_desk({"a": text}, {"held.py": PROGRAM})
    first = desk.start("apply")
    wait_until(lambda: "refs/espalier/ledger" in desk.repo.git("for-each-ref"), within_s=90)
    first.kill()
    finish(first, -signal.SIGKILL)
    let_go(desk)
    assert desk.run("apply", code=None).returncode == 0
    shown = desk.wait_for("a", "succeeded", "failed")
    assert shown["state"] == "succeeded"
    assert sorted(starts(desk)) == sorted(trial["handle"] for trial in shown["trials"])


def test_two_applies_at_once_launch_each_trial_once(new_desk: NewDesk) -> None:
    text = f"{HELD}resources: {{cpus: 0.1}}\nsweep: {{params: {{a: 'range(3)'}}}}\n"
    desk = new_desk({"a": text}, {"held.py": PROGRAM})
    let_go(desk)
    both = [desk.start("apply"), desk.start("apply")]
    codes = [finish(process, None).returncode for process in both]
    assert 0 in codes
    assert set(codes) <= {0, 1}, "the slower one may find its plan stale"
    shown = desk.json("show", "a")
    assert (shown["version"], shown["state"]) == (1, "succeeded")
    assert sorted(starts(desk)) == sorted(trial["handle"] for trial in shown["trials"])


def test_after_a_runners_death_queued_trials_wait_for_a_command_that_has_their_secret(new_desk: NewDesk) -> None:
    text = f"{HELD}secrets: [MY_SECRET]\nsweep: {{parallel: 1, params: {{a: 'choice(1,2)'}}}}\n"
    desk = new_desk({"a": text}, {"held.py": PROGRAM})
    desk.run("apply", "--no-wait", env={"MY_SECRET": "correct-horse"})
    wait_until(lambda: (Path(desk.environ["GATES"]) / "pids").exists(), within_s=90)
    _, worker = pids(desk)
    runner = parent(worker)
    for follower in processes(desk.state, "--beside"):
        end(follower)
    end(runner)
    let_go(desk)
    wait_until(lambda: gone(worker), within_s=60)
    desk.run("follow", "--once")

    def first_is_over() -> bool:
        return bool(desk.json("follow", "--once")["versions"][0]["trials"]["succeeded"])

    wait_until(first_is_over, within_s=60, every_s=0.2)
    assert desk.json("show", "a")["trials"][1]["state"] == "queued"
    assert len(starts(desk)) == 1
    desk.run("follow", env={"MY_SECRET": "correct-horse"})
    assert desk.json("show", "a")["state"] == "succeeded"
    assert len(starts(desk)) == 2
