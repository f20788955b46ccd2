"""`espalier plan` from outside: the decision table, the JSON, saved plans, and repositories of every shape."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import GIT_CONFIG
from tests.e2e.conftest import NewDesk
from tests.e2e.desk import Desk
from tests.repository import Repository

QUICK = "command: sh t.sh\ncode: [t.sh]\n"
FAILING = "command: sh bad.sh\ncode: [bad.sh]\n"
FILES = {"t.sh": "echo done\n", "bad.sh": "echo it went wrong; exit 7\n"}
KINDS = ["create", "revise", "retry", "resume", "retire", "keep"]


@pytest.fixture(scope="module")
def applied(new_desk: NewDesk) -> Desk:
    """Seven jobs at their first version: one failed, one has attempts left in later commits."""
    jobs = {f"j{number}": f"{QUICK}params: {{a: {number}, b: 0.001}}\n" for number in range(5)}
    jobs |= {"deep/fails": FAILING, "swept": f"{QUICK}sweep: {{params: {{a: 'choice(1,2)'}}}}\n"}
    desk = new_desk(jobs, FILES)
    done = desk.run("apply", code=3)
    assert "espalier logs deep/fails@v1/" in done.stderr
    return desk


def at_commit(desk: Desk, edit: Any) -> str:
    """Commit ``edit`` on a branch of its own, and return the commit; HEAD stays where it was."""
    desk.repo.git("checkout", "-q", "--detach", "main")
    edit(desk.repo)
    commit = desk.repo.commit("Try it")
    desk.repo.git("checkout", "-q", "main")
    return commit


def test_a_first_plan_creates_every_job_and_writes_nothing(new_desk: NewDesk) -> None:
    desk = new_desk()
    before = desk.repo.git("for-each-ref")
    plan = desk.json("plan", "--exit-code", code=2)
    assert list(plan) == ["format", "commit", "ledger", "ledger_id", "actions", "summary", "errors"]
    assert (plan["format"], plan["ledger"], plan["ledger_id"], plan["errors"]) == (1, None, None, [])
    assert plan["commit"] == desk.repo.git("rev-parse", "HEAD")
    assert plan["summary"] == {**dict.fromkeys(KINDS, 0), "create": 2}
    assert [action["job"] for action in plan["actions"]] == ["group/sweep", "single"]
    sweep = plan["actions"][0]
    assert {**sweep, "digest": len(sweep["digest"])} == {
        "action": "create",
        "job": "group/sweep",
        "line": None,
        "version": 1,
        "parent": None,
        "digest": 64,
        "reason": "new job",
        "changes": [],
        "trials": {"total": 3, "reused": 0, "waiting": 0, "run": 3, "cancel": 0},
    }
    assert desk.repo.git("for-each-ref") == before
    assert desk.repo.git("status", "--porcelain", "--ignored") == ""


def test_nothing_to_do_is_keep_and_exit_code_0(applied: Desk) -> None:
    plan = applied.json("plan", "--exit-code", code=0)
    assert plan["ledger"] == applied.repo.git("rev-parse", "refs/espalier/ledger")
    assert plan["ledger_id"] == json.loads(applied.ledger("FORMAT"))["id"]
    assert plan["summary"] == {**dict.fromkeys(KINDS, 0), "keep": 7}
    reasons = {action["job"]: action["reason"] for action in plan["actions"]}
    assert reasons["j0"] == "up to date"
    assert "exit code 7" in reasons["deep/fails"]
    assert "espalier retry" in reasons["deep/fails"]
    kept = next(action for action in plan["actions"] if action["job"] == "swept")
    assert (kept["version"], kept["parent"], kept["changes"]) == (1, None, [])
    assert kept["trials"] == {"total": 2, "reused": 0, "waiting": 0, "run": 0, "cancel": 0}


def test_a_changed_leaf_is_revise_with_old_new_and_place(applied: Desk) -> None:
    commit = at_commit(applied, lambda repo: repo.replace("conf/job/j1.yaml", "a: 1,", "a: 9,"))
    action = applied.action("j1", "--rev", commit)
    assert (action["action"], action["version"], action["parent"]) == ("revise", 2, 1)
    assert action["reason"] == "params.a changed"
    [change] = action["changes"]
    assert (change["path"], change["old"], change["new"]) == ("params.a", 1, 9)
    assert change["origin"] == "conf/job/j1.yaml:3"
    text = applied.run("plan", "--rev", commit).stdout
    assert "~ j1  v1 → v2  params.a changed" in text
    assert "params.a: 1 → 9  (conf/job/j1.yaml:3)" in text
    assert "1 new version, 6 unchanged; 1 trial to run" in text


def test_changed_code_names_the_file_with_git_ids(applied: Desk) -> None:
    old = applied.repo.git("rev-parse", "main:t.sh")
    commit = at_commit(applied, lambda repo: repo.write("t.sh", "echo other\n"))
    [change] = applied.action("j0", "--rev", commit)["changes"]
    assert (change["path"], change["old"]) == ("code.t.sh", old)
    assert change["new"] == applied.repo.git("rev-parse", f"{commit}:t.sh")


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a comment, key order and quoting", "# why\nparams: {b: 0.001, a: 0}\ncode: ['t.sh']\ncommand: 'sh t.sh'\n"),
        ("another way to write a number", f"{QUICK}params: {{a: 0, b: 1e-3}}\n"),
        ("a default written out", f"{QUICK}params: {{a: 0, b: 0.001}}\ngrace_s: 30\nresources: {{cpus: 1}}\n"),
        ("what is no identity", f"{QUICK}params: {{a: 0, b: 0.001}}\ndescription: new\npolicy: {{max_failures: 9}}\n"),
        ("another spelling of the code paths", "command: [sh, t.sh]\ncode: ['t.*']\nparams: {a: 0, b: 0.001}\n"),
    ],
)
def test_an_edit_that_cannot_change_what_runs_is_keep(applied: Desk, what: str, text: str) -> None:
    commit = at_commit(applied, lambda repo: repo.write("conf/job/j0.yaml", text))
    assert applied.action("j0", "--rev", commit)["action"] == "keep", what


def test_failed_with_attempts_left_is_retry(applied: Desk) -> None:
    commit = at_commit(
        applied, lambda repo: repo.write("conf/job/deep/fails.yaml", f"{FAILING}policy: {{retries: 1}}\n")
    )
    action = applied.action("deep/fails", "--rev", commit)
    assert (action["action"], action["version"], action["parent"]) == ("retry", 1, None)
    assert action["trials"] == {"total": 1, "reused": 0, "waiting": 0, "run": 1, "cancel": 0}
    assert "exit code 7" in action["reason"]


def test_a_removed_job_is_retire(applied: Desk) -> None:
    commit = at_commit(applied, lambda repo: repo.remove("conf/job/j4.yaml"))
    action = applied.action("j4", "--rev", commit)
    assert (action["action"], action["version"], action["changes"]) == ("retire", 1, [])
    assert "removed" in action["reason"]


def test_a_job_that_does_not_compose_is_an_error_with_its_place_and_never_retired(applied: Desk) -> None:
    def spoil(repo: Repository) -> None:
        repo.write("conf/job/j3.yaml", f"{QUICK}parms: {{a: 1}}\n")
        repo.write("conf/job/j2.yaml", f"{QUICK}resources: {{cpu: 2}}\n")
        repo.replace("conf/job/j1.yaml", "a: 1,", "a: 9,")

    commit = at_commit(applied, spoil)
    plan = applied.json("plan", "--rev", commit, "--exit-code", code=1)
    wrong = {error["job"]: error for error in plan["errors"]}
    assert set(wrong) == {"j2", "j3"}
    assert set(wrong["j3"]) == {"job", "message", "hint", "file", "line"}
    assert (wrong["j3"]["file"], wrong["j3"]["line"]) == ("conf/job/j3.yaml", 3)
    assert "parms" in wrong["j3"]["message"]
    assert "params" in wrong["j3"]["hint"]
    assert {action["job"] for action in plan["actions"]} == {"j0", "j1", "j4", "deep/fails", "swept"}
    text = applied.run("plan", "--rev", commit, code=1)
    assert "conf/job/j3.yaml:3" in text.stdout
    assert "2 errors" in text.stdout


def test_a_glob_crosses_slashes_and_one_that_matches_nothing_is_an_error(applied: Desk) -> None:
    assert [action["job"] for action in applied.json("plan", "--job", "*fails")["actions"]] == ["deep/fails"]
    both = applied.json("plan", "--job", "j[01]", "--job", "swept")["actions"]
    assert [action["job"] for action in both] == ["j0", "j1", "swept"]
    assert "--job nope*" in applied.refused("plan", "--job", "nope*")
    assert "--job nope*" in applied.refused("apply", "--job", "j0", "--job", "nope*")


def test_the_markdown_is_a_comment_with_the_changes(applied: Desk) -> None:
    commit = at_commit(applied, lambda repo: repo.replace("conf/job/j1.yaml", "a: 1,", "a: 9,"))
    page = applied.run("plan", "--rev", commit, "--format", "markdown").stdout
    assert page.startswith("<!-- espalier:plan -->")
    assert "params.a" in page


def test_a_plan_says_what_of_the_working_tree_it_leaves_aside(new_desk: NewDesk) -> None:
    desk = new_desk()
    desk.repo.write("train.py", "print('not committed')\n")
    desk.repo.write("conf/job/new.yaml", QUICK)
    done = desk.run("plan")
    assert "2 paths not committed" in done.stderr
    assert "train.py" in done.stderr
    assert "new" not in [action["job"] for action in desk.json("plan")["actions"]]
    assert "next: espalier apply" in done.stderr


def test_planning_works_from_a_subfolder_a_linked_worktree_and_with_C(new_desk: NewDesk, tmp_path: Path) -> None:
    desk = new_desk()
    wanted = desk.json("plan")
    assert desk.json("plan", cwd=desk.path / "conf/job") == wanted
    assert desk.json("-C", str(desk.path / "conf"), "plan", cwd=tmp_path) == wanted
    desk.repo.git("worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    assert desk.json("plan", cwd=tmp_path / "linked") == wanted
    assert desk.json("spec", "single", cwd=tmp_path / "linked") == desk.json("spec", "single")


def test_a_folder_without_a_repository_a_commit_or_a_config_is_an_error_that_says_so(
    applied: Desk, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for command in ("plan", "apply", "status", "doctor"):
        done = applied.run(command, cwd=empty, code=1)
        assert "repository" in done.stdout + done.stderr, command
    subprocess.run(["git", "init", "-q", str(empty)], check=True)
    assert "commit" in applied.refused("plan", cwd=empty)
    (empty / "x").write_text("x")
    Repository(empty).commit()
    assert "conf/config.yaml" in applied.refused("plan", cwd=empty)
    assert "nothere" in applied.refused("plan", "--rev", "nothere")
    assert applied.json("status", cwd=empty) == {"format": 1, "jobs": []}


def test_what_is_not_there_yet_and_bad_usage_are_refused_with_a_message(applied: Desk) -> None:
    later = [
        *(["sweep", "j0", "a=1"], ["run", "j0"], ["rerun", "j0"], ["accept", "j0"], ["pick", "j0@v1/0"]),
        *(["compare", "j0"], ["controller"], ["clean"]),
        *(["plan", "--working-tree"], ["apply", "--line", "x"], ["apply", "--allow-unpushed"]),
        ["init", "x", "--ci", "github"],
    ]  # fmt: skip
    for words in later:
        done = applied.run(*words, code=1)
        assert "not there yet" in done.stderr, words
        assert "hint:" in done.stderr, words
    for words in (
        ["plann"],
        ["plan", "--rew", "x"],
        ["show"],
        ["show", "j0", "more"],
        ["show", "No Job"],
        [],
    ):
        if words:
            assert "hint:" in applied.run(*words, code=1).stderr, words
    assert "espalier plan?" in applied.run("plann", code=1).stderr


def test_later_methods_backends_nodes_and_a_remote_ledger_are_refused_and_say_what_there_is(new_desk: NewDesk) -> None:
    desk = new_desk(
        {
            "tpe": f"{QUICK}sweep: {{method: tpe, max_trials: 5, params: {{a: 'interval(0,1)'}}}}\n",
            "far": f"{QUICK}backend: vertex\n",
            "wide": f"{QUICK}resources: {{nodes: 2}}\n",
            "app": f"{QUICK}hydra_app: {{config_dir: conf, config_name: config}}\n",
            "big": f"{QUICK}sweep: {{max_trials: 3, params: {{a: 'range(5)'}}}}\n",
            "moved": f"{QUICK}moved: {{from: old}}\n",
        },
        FILES,
    )
    wrong = {e["job"]: f"{e['message']} {e['hint']}" for e in desk.json("plan", code=1)["errors"]}
    assert set(wrong) == {"tpe", "far", "wide", "app", "big", "moved"}
    assert "grid" in wrong["tpe"]
    assert "points" in wrong["tpe"]
    assert "local" in wrong["far"]
    assert "3" in wrong["big"]
    assert "5" in wrong["big"]
    desk.repo.write("conf/config.yaml", (desk.path / "conf/config.yaml").read_text() + "ledger: {remote: origin}\n")
    desk.repo.commit()
    assert "not there yet" in desk.refused("apply", "--skip-errors")


def test_a_saved_plan_is_the_json_and_is_refused_when_stale_or_not_ours(new_desk: NewDesk, tmp_path: Path) -> None:
    desk = new_desk({"a": QUICK, "b": QUICK}, FILES)
    shown = desk.json("plan", "--out", str(tmp_path / "first.json"))
    assert json.loads((tmp_path / "first.json").read_text()) == shown
    assert desk.json("apply", str(tmp_path / "first.json"))["versions"][0]["state"] == "succeeded"
    assert "stale" in desk.refused("apply", str(tmp_path / "first.json"))

    desk.job("a", f"{QUICK}params: {{x: 1}}\n")
    commit = desk.repo.commit("Change a")
    desk.run("plan", "--out", str(tmp_path / "second.json"))
    desk.job("b", f"{QUICK}params: {{x: 1}}\n")
    desk.repo.commit("Change b, which that plan does not know")
    done = desk.json("apply", str(tmp_path / "second.json"))
    assert [(v["job"], v["version"], v["commit"]) for v in done["versions"]] == [("a", 2, commit)]

    other = json.loads((tmp_path / "second.json").read_text()) | {"ledger_id": "0" * 8 + "-0000-4000-8000-" + "0" * 12}
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert "ledger" in desk.refused("apply", str(tmp_path / "other.json"))
    (tmp_path / "other.json").write_text(json.dumps(other | {"commit": "1" * 40}))
    assert "not known here" in desk.refused("apply", str(tmp_path / "other.json"))
    (tmp_path / "other.json").write_text("{}")
    assert "no saved plan" in desk.refused("apply", str(tmp_path / "other.json"))
    assert "--rev" in desk.refused("apply", str(tmp_path / "first.json"), "--rev", "HEAD")


def test_an_ancestor_of_what_was_applied_is_behind_and_left_alone(new_desk: NewDesk) -> None:
    desk = new_desk({"a": QUICK}, FILES)
    desk.job("a", f"{QUICK}params: {{x: 1}}\n")
    desk.repo.commit("Change a")
    desk.run("apply")
    plan = desk.json("plan", "--rev", "HEAD~1")
    assert plan["behind"] is True
    assert [action["action"] for action in plan["actions"]] == ["revise"]
    before = desk.repo.git("rev-parse", "refs/espalier/ledger")
    done = desk.run("apply", "--rev", "HEAD~1")
    assert "behind" in done.stdout + done.stderr
    assert desk.repo.git("rev-parse", "refs/espalier/ledger") == before


def test_a_job_whose_last_version_is_of_a_later_commit_is_left_alone(new_desk: NewDesk) -> None:
    desk = new_desk({"a": QUICK, "b": QUICK}, FILES)
    desk.run("apply")
    first = desk.repo.git("rev-parse", "HEAD")
    desk.job("a", f"{QUICK}params: {{x: 1}}\n")
    desk.job("c", QUICK)
    desk.repo.commit("Change a, add c")
    desk.run("apply", "--job", "[ac]")
    plan = desk.json("plan", "--rev", first)
    assert {a["job"]: (a["action"], a["version"]) for a in plan["actions"]} == {
        "a": ("keep", 2),
        "b": ("keep", 1),
        "c": ("keep", 1),
    }
    reasons = {a["job"]: a["reason"] for a in plan["actions"]}
    assert reasons["a"].startswith("behind")
    assert reasons["c"].startswith("behind"), "not retired"
    assert desk.json("apply", "--rev", first) == {"format": 1, "versions": []}
    assert desk.json("show", "c")["retired"] is False


def test_planning_reads_no_variable_runs_nothing_and_knows_a_detached_head(new_desk: NewDesk, tmp_path: Path) -> None:
    desk = new_desk({"a": "command: 'sh t.sh ${oc.env:SECRET_PLACE}'\ncode: [t.sh]\nsecrets: [TOKEN_NOT_SET]\n"}, FILES)
    desk.repo.git("checkout", "-q", "--detach")
    shown = desk.json("spec", "a")
    assert shown["spec"]["command"] == ["sh", "t.sh", "${oc.env:SECRET_PLACE}"]
    assert desk.json("plan", env={"SECRET_PLACE": "value"}) == desk.json("plan")
    (tmp_path / ".gitconfig").write_text(GIT_CONFIG)
    assert desk.json("plan", env={"HOME": str(tmp_path), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})["errors"] == []
