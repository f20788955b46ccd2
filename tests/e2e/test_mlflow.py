"""What MLflow shows, to the letter of the contract: while trials run, at their ends, and when it was away."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import NewDesk
from tests.e2e.desk import Desk, finish
from tests.looking import HttpLook, SqliteLook
from tests.servers import Relay
from tests.wait import wait_until

STEPS = """\
    import json, os, pathlib, sys, time
    params = json.loads(pathlib.Path(os.environ["ESPALIER_PARAMS"]).read_text())
    out = pathlib.Path(os.environ["ESPALIER_OUTPUT_DIR"])
    with open(out / "metrics.jsonl", "w") as metrics:
        print(json.dumps({"step": 5, "loss": 2.5, "time": 1700000000.5}), file=metrics, flush=True)
        print(json.dumps({"loss": float("nan"), "acc@5": params["lr"]}), file=metrics, flush=True)
        print(json.dumps({"step": 9, "loss": 1 / params["lr"]}), file=metrics, flush=True)
    (out / "model").mkdir()
    (out / "model/weights.txt").write_text("w" * 10)
    (out / "model/big.bin").write_text("b" * 3_000_000)
    (out / "scratch.tmp").write_text("s")
    print("trained", flush=True)
    if params.get("wait"):
        end = time.monotonic() + 120
        while not pathlib.Path(os.environ["GATES"], "open").exists() and time.monotonic() < end:
            time.sleep(0.02)
    """
SWEPT = """\
command: python steps.py
code: [steps.py]
params: {optim: {name: sgd}, lr: 1}
sweep:
  params: {lr: "choice(1,2)"}
  objective: {metric: loss, goal: minimize}
artifacts: {exclude: ["*.tmp"], max_mb: 2}
"""


def key(*parts: object) -> str:
    """Return the first 40 hex digits of the contract's keys."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:40]


def project(desk: Desk) -> str:
    return str(json.loads(desk.ledger("FORMAT"))["project"])


def experiment(desk: Desk, look: HttpLook, run_id: str) -> str:
    run = look.ask("runs/get", run_id=run_id)["run"]
    asked = look.ask("experiments/get", experiment_id=run["info"]["experiment_id"])
    return str(asked["experiment"]["name"])


@pytest.fixture(scope="module")
def shown(new_desk: NewDesk) -> Desk:
    """A sweep and a single job at their first and, after an edit, second version."""
    desk = new_desk(
        {"digits/swept": SWEPT, "single": "command: python one.py\ncode: [one.py]\nparams: {lr: 4}\n"},
        {
            "steps.py": STEPS,
            "one.py": "import json, os\n"
            "json.dump({'score': 3, 'epochs': 2}, open(os.environ['ESPALIER_OUTPUT_DIR'] + '/metrics.json', 'w'))\n",
        },
    )
    desk.repo.git("remote", "add", "origin", "https://user:hunter22@git.example.org/team/digits.git")
    desk.run("apply")
    desk.job("digits/swept", SWEPT.replace("choice(1,2)", "choice(2,4)").replace("name: sgd", "name: adam"))
    desk.job("single", "command: python one.py\ncode: [one.py]\nparams: {lr: 4}\nresources: {cpus: 0.5}\n")
    desk.repo.commit("Try Adam: it ought to be better")
    desk.run("apply")
    return desk


def test_runs_have_the_names_statuses_and_tags_of_the_contract(shown: Desk, look: HttpLook) -> None:
    version = shown.json("show", "digits/swept@v2")
    first = shown.json("show", "digits/swept@v1")
    ledger = json.loads(shown.ledger("FORMAT"))["id"]
    whole = look(version["run_id"])
    common = {
        "espalier.job": "digits/swept",
        "espalier.version": "2",
        "espalier.parent": "1",
        "espalier.parent_run_id": first["run_id"],
        "espalier.digest": version["digest"],
        "espalier.commit": version["commit"],
        "espalier.backend": "local",
        "espalier.actor": "Tess Ter <tess@example.invalid>",
        "espalier.ledger": ledger,
        "mlflow.source.git.commit": version["commit"],
        "mlflow.source.git.repoURL": "https://git.example.org/team/digits",
        "mlflow.source.name": "python steps.py",
        "mlflow.user": "Tess Ter <tess@example.invalid>",
    }
    ignored = ("mlflow.note.content", "mlflow.runName")
    assert {name: value for name, value in whole.tags.items() if name not in ignored} == {
        **common,
        "espalier.key": key(ledger, "digits/swept", 2),
    }
    assert (whole.name, whole.status, whole.parent) == ("digits/swept@v2", "FINISHED", None)
    assert experiment(shown, look, version["run_id"]) == f"{project(shown)}/digits/swept"
    for trial in version["trials"]:
        child = look(trial["run_id"])
        assert {name: value for name, value in child.tags.items() if name not in ignored} == {
            **common,
            "espalier.key": key(ledger, "digits/swept", 2, trial["id"]),
            "espalier.trial": trial["id"],
            "espalier.attempt": "1",
            "espalier.handle": key(ledger, "digits/swept", 2, trial["id"], 1),
            "mlflow.parentRunId": version["run_id"],
        }
        assert (child.name, child.status) == (f"v2 lr={trial['params']['lr']}", "FINISHED")
        assert child.params == {"optim.name": "adam", "lr": str(trial["params"]["lr"])}
    assert not [name for name in look(first["run_id"]).tags if name.startswith("espalier.parent")]


def test_a_versions_run_has_the_params_that_changed(shown: Desk, look: HttpLook) -> None:
    assert look(shown.json("show", "digits/swept@v2")["run_id"]).params == {"optim.name": "adam", "lr": "[2, 4]"}
    assert look(shown.json("show", "digits/swept@v1")["run_id"]).params == {}


def test_metrics_have_their_steps_and_times_and_names_that_mlflow_refuses_are_mapped(
    shown: Desk, look: HttpLook
) -> None:
    trial = next(t for t in shown.json("show", "digits/swept@v1")["trials"] if t["params"]["lr"] == 2)
    run = look(trial["run_id"])
    loss = [(step, value) for name, step, value in run.points if name == "loss"]
    assert loss[0] == (5, 2.5)
    assert loss[-1] == (9, 0.5)
    history = look.ask("metrics/get-history", run_id=trial["run_id"], metric_key="loss")["metrics"]
    assert min(int(point["timestamp"]) for point in history) == 1700000000500
    assert [(step, value) for name, step, value in run.points if name == "acc_x40_5"] == [(1, 2.0)]
    assert trial["metrics"] == {"loss": 0.5, "acc@5": 2}


def test_metrics_json_becomes_metrics_of_a_version_that_is_one_run(shown: Desk, look: HttpLook) -> None:
    version = shown.json("show", "single@v1")
    run = look(version["run_id"])
    assert [trial["run_id"] for trial in version["trials"]] == [version["run_id"]]
    assert (run.name, run.status, run.metrics) == ("single@v1", "FINISHED", {"score": 3, "epochs": 2})
    assert run.params == {"lr": "4"}
    assert version["trials"][0]["metrics"] == {"score": 3, "epochs": 2}


def test_artifacts_are_spec_diff_log_and_the_output_within_its_limits(shown: Desk, look: HttpLook) -> None:
    version = shown.json("show", "digits/swept@v2")
    whole = look(version["run_id"]).artifacts
    assert {"espalier/spec.yaml", "espalier/diff.md"} <= set(whole)
    assert "params.optim.name" in whole["espalier/diff.md"]
    assert "sweep.params.lr" in whole["espalier/diff.md"]
    child = look(version["trials"][0]["run_id"]).artifacts
    assert any(text == "trained\n" for text in child.values())
    names = {name.rpartition("/")[2] for name in child}
    assert "weights.txt" in names
    assert "scratch.tmp" not in names
    assert "big.bin" not in names
    assert any("big.bin" in text for text in child.values()), "what is left out is named"


def test_the_note_begins_with_why_and_compares_with_the_parent(shown: Desk, look: HttpLook) -> None:
    note = look(shown.json("show", "digits/swept@v2")["run_id"]).tags["mlflow.note.content"]
    first = note.splitlines()[0]
    assert "Try Adam: it ought to be better" in first
    assert "Tess Ter" in note.split("\n\n")[0] + note.split("\n\n")[1]
    assert "hunter22" not in note
    assert "params.optim.name" in note
    assert "0.25" in note
    assert "0.5" in note


def test_a_reused_trial_is_a_run_with_metrics_and_origin_and_no_copied_artifact(shown: Desk, look: HttpLook) -> None:
    version = shown.json("show", "single@v2")
    [trial] = version["trials"]
    assert trial["state"] == "reused"
    run = look(trial["run_id"])
    assert run.status == "FINISHED"
    assert run.tags["espalier.reused_from"] == trial["reused_from"]
    assert run.metrics == {"score": 3, "epochs": 2}
    assert not [name for name in run.artifacts if not name.startswith("espalier/")]


def test_states_are_mlflows_statuses_and_metrics_come_while_it_runs(new_desk: NewDesk, look: HttpLook) -> None:
    held = "command: python steps.py\ncode: [steps.py]\nparams: {wait: true}\nresources: {cpus: 0.1}\n"
    desk = new_desk(
        {
            "held": f"{held}sweep: {{parallel: 1, params: {{lr: 'choice(1,2)'}}}}\n",
            "bad": "command: sh bad.sh\ncode: [bad.sh]\n",
        },
        {"steps.py": STEPS, "bad.sh": "exit 3\n"},
    )
    desk.run("apply", "--no-wait")

    def running() -> Any:
        run = look(desk.json("show", "held")["trials"][0]["run_id"])
        return run if run.status == "RUNNING" and run.metrics.get("loss") == 1 else None

    wait_until(running, within_s=90, every_s=0.2)
    version = desk.json("show", "held")
    assert look(version["run_id"]).status == "RUNNING"
    assert look(version["trials"][1]["run_id"]).status == "SCHEDULED"
    desk.wait_for("bad", "failed")
    wait_until(lambda: look(desk.json("show", "bad")["run_id"]).status == "FAILED", within_s=60, every_s=0.2)
    desk.run("cancel", f"held@v1/{version['trials'][1]['id'][:8]}")
    Path(desk.environ["GATES"], "open").touch()
    desk.wait_for("held", "cancelled")

    def ended() -> bool:
        return look(version["run_id"]).status == "KILLED"

    wait_until(ended, within_s=60, every_s=0.2)
    assert [look(trial["run_id"]).status for trial in version["trials"]] == ["FINISHED", "KILLED"]


def test_results_that_mlflow_could_not_take_are_kept_and_sent_by_the_next_command(
    new_desk: NewDesk, look: HttpLook, relay: Relay
) -> None:
    desk = new_desk(
        {"a": "command: python steps.py\ncode: [steps.py]\nparams: {lr: 2, wait: true}\n"}, {"steps.py": STEPS}
    )
    environ = {"MLFLOW_TRACKING_URI": relay.url}
    desk.run("apply", "--no-wait", env=environ)
    relay.faults["/"] = ["503"] * 100_000
    with desk.begun("follow", env=environ) as following:
        Path(desk.environ["GATES"], "open").touch()
    done = finish(following)
    version = desk.json("show", "a")
    assert version["state"] == "succeeded", "MLflow holds nobody up"
    assert "MLflow" in done.stderr
    head = next(row for row in desk.rows(heads_file(desk, "a")) if row["job"] == "a")
    assert head["tracked"] is False
    relay.faults.clear()
    desk.run("follow", env=environ)
    run = look(version["run_id"])
    assert run.status == "FINISHED"
    assert run.metrics["loss"] == 0.5
    assert any(text == "trained\n" for text in run.artifacts.values())
    head = next(row for row in desk.rows(heads_file(desk, "a")) if row["job"] == "a")
    assert head["tracked"] is True
    assert desk.json("show", "a")["trials"][0]["metrics"]["loss"] == 0.5


def heads_file(desk: Desk, job: str) -> str:
    return f"heads/{hashlib.sha256(job.encode()).hexdigest()[:2]}.jsonl"


def test_without_a_server_it_is_a_database_beside_the_repository_with_its_artifacts(
    new_desk: NewDesk, migrated_database: Path
) -> None:
    desk = new_desk(sqlite=True)
    desk.repo.remove("conf/job/group/sweep.yaml")
    desk.repo.commit("One job is enough")
    (desk.path / "mlflow.db").write_bytes(migrated_database.read_bytes())
    desk.run("apply", cwd=desk.path / "conf")
    version = desk.json("show", "single")
    run = SqliteLook(desk.path / "mlflow.db")(version["run_id"])
    assert (run.name, run.status, run.metrics) == ("single@v1", "FINISHED", {"score": 12})
    assert {"espalier/spec.yaml"} <= set(run.artifacts)
    with closing(sqlite3.connect(desk.path / "mlflow.db")) as base:
        [[uri]] = base.execute("SELECT artifact_uri FROM runs").fetchall()
    assert Path(uri.removeprefix("file://")).is_relative_to(desk.path / "mlartifacts")
    [head] = desk.rows(heads_file(desk, "single"))
    assert head["tracking_uri"].startswith("sqlite:")


def test_an_apply_that_lost_mlflow_after_its_intent_is_resumed_by_the_next(
    new_desk: NewDesk, look: HttpLook, relay: Relay
) -> None:
    desk = new_desk({"a": "command: sh t.sh\ncode: [t.sh]\n"}, {"t.sh": "echo once >> $GATES/ran\n"})
    environ: dict[str, str | None] = {"MLFLOW_TRACKING_URI": relay.url}
    relay.faults["runs/create"] = ["503"] * 100_000
    done = desk.run("apply", code=1, env=environ)
    assert relay.url in done.stderr
    assert "hint:" in done.stderr
    plan = desk.json("plan", env=environ)
    [action] = plan["actions"]
    assert (action["action"], action["version"], action["trials"]["run"]) == ("resume", 1, 1)
    assert "not sent" in action["reason"]
    assert plan["summary"]["resume"] == 1
    relay.faults.clear()
    [version] = desk.json("apply", env=environ)["versions"]
    assert (version["version"], version["state"]) == (1, "succeeded")
    assert look(version["run_id"]).status == "FINISHED"
    assert Path(desk.environ["GATES"], "ran").read_text() == "once\n"


def test_what_a_program_says_to_mlflow_itself_is_no_evidence_but_its_metrics_are_read_back(
    new_desk: NewDesk, look: HttpLook
) -> None:
    program = """\
        import json, os, sys, urllib.request
        def send(endpoint, **values):
            request = urllib.request.Request(
                f"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/{endpoint}",
                json.dumps(values).encode(), {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=30).read()
        run = os.environ["MLFLOW_RUN_ID"]
        send("runs/log-metric", run_id=run, key="own", value=1.5, step=3, timestamp=1700000000000)
        send("runs/update", run_id=run, status="FINISHED", run_name="my name")
        sys.exit(5)
        """
    desk = new_desk({"a": "command: python own.py\ncode: [own.py]\n"}, {"own.py": program})
    desk.run("apply", code=3)
    shown = desk.json("show", "a")
    [trial] = shown["trials"]
    assert (trial["state"], trial["exit_code"], trial["metrics"]) == ("failed", 5, {"own": 1.5})
    run = look(shown["run_id"])
    assert (run.name, run.status) == ("a@v1", "FAILED")
    assert run.points == [("own", 3, 1.5)]
