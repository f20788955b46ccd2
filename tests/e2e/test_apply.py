"""`apply`, `follow`, `cancel`, `retry` and `logs` from outside: exit codes, results, policies, reuse."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import NewDesk
from tests.e2e.desk import GATED, Desk, finish
from tests.wait import wait_until

QUICK = "command: sh t.sh\ncode: [t.sh]\n"
HELD = "command: python gate.py\ncode: [gate.py]\n"
FILES = {"t.sh": 'echo "done $*"\n', "gate.py": GATED, "bad.sh": "echo it went wrong; exit 7\n"}

VERSION_KEYS = [
    *("job", "line", "version", "parent", "base", "digest", "commit", "subject", "state", "retired", "official"),
    *("reason", "author", "actor", "created_at", "ended_at", "backend", "run_id", "trials", "best"),
]
COUNT_KEYS = ["total", "queued", "running", "succeeded", "failed", "cancelled", "lost", "reused"]
TRIAL_KEYS = [
    *("id", "params", "state", "attempt", "exit_code", "message", "handle", "run_id", "started_at", "ended_at"),
    *("metrics", "reused_from"),
]


def gates(desk: Desk) -> Any:
    """Return the names of the trials that have come to their gate."""
    return sorted(file.name.removeprefix("at ") for file in Path(desk.environ["GATES"]).glob("at *"))


def open_gate(desk: Desk) -> None:
    (Path(desk.environ["GATES"]) / "open").touch()


def states(shown: Any) -> dict[Any, str]:
    """Return the states of a shown version's trials by the value of ``a``."""
    return {trial["params"].get("a"): trial["state"] for trial in shown["trials"]}


# What commands give back


@pytest.fixture(scope="module")
def sweep(new_desk: NewDesk) -> Desk:
    """The template's two jobs, applied twice with an edit between; the first results are kept in first.json."""
    desk = new_desk()
    (desk.path.parent / "first.json").write_text(desk.run("apply", "--format", "json").stdout)
    desk.repo.replace("conf/job/group/sweep.yaml", "choice(1,2,3)", "choice(2,3,4)")
    desk.repo.commit("Look further right")
    (desk.path.parent / "second.json").write_text(desk.run("apply", "--format", "json").stdout)
    return desk


def test_apply_gives_the_versions_that_it_touched(sweep: Desk) -> None:
    first = json.loads((sweep.path.parent / "first.json").read_text())
    assert list(first) == ["format", "versions"]
    assert [(v["job"], v["version"], v["state"]) for v in first["versions"]] == [
        ("group/sweep", 1, "succeeded"),
        ("single", 1, "succeeded"),
    ]
    version = first["versions"][0]
    assert list(version)[: len(VERSION_KEYS)] == VERSION_KEYS
    assert list(version["trials"]) == COUNT_KEYS
    assert version["best"]["metric"] == "score"
    assert version["best"]["value"] == 9
    assert (version["line"], version["parent"], version["base"]) == (None, None, None)
    assert (version["retired"], version["official"], version["backend"]) == (False, True, "local")
    assert (version["author"], version["actor"]) == ("Tess Ter <tess@example.invalid>",) * 2
    assert version["subject"] == "Declare the jobs"
    assert version["created_at"].endswith("Z")
    assert version["created_at"] < version["ended_at"]
    second = json.loads((sweep.path.parent / "second.json").read_text())
    assert [(v["job"], v["version"], v["parent"]) for v in second["versions"]] == [("group/sweep", 2, 1)]


def test_widening_a_sweep_runs_only_the_new_points(sweep: Desk) -> None:
    shown = sweep.json("show", "group/sweep")
    assert {t["params"]["width"]: (t["state"], t["attempt"]) for t in shown["trials"]} == {
        2: ("reused", 0),
        3: ("reused", 0),
        4: ("succeeded", 1),
    }
    old = {t["params"]["width"]: t for t in sweep.json("show", "group/sweep@v1")["trials"]}
    taken = next(t for t in shown["trials"] if t["params"]["width"] == 3)
    assert taken["reused_from"] == f"group/sweep@v1/{old[3]['id']}"
    assert taken["metrics"] == old[3]["metrics"] == {"score": 9}
    assert shown["best"]["value"] == 12
    assert shown["version"] == 2


def test_show_has_the_version_its_spec_with_defaults_and_its_trials(sweep: Desk) -> None:
    shown = sweep.json("show", "group/sweep@v1")
    assert set(VERSION_KEYS) - {"trials"} <= set(shown)
    assert list(shown["trials"][0])[: len(TRIAL_KEYS)] == TRIAL_KEYS
    spec = shown["spec"]
    assert spec["resources"] == {"cpus": 1, "memory_gib": None, "gpus": 0, "time_limit_s": None, "nodes": 1}
    assert (spec["pass_params"], spec["grace_s"], spec["env"], spec["data"]) == ("flags", 30, {}, {})
    assert spec["params"] == {"optim.lr": 0.001, "optim.beta": 0.9}, "the base of a swept value changes nothing"
    assert {key: spec["sweep"][key] for key in ("method", "parallel", "seed", "max_trials")} == {
        "method": "grid",
        "parallel": None,
        "seed": 0,
        "max_trials": None,
    }
    trial = shown["trials"][0]
    assert len(trial["id"]) == 12
    assert trial["params"] == {"optim.lr": 0.001, "optim.beta": 0.9, "width": 1}
    assert (trial["state"], trial["attempt"], trial["exit_code"], trial["reused_from"]) == ("succeeded", 1, 0, None)
    text = sweep.run("show", "group/sweep").stdout
    for word in ("Look further right", "Tess Ter", "conf/job/group/sweep.yaml:", "sweep.params.width"):
        assert word in text
    assert sweep.json("show", f"group/sweep@v1/{trial['id'][:4]}")["version"] == 1


def test_status_history_diff_and_spec_have_the_keys_of_the_contract(sweep: Desk) -> None:
    status = sweep.json("status")
    assert list(status) == ["format", "jobs"]
    assert [(v["job"], v["version"]) for v in status["jobs"]] == [("group/sweep", 2), ("single", 1)]
    history = sweep.json("history", "group/sweep")
    assert (history["format"], history["job"]) == (1, "group/sweep")
    assert [v["version"] for v in history["versions"]] == [2, 1]
    assert list(history["versions"][1])[: len(VERSION_KEYS)] == VERSION_KEYS
    diff = sweep.json("diff", "group/sweep@v2")
    assert (diff["format"], diff["a"], diff["b"]) == (1, "group/sweep@v2", "group/sweep@v1")
    assert [(c["path"], c["old"], c["new"]) for c in diff["changes"]] == [("sweep.params.width", [1, 2, 3], [2, 3, 4])]
    assert sweep.json("diff", "group/sweep@v1", "group/sweep@v2")["changes"] == diff["changes"]
    spec = sweep.json("spec", "group/sweep")
    assert list(spec)[:6] == ["format", "job", "commit", "digest", "spec", "origins"]
    assert spec["digest"] == status["jobs"][0]["digest"]
    assert spec["commit"] == sweep.repo.git("rev-parse", "HEAD")
    assert spec["origins"]["params.optim.lr"] == "conf/optim/adam.yaml:1"
    assert spec["origins"]["command"] == "conf/job/group/sweep.yaml:3"
    assert "conf/optim/adam.yaml:1" in sweep.run("spec", "group/sweep").stdout
    assert "no parent" in sweep.refused("diff", "single")
    assert "single" in sweep.refused("show", "singel")
    assert "v9" in sweep.refused("show", "single@v9")


def test_logs_are_of_one_trial_and_a_reused_one_has_those_it_was_taken_from(sweep: Desk) -> None:
    assert sweep.run("logs", "single").stdout.startswith("trained --")
    asked = sweep.run("logs", "group/sweep@v2", code=1)
    assert "name one" in asked.stderr
    shown = sweep.json("show", "group/sweep")
    reused = next(t for t in shown["trials"] if t["state"] == "reused")
    done = sweep.run("logs", f"group/sweep@v2/{reused['id'][:8]}")
    assert f"--width={reused['params']['width']}" in done.stdout
    assert f"reused from {reused['reused_from']}" in done.stderr
    assert sweep.run("logs", "single", "--tail", "0").stdout == ""


def test_follow_with_nothing_unfinished_is_0_and_gives_no_version(sweep: Desk) -> None:
    assert sweep.json("follow") == {"format": 1, "versions": []}
    assert sweep.json("apply") == {"format": 1, "versions": []}
    assert "nope" in sweep.refused("follow", "nope")


def test_a_revert_makes_a_version_on_the_last_one_and_runs_nothing(sweep: Desk) -> None:
    sweep.repo.replace("conf/job/group/sweep.yaml", "choice(2,3,4)", "choice(1,2,3)")
    sweep.repo.commit("Back to where we were")
    action = sweep.action("group/sweep")
    assert (action["action"], action["version"], action["parent"]) == ("revise", 3, 2)
    assert action["trials"] == {"total": 3, "reused": 3, "waiting": 0, "run": 0, "cancel": 0}
    assert "same spec as v1" in sweep.run("plan").stdout
    [version] = sweep.json("apply")["versions"]
    assert (version["state"], version["trials"]["reused"]) == ("succeeded", 3)
    assert version["digest"] == sweep.json("show", "group/sweep@v1")["digest"]
    first = sweep.json("show", "group/sweep@v1")["trials"][0]
    assert sweep.json("show", "group/sweep@v3")["trials"][0]["reused_from"] == f"group/sweep@v1/{first['id']}"


# What is refused and what is left out


def test_apply_refuses_job_errors_and_with_skip_errors_carries_out_the_rest_and_exits_1(new_desk: NewDesk) -> None:
    desk = new_desk({"good": QUICK, "wrong": f"{QUICK}extra: 1\n"}, FILES)
    assert "wrong" in desk.refused("apply")
    assert "refs/espalier/ledger" not in desk.repo.git("for-each-ref")
    done = desk.json("apply", "--skip-errors", code=1)
    assert [(v["job"], v["state"]) for v in done["versions"]] == [("good", "succeeded")]
    assert "cursor.json" not in desk.repo.git("ls-tree", "--name-only", "refs/espalier/ledger")
    desk.job("wrong", QUICK)
    desk.repo.commit("Mend it")
    desk.run("apply", "--job", "good")
    assert "cursor.json" not in desk.repo.git("ls-tree", "--name-only", "refs/espalier/ledger"), (
        "with --job the cursor stays"
    )
    desk.run("apply")
    assert json.loads(desk.ledger("cursor.json"))["main"]["commit"] == desk.repo.git("rev-parse", "HEAD")


def test_mass_retirement_is_refused_unless_allowed_and_jobs_come_back(new_desk: NewDesk) -> None:
    desk = new_desk({f"j{n}": QUICK for n in range(6)}, FILES)
    desk.run("apply")
    desk.repo.remove("conf/job/j0.yaml")
    desk.repo.remove("conf/job/j1.yaml")
    desk.repo.commit("Take two of six away")
    before = desk.repo.git("rev-parse", "refs/espalier/ledger")
    assert "--allow-retire" in desk.refused("apply")
    assert desk.repo.git("rev-parse", "refs/espalier/ledger") == before
    assert desk.json("plan")["summary"]["retire"] == 2
    done = desk.json("apply", "--allow-retire")
    assert [(v["job"], v["retired"], v["state"]) for v in done["versions"]] == [
        ("j0", True, "succeeded"),
        ("j1", True, "succeeded"),
    ]
    assert {a["job"] for a in desk.json("plan")["actions"]} == {"j2", "j3", "j4", "j5"}, "no action for a retired job"

    desk.job("j0", QUICK)
    desk.repo.commit("j0 again")
    action = desk.action("j0")
    assert (action["action"], action["version"], action["parent"], action["reason"]) == ("revise", 2, 1, "back again")
    assert action["trials"] == {"total": 1, "reused": 1, "waiting": 0, "run": 0, "cancel": 0}
    [version] = desk.json("apply")["versions"]
    assert (version["job"], version["version"], version["retired"]) == ("j0", 2, False)

    for n in (0, 2, 3, 4, 5):
        desk.repo.remove(f"conf/job/j{n}.yaml")
    desk.repo.commit("All gone")
    assert "5 of 5" in desk.refused("apply")


def test_in_ci_a_local_ledger_is_refused_unless_it_is_allowed(new_desk: NewDesk) -> None:
    desk = new_desk({"a": QUICK}, FILES)
    assert "--allow-local-ledger" in desk.refused("apply", env={"CI": "true"})
    assert "refs/espalier" not in desk.repo.git("for-each-ref")
    assert desk.json("plan", env={"CI": "true"})["summary"]["create"] == 1
    assert desk.json("apply", "--allow-local-ledger", env={"CI": "true"})["versions"][0]["state"] == "succeeded"


def test_a_tracker_that_is_down_refuses_apply_before_anything_is_recorded(new_desk: NewDesk) -> None:
    desk = new_desk({"a": QUICK}, FILES)
    said = desk.refused("apply", env={"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    assert "127.0.0.1:9" in said
    assert "refs/espalier" not in desk.repo.git("for-each-ref")
    assert not (desk.state / "queue.sqlite").exists()


def test_a_name_that_is_not_set_refuses_apply_before_any_intent(new_desk: NewDesk) -> None:
    desk = new_desk(
        {"a": f"{QUICK}secrets: [MY_TOKEN]\n", "b": f"{QUICK}env: {{X: '${{espalier.env:MY_NAME}}'}}\n"}, FILES
    )
    assert "MY_TOKEN" in desk.refused("apply")
    assert "MY_NAME" in desk.refused("apply", env={"MY_TOKEN": "token-value"})
    assert "refs/espalier" not in desk.repo.git("for-each-ref")


# Policies


def test_a_failed_trial_is_exit_code_3_and_not_waited_for_again(new_desk: NewDesk) -> None:
    desk = new_desk({"bad": "command: sh bad.sh\ncode: [bad.sh]\n", "good": QUICK}, FILES)
    done = desk.json("apply", code=3)
    assert [(v["job"], v["state"]) for v in done["versions"]] == [("bad", "failed"), ("good", "succeeded")]
    [trial] = desk.json("show", "bad")["trials"]
    assert (trial["state"], trial["exit_code"], trial["attempt"]) == ("failed", 7, 1)
    assert "it went wrong" in trial["message"]
    assert desk.run("logs", "bad").stdout == "it went wrong\n"
    assert desk.json("apply") == {"format": 1, "versions": []}, "what was final before was not waited for"
    again = desk.json("retry", "bad", code=3)
    assert [(v["job"], v["version"], v["state"]) for v in again["versions"]] == [("bad", 1, "failed")]
    assert desk.json("show", "bad")["trials"][0]["attempt"] == 2
    assert "good@v1" in desk.refused("retry", "good")


def test_retries_are_new_attempts_that_keep_the_checkpoint_folder_and_get_a_new_output_folder(
    new_desk: NewDesk,
) -> None:
    program = """\
        echo x >> $ESPALIER_CHECKPOINT_DIR/tries
        test -z "$(ls -A $ESPALIER_OUTPUT_DIR)" || exit 9
        echo x > $ESPALIER_OUTPUT_DIR/here
        echo "attempt $ESPALIER_ATTEMPT after $(wc -l < $ESPALIER_CHECKPOINT_DIR/tries)"
        test $ESPALIER_ATTEMPT = 3
        """
    desk = new_desk({"a": f"{QUICK}policy: {{retries: 2}}\n"}, {"t.sh": program})
    [version] = desk.json("apply")["versions"]
    assert version["state"] == "succeeded"
    [trial] = desk.json("show", "a")["trials"]
    assert (trial["attempt"], trial["exit_code"]) == (3, 0)
    assert desk.run("logs", "a").stdout == "attempt 3 after 3\n"


def test_attempts_that_a_later_commit_allows_are_made_by_its_apply(new_desk: NewDesk) -> None:
    program = "test $ESPALIER_ATTEMPT = 2\n"
    desk = new_desk({"a": QUICK}, {"t.sh": program})
    desk.run("apply", code=3)
    desk.job("a", f"{QUICK}policy: {{retries: 1}}\n")
    desk.repo.commit("Allow another attempt")
    [version] = desk.json("apply")["versions"]
    assert (version["version"], version["state"]) == (1, "succeeded")


def test_launching_stops_after_max_failures_and_retry_sends_what_was_not_sent(new_desk: NewDesk) -> None:
    text = "command: sh bad.sh\ncode: [bad.sh]\nsweep: {parallel: 1, params: {a: 'range(6)'}}\n"
    desk = new_desk({"a": f"{text}policy: {{max_failures: 2}}\n"}, FILES)
    desk.run("apply", code=3)
    shown = desk.json("show", "a")
    assert shown["state"] == "failed"
    assert sorted(states(shown).values()) == ["cancelled"] * 4 + ["failed"] * 2
    stopped = next(t for t in shown["trials"] if t["state"] == "cancelled")
    assert "max_failures" in stopped["message"]
    done = desk.run("retry", f"a@v1/{stopped['id'][:8]}", code=3)
    assert "failed" in done.stdout
    again = next(t for t in desk.json("show", "a")["trials"] if t["id"] == stopped["id"])
    assert again["state"] == "failed"


def test_parallel_bounds_how_many_run_at_once(new_desk: NewDesk) -> None:
    program = """\
        import os, pathlib, time
        here = pathlib.Path(os.environ["GATES"])
        mine = here / f"in {os.environ['ESPALIER_TRIAL']}"
        mine.touch()
        with open(here / "seen", "a") as seen:
            print(len(list(here.glob("in *"))), file=seen)
        time.sleep(0.05)
        mine.unlink()
        """
    resources = "resources: {cpus: 0.1}\n"
    desk = new_desk(
        {"a": f"{HELD}{resources}sweep: {{parallel: 2, params: {{a: 'range(6)'}}}}\n"}, {"gate.py": program}
    )
    desk.run("apply")
    seen = [int(line) for line in (Path(desk.environ["GATES"]) / "seen").read_text().split()]
    assert len(seen) == 6
    assert max(seen) <= 2


def test_a_time_limit_ends_a_trial_with_sigterm_then_grace_then_sigkill(new_desk: NewDesk) -> None:
    program = """\
        trap 'echo told to end; test "$1" = --kind=rude || exit 0' TERM
        tries=0
        while test $tries -lt 2000; do sleep 0.05; tries=$((tries + 1)); done
        """
    text = "command: sh t.sh\ncode: [t.sh]\nresources: {time_limit_s: 2}\ngrace_s: 1\n"
    desk = new_desk({kind: f"{text}params: {{kind: {kind}}}\n" for kind in ("polite", "rude")}, {"t.sh": program})
    desk.run("apply", code=3)
    for kind in ("polite", "rude"):
        [trial] = desk.json("show", kind)["trials"]
        assert trial["state"] == "failed", "out of time is no success, whatever the exit code"
        assert "time_limit_s is 2" in trial["message"]
        assert "told to end" in desk.run("logs", kind).stdout


# While it runs


def test_what_runs_is_waited_for_by_equal_trials_cancelled_retried_and_followed(new_desk: NewDesk) -> None:
    desk = new_desk({"a": f"{HELD}sweep: {{params: {{a: 'choice(1,2)'}}}}\nresources: {{cpus: 0.1}}\n"}, FILES)
    [version] = desk.json("apply", "--no-wait")["versions"]
    assert version["state"] == "running"
    wait_until(lambda: gates(desk) == ["--a=1", "--a=2"], within_s=60)

    desk.job("a", f"{HELD}sweep: {{params: {{a: 'choice(2,3)'}}}}\nresources: {{cpus: 0.1}}\n")
    desk.repo.commit("Move on while it runs")
    action = desk.action("a")
    assert (action["action"], action["version"]) == ("revise", 2)
    assert action["trials"] == {"total": 2, "reused": 0, "waiting": 1, "run": 1, "cancel": 0}
    assert "parent v1 is still running" in desk.run("plan").stdout
    desk.run("apply", "--no-wait")
    wait_until(lambda: "--a=3" in gates(desk), within_s=60)
    assert desk.action("a")["action"] == "keep", "one that waits for an equal one counts for nothing to resume"
    waiting = next(t for t in desk.json("show", "a@v2")["trials"] if t["params"]["a"] == 2)
    assert (waiting["state"], waiting["attempt"], waiting["handle"]) == ("queued", 0, None)

    third = next(t for t in desk.json("show", "a@v2")["trials"] if t["params"]["a"] == 3)
    desk.json("cancel", f"a@v2/{third['id'][:8]}")
    with desk.begun("follow", "--format", "json") as following:
        open_gate(desk)
    done = json.loads(finish(following, None).stdout)
    assert states(desk.json("show", "a@v1")) == {1: "succeeded", 2: "succeeded"}
    second = desk.json("show", "a@v2")
    assert states(second)[2] == "reused"
    assert states(second)[3] in ("cancelled", "succeeded")
    assert {(v["job"], v["version"]) for v in done["versions"]} == {("a", 1), ("a", 2)}
    assert len(gates(desk)) == 3, "nothing ran twice"


def test_cancel_ends_a_version_and_retry_runs_it_again(new_desk: NewDesk) -> None:
    desk = new_desk({"a": f"{HELD}grace_s: 5\n"}, FILES)
    desk.run("apply", "--no-wait")
    wait_until(lambda: gates(desk), within_s=60)
    [version] = desk.json("cancel", "a")["versions"]
    assert (version["job"], version["version"]) == ("a", 1)
    desk.run("follow", code=None)
    [trial] = desk.json("show", "a")["trials"]
    assert trial["state"] == "cancelled"
    assert desk.action("a")["action"] == "keep"
    assert "espalier retry" in desk.action("a")["reason"]
    assert "nothing of a@v1 is running" in desk.refused("cancel", "a")
    assert "no version" in desk.refused("cancel", "b")
    open_gate(desk)
    [again] = desk.json("retry", "a@v1")["versions"]
    assert again["state"] == "succeeded"


def test_on_supersede_cancel_ends_what_earlier_versions_left(new_desk: NewDesk) -> None:
    text = f"{HELD}resources: {{cpus: 0.1}}\npolicy: {{on_supersede: cancel}}\n"
    desk = new_desk({"a": f"{text}sweep: {{params: {{a: 'choice(1,2)'}}}}\n"}, FILES)
    desk.run("apply", "--no-wait")
    wait_until(lambda: len(gates(desk)) == 2, within_s=60)
    desk.job("a", f"{text}sweep: {{params: {{a: 'choice(2,3)'}}}}\n")
    desk.repo.commit("Replace it")
    assert desk.action("a")["trials"] == {"total": 2, "reused": 0, "waiting": 1, "run": 1, "cancel": 1}
    desk.run("apply", "--no-wait")
    wait_until(lambda: len(gates(desk)) == 3, within_s=60)
    desk.wait_for("a@v1", "running")
    wait_until(lambda: states(desk.json("show", "a@v1"))[1] == "cancelled", within_s=60, every_s=0.2)
    open_gate(desk)
    assert finish(desk.start("follow"), None).returncode in (0, 3)
    assert states(desk.json("show", "a@v1")) == {1: "cancelled", 2: "succeeded"}
    assert states(desk.json("show", "a@v2")) == {2: "reused", 3: "succeeded"}


def test_ctrl_c_stops_the_watching_not_the_work_and_says_so(new_desk: NewDesk) -> None:
    desk = new_desk({"a": HELD}, FILES)
    watching = desk.start("apply")
    wait_until(lambda: gates(desk), within_s=60)
    os.killpg(watching.pid, signal.SIGINT)
    done = finish(watching, 130)
    assert "what runs goes on" in done.stderr
    open_gate(desk)
    assert desk.wait_for("a", "succeeded", "failed", "cancelled")["state"] == "succeeded", "with no further command"


def test_an_apply_with_nothing_new_waits_for_what_still_runs(new_desk: NewDesk) -> None:
    desk = new_desk({"a": HELD}, FILES)
    desk.run("apply", "--no-wait")
    wait_until(lambda: gates(desk), within_s=60)
    assert "running" in desk.action("a")["reason"]
    assert desk.json("follow", "--once")["versions"][0]["state"] == "running"
    with desk.begun("apply", "--format", "json") as waiting:
        open_gate(desk)
    [version] = json.loads(finish(waiting).stdout)["versions"]
    assert (version["job"], version["version"], version["state"]) == ("a", 1, "succeeded")


def test_a_retired_job_goes_on_unless_its_running_trials_are_to_be_cancelled(new_desk: NewDesk) -> None:
    desk = new_desk({"a": HELD, "b": HELD.replace("gate.py\n", "gate.py b\n", 1), "c": QUICK}, FILES)
    desk.run("apply", "--no-wait")
    wait_until(lambda: len(gates(desk)) == 2, within_s=60)
    desk.repo.remove("conf/job/a.yaml")
    desk.repo.commit("Retire a")
    desk.run("apply", "--no-wait")
    assert desk.json("show", "a")["retired"] is True
    desk.repo.remove("conf/job/b.yaml")
    desk.repo.commit("Retire b")
    desk.run("apply", "--no-wait", "--cancel-running")
    desk.wait_for("b", "cancelled")
    assert desk.json("show", "a")["state"] == "running"
    open_gate(desk)
    desk.wait_for("a", "succeeded")
