"""Each command as a person or a script calls it: its JSON, its exit code, what it says."""

import json
import os
import pty
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, program
from tests.repository import Repository
from tests.wait import wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]

VERSION_KEYS = {
    *("job", "line", "version", "parent", "base", "digest", "commit", "subject", "state", "retired", "official"),
    *("reason", "author", "actor", "created_at", "ended_at", "backend", "run_id", "trials", "best"),
}
TRIAL_KEYS = {
    *("id", "params", "state", "attempt", "exit_code", "message", "handle", "run_id", "started_at", "ended_at"),
    *("metrics", "reused_from"),
}
SLOW = """\
    import os, pathlib, sys, time
    print("begun", flush=True)
    while not pathlib.Path(sys.argv[1]).exists():
        time.sleep(0.02)
    print("seen", flush=True)
    """


def answer(done: subprocess.CompletedProcess[str], code: int = 0) -> Any:
    """The JSON that a command printed; its exit code must be ``code``."""
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def slow_job(repo: Repository, gate: Path, name: str = "slow") -> None:
    """Declare a job that ends once ``gate`` exists."""
    repo.write("slow.py", SLOW)
    repo.write(f"conf/job/{name}.yaml", f"command: [python, slow.py, {gate}]\ncode: [slow.py]\ngrace_s: 1\n")
    repo.commit("Declare a slow job")


def failing_job(repo: Repository) -> None:
    repo.write("fail.py", "import sys\nsys.exit('it broke')\n")
    repo.write("conf/job/fails.yaml", "command: python fail.py\ncode: [fail.py]\n")
    repo.commit("Declare a failing job")


def test_the_whole_way_from_a_plan_to_a_second_version(repo: Repository, espalier: Run, tmp_path: Path) -> None:
    plan = answer(espalier("plan", "--exit-code", "--format", "json"), 2)
    assert [(a["action"], a["job"], a["version"]) for a in plan["actions"]] == [
        ("create", "group/sweep", 1),
        ("create", "single", 1),
    ]
    applied = answer(espalier("apply", "--format", "json"))
    assert [(v["job"], v["state"], v["trials"]["succeeded"]) for v in applied["versions"]] == [
        ("group/sweep", "succeeded", 3),
        ("single", "succeeded", 1),
    ]
    assert answer(espalier("plan", "--exit-code", "--format", "json"))["summary"]["keep"] == 2
    assert espalier("fsck").stdout == "the ledger is sound\n"

    repo.replace("conf/job/group/sweep.yaml", "choice(1,2,3)", "choice(1,2,3,4)")
    commit = repo.commit("Widen the sweep")
    saved = tmp_path / "plan.json"
    text = espalier("plan", "--exit-code", "--out", str(saved))
    assert text.returncode == 2
    assert "~ group/sweep  v1 → v2  sweep.params.width changed" in text.stdout
    assert "sweep.params.width: [1, 2, 3] → [1, 2, 3, 4]  (conf/job/group/sweep.yaml:9)" in text.stdout
    assert "4 trials: 1 to run, 3 reused" in text.stdout
    second = answer(espalier("apply", str(saved), "--format", "json"))["versions"]
    assert [(v["version"], v["parent"], v["commit"], v["trials"]["reused"]) for v in second] == [(2, 1, commit, 3)]
    assert set(second[0]) >= VERSION_KEYS

    stale = espalier("apply", str(saved), "--format", "json")
    assert "stale" in answer(stale, 1)["error"]["message"]
    saved.write_text(saved.read_text("utf-8").replace(commit, "f" * 40), "utf-8")
    assert "not known here" in answer(espalier("apply", str(saved), "--format", "json"), 1)["error"]["message"]
    earlier = espalier("apply", "--rev", "HEAD~1")
    assert (earlier.returncode, earlier.stdout) == (0, "")
    assert "behind: " in earlier.stderr
    assert answer(espalier("plan", "--rev", "HEAD~1", "--format", "json"))["behind"] is True

    status = answer(espalier("status", "--format", "json"))
    assert [(v["job"], v["version"]) for v in status["jobs"]] == [("group/sweep", 2), ("single", 1)]
    history = answer(espalier("history", "group/sweep", "--format", "json"))
    assert [v["version"] for v in history["versions"]] == [2, 1]
    show = answer(espalier("show", "group/sweep", "--format", "json"))
    assert set(show) >= VERSION_KEYS | {"format", "spec", "trials"}
    assert all(set(trial) >= TRIAL_KEYS for trial in show["trials"])
    assert show["spec"]["sweep"]["params"] == {"width": [1, 2, 3, 4]}
    assert show["spec"]["policy"]["recoveries"] == 3
    assert show["best"]["value"] == 12.0
    page = espalier("show", "group/sweep@v2").stdout
    assert "Widen the sweep" in page
    assert "conf/job/group/sweep.yaml:9" in page
    diff = answer(espalier("diff", "group/sweep", "--format", "json"))
    assert (diff["a"], diff["b"]) == ("group/sweep@v2", "group/sweep@v1")
    assert diff["changes"] == [{"path": "sweep.params.width", "old": [1, 2, 3], "new": [1, 2, 3, 4]}]
    assert (
        answer(espalier("diff", "group/sweep@v1", "group/sweep@v2", "--format", "json"))["changes"] == diff["changes"]
    )

    several = espalier("logs", "group/sweep")
    assert several.returncode == 1
    assert "has 4 trials" in several.stderr
    taken = next(trial for trial in show["trials"] if trial["state"] == "reused")
    log = espalier("logs", f"group/sweep@v2/{taken['id'][:6]}")
    assert log.stdout.startswith("trained --")
    assert "is reused from group/sweep@v1/" in log.stderr


def test_a_spec_names_the_place_of_each_leaf(repo: Repository, espalier: Run) -> None:
    tree = answer(espalier("spec", "single", "--format", "json"))
    assert tree["spec"]["params"] == {"optim.lr": 0.1, "optim.momentum": 0.0, "width": 4}
    assert tree["origins"]["params.optim.lr"] == "conf/optim/sgd.yaml:1"
    assert "optim.lr: 0.1" in espalier("spec", "single").stdout
    unknown = answer(espalier("spec", "singel", "--format", "json"), 1)
    assert unknown["error"]["hint"] == "single?"


def test_what_does_not_compose_is_reported_and_the_rest_is_carried_out(repo: Repository, espalier: Run) -> None:
    repo.write("conf/job/bad.yaml", "command: x\ncode: []\nparam: {}\n")
    repo.commit("Break a job")
    plan = answer(espalier("plan", "--exit-code", "--format", "json"), 1)
    assert [(e["job"], e["file"], e["line"]) for e in plan["errors"]] == [("bad", "conf/job/bad.yaml", 3)]
    assert len(plan["actions"]) == 2
    refused = answer(espalier("apply", "--format", "json"), 1)
    assert "--skip-errors" in refused["error"]["hint"]
    assert answer(espalier("status", "--format", "json"))["jobs"] == []
    rest = answer(espalier("apply", "--skip-errors", "--job", "single", "--job", "bad", "--format", "json"), 1)
    assert [v["state"] for v in rest["versions"]] == ["succeeded"]


def test_a_trial_that_fails_is_exit_code_3_once(repo: Repository, espalier: Run) -> None:
    failing_job(repo)
    first = answer(espalier("apply", "--job", "fails", "--format", "json"), 3)
    assert first["versions"][0]["trials"]["failed"] == 1
    again = espalier("apply", "--job", "fails")
    assert again.returncode == 0, "what was final before was not waited for"
    plan = espalier("plan", "--job", "fails")
    assert "espalier retry fails@v1 to try again" in plan.stdout
    assert plan.stderr.endswith("or espalier retry fails@v1\n")
    retried = answer(espalier("retry", "fails", "--format", "json"), 3)
    assert retried["versions"][0]["version"] == 1
    assert answer(espalier("show", "fails", "--format", "json"))["trials"][0]["attempt"] == 2
    assert espalier("logs", "fails", "--tail", "1").stdout == "it broke\n"


def test_what_was_refused_says_how_to_mend_it_and_sends_nobody_to_its_logs(repo: Repository, espalier: Run) -> None:
    repo.write("conf/job/far.yaml", "command: python train.py\ncode: [train.py]\ndata: {x: {uri: 'file:far.csv'}}\n")
    repo.commit("Declare data that is not here")
    done = espalier("apply", "--job", "far")
    assert done.returncode == 3
    assert "far.csv is not on this machine (put it there, or correct the uri in the job)" in done.stdout
    assert "next: espalier show far@v1/" in done.stderr


def test_an_objective_that_no_trial_logged_is_named_beside_what_was_logged(repo: Repository, espalier: Run) -> None:
    job = (repo.path / "conf/job/group/sweep.yaml").read_text()
    repo.write("conf/job/group/sweep.yaml", job.replace("metric: score", "metric: scores"))
    repo.commit("Misspell the objective")
    done = espalier("apply", "--job", "group/sweep")
    assert done.returncode == 0
    assert "note: no trial of group/sweep@v1 logged scores; logged: score\n" in done.stderr


def test_a_difference_in_code_is_shown_by_git(repo: Repository, espalier: Run) -> None:
    espalier("apply", "--job", "single")
    before = repo.git("rev-parse", "HEAD")
    repo.write("train.py", "print('changed')\n")
    after = repo.commit("Change the program")
    espalier("apply", "--job", "single")
    said = espalier("diff", "single").stderr
    assert said == f"next: git diff {before[:8]} {after[:8]} -- train.py shows what changed in the code\n"


def test_ctrl_c_stops_the_watching_and_not_the_work(repo: Repository, espalier: Run, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    slow_job(repo, gate)
    with started("apply", "--job", "slow", cwd=repo.path) as process:
        wait_until(lambda: running(espalier, "slow"))
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 130, err
    assert "what runs goes on" in err
    assert running(espalier, "slow")
    gate.touch()
    done = answer(espalier("follow", "slow", "--format", "json"))
    assert [v["state"] for v in done["versions"]] in (["succeeded"], [])  # the follower beside it may have been faster
    assert answer(espalier("status", "--format", "json"))["jobs"][0]["state"] == "succeeded"


def test_without_waiting_it_is_submitted_and_followed_later(repo: Repository, espalier: Run, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    slow_job(repo, gate)
    begun = answer(espalier("apply", "--job", "slow", "--no-wait", "--format", "json"))
    assert [v["state"] for v in begun["versions"]] == ["running"]
    once = espalier("follow", "--once")
    assert once.returncode == 0
    with started("logs", "slow", "-f", cwd=repo.path) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        gate.touch()
        assert process.communicate(timeout=60)[0] == "seen\n"
    assert process.returncode == 0
    assert espalier("follow").returncode == 0


def test_what_is_cancelled_ends_and_is_not_called_succeeded(repo: Repository, espalier: Run, tmp_path: Path) -> None:
    slow_job(repo, tmp_path / "never")
    answer(espalier("apply", "--job", "slow", "--no-wait", "--format", "json"))
    wait_until(lambda: running(espalier, "slow"))
    assert espalier("cancel", "slow").returncode == 0
    wait_until(lambda: answer(espalier("status", "slow", "--format", "json"))["jobs"][0]["state"] == "cancelled")
    again = espalier("cancel", "slow")
    assert again.returncode == 1
    assert "nothing of slow@v1 is running" in again.stderr


def test_a_name_that_is_not_there_names_the_nearest(repo: Repository, espalier: Run) -> None:
    answer(espalier("apply", "--job", "single", "--format", "json"))
    for command in ("show", "history", "status", "logs", "cancel", "retry", "follow", "diff"):
        done = espalier(command, "singel")
        assert (done.returncode, "single?" in done.stderr) == (1, True), command
    assert "has no v7" in espalier("show", "single@v7").stderr
    assert "has no parent" in espalier("diff", "single").stderr


def test_in_ci_a_ledger_that_would_vanish_is_refused(repo: Repository, espalier: Run) -> None:
    refused = espalier("apply", env={"CI": "true"})
    assert refused.returncode == 1
    assert "--allow-local-ledger" in refused.stderr
    assert answer(espalier("status", "--format", "json"))["jobs"] == []


def test_a_ledger_at_a_remote_is_not_there_yet(repo: Repository, espalier: Run) -> None:
    repo.write("conf/config.yaml", (repo.path / "conf/config.yaml").read_text("utf-8") + "ledger: {remote: origin}\n")
    repo.commit("Share the ledger")
    refused = espalier("apply")
    assert refused.returncode == 1
    assert "is not there yet" in refused.stderr


def test_the_working_tree_is_left_aside_and_named(repo: Repository, espalier: Run) -> None:
    repo.write("train.py", "print('not committed')\n")
    done = espalier("plan")
    assert "1 path not committed (train.py) left aside" in done.stderr
    assert done.returncode == 0


def test_outside_a_repository_every_command_says_what_is_missing(espalier: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words in (["plan"], ["status"], ["fsck"], ["apply"], ["show", "a"], ["ui"]):
        done = espalier(*words, cwd=tmp_path / "empty")
        assert (done.returncode, done.stdout) == (1, ""), words
        assert done.stderr.startswith("error: "), words
        assert "bug" not in done.stderr, words


def test_doctor_says_what_is_well_and_how_to_mend_the_rest(repo: Repository, espalier: Run) -> None:
    tree = answer(espalier("doctor", "--format", "json"))
    verdicts = {check["name"]: check["verdict"] for check in tree["checks"]}
    assert tree["ok"] is True
    assert verdicts == {
        **dict.fromkeys(
            [
                *("espalier", "git", "repository", "identity", "ledger", "state", "machine", "interpreter", "config"),
                *("mlflow", "backend local"),
            ],
            "ok",
        ),
        "threads": "warn",
        "disk": verdicts["disk"],
    }
    broken = answer(espalier("doctor", "--format", "json", env={"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}), 1)
    mend = next(check for check in broken["checks"] if check["name"] == "mlflow")
    assert (mend["verdict"], bool(mend["mend"])) == ("fail", True)


def test_doctor_warns_of_a_venv_that_trials_do_not_get_and_of_another_mlflow(repo: Repository, espalier: Run) -> None:
    venv = repo.path / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "mlflow-2.1.0.dist-info").mkdir()
    (site / "mlflow-2.1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mlflow\nVersion: 2.1.0\n")

    def warnings(active: Path) -> dict[str, str]:
        tree = answer(espalier("doctor", "--format", "json", env={"VIRTUAL_ENV": str(active)}))
        return {check["name"]: check["message"] for check in tree["checks"] if check["verdict"] == "warn"}

    assert "mlflow 2.1.0" in warnings(venv)["mlflow"]
    assert "interpreter" not in warnings(venv)
    assert "not the .venv of the repository" in warnings(Path(sys.prefix))["interpreter"]


def test_the_schema_names_the_keys_of_a_job(espalier: Run) -> None:
    assert {"command", "code", "sweep", "policy"} <= set(answer(espalier("schema"))["properties"])


def test_what_only_looks_loads_no_heavy_library(repo: Repository, espalier: Run) -> None:
    answer(espalier("apply", "--job", "single", "--format", "json"))
    probe = "import sys; from espalier.cli.main import main; code = main(sys.argv[1:]); "
    probe += "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    heavy = {"hydra", "omegaconf", "httpx", "mlflow", "git", "importlib.metadata", "asyncio"}
    for words in (["status"], ["history", "single"], ["plan", "--help"], ["apply", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", probe, *words],
            cwd=repo.path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
        assert not set(done.stderr.split()) & heavy, words
        assert words != ["status"] or "yaml" not in done.stderr.split()


def test_on_a_terminal_progress_is_redrawn_and_the_result_stands(repo: Repository) -> None:
    shown, code = on_a_terminal("apply", cwd=repo.path)
    assert code == 0
    assert "\033[?7l" in shown, "the table is drawn"
    assert "\033[2A\r\033[J" in shown or "\033[3A\r\033[J" in shown, "and taken away"
    assert "group/sweep@v1" in shown.rpartition("\033[J")[2]
    assert "next:" in shown.rpartition("\033[J")[2]


def test_the_ui_answers_at_the_link_and_ends_with_its_command(repo: Repository) -> None:
    with started("ui", "--port", "0", cwd=repo.path) as process:
        assert process.stdout
        link = process.stdout.readline().strip()
        wait_until(lambda: answers(link), within_s=120)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert not answers(link)


def answers(link: str) -> bool:
    try:
        with urllib.request.urlopen(link, timeout=5) as page:
            return bool(page.status == 200)
    except OSError:
        return False


def running(espalier: Run, job: str) -> bool:
    jobs = json.loads(espalier("status", "--format", "json").stdout)["jobs"]
    return any(version["job"] == job and version["trials"]["running"] for version in jobs)


def started(*words: str, cwd: Path) -> "subprocess.Popen[str]":
    """Start a command and let it run."""
    command = program()
    environment = {**os.environ, **({"PYTHONPATH": str(ROOT / "src")} if len(command) > 1 else {})}
    return subprocess.Popen(
        [*command, *words],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def on_a_terminal(*words: str, cwd: Path) -> tuple[str, int]:
    """What a command writes to a terminal, and its exit code."""
    ours, theirs = pty.openpty()
    command = program()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    if len(command) > 1:
        environment["PYTHONPATH"] = str(ROOT / "src")
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with subprocess.Popen([*command, *words], cwd=cwd, env=environment, start_new_session=True, **streams) as process:
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 65536):
                parts.append(part)
        except OSError:  # Linux says so when the other end is closed
            pass
        os.close(ours)
    return b"".join(parts).decode(), process.returncode
