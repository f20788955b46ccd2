"""Repositories of every shape: linked worktrees, rewritten and shallow history, other config folders, odd names."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import NewDesk
from tests.e2e.desk import Desk
from tests.repository import Repository

QUICK = "command: sh t.sh\ncode: [t.sh]\n"
FILES = {"t.sh": "echo done\n"}


def test_apply_works_detached_dirty_and_from_a_linked_worktree_on_one_ledger(new_desk: NewDesk, tmp_path: Path) -> None:
    desk = new_desk({"a": QUICK}, FILES)
    desk.repo.write("t.sh", "echo not committed\n")
    desk.repo.git("checkout", "-q", "--detach")
    done = desk.run("apply", cwd=desk.path / "conf")
    assert "1 path not committed (t.sh) left aside" in done.stderr
    assert desk.run("logs", "a").stdout == "done\n"
    desk.repo.git("checkout", "-q", "t.sh")
    desk.repo.git("checkout", "-q", "main")
    desk.repo.git("worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))
    linked = Desk(Repository(tmp_path / "linked"), desk.environ)
    assert linked.json("apply") == {"format": 1, "versions": []}
    linked.job("b", QUICK)
    linked.repo.commit("Add b there")
    [version] = linked.json("apply")["versions"]
    assert (version["job"], version["state"]) == ("b", "succeeded")
    assert [v["job"] for v in desk.json("status")["jobs"]] == ["a", "b"]
    assert linked.run("logs", "b").stdout == "done\n"
    assert linked.repo.git("status", "--porcelain") == ""


def test_planning_goes_on_after_the_applied_commit_was_amended_away(new_desk: NewDesk) -> None:
    desk = new_desk({"a": QUICK}, FILES)
    desk.run("apply")
    desk.repo.git("commit", "-q", "--amend", "-m", "Say it better")
    desk.repo.git("reflog", "expire", "--expire=now", "--all")
    desk.repo.git("gc", "-q", "--prune=now")
    plan = desk.json("plan")
    assert [action["action"] for action in plan["actions"]] == ["keep"]
    assert "behind" not in plan
    assert desk.json("apply")["versions"] == []
    assert json.loads(desk.ledger("cursor.json"))["main"]["commit"] == desk.repo.git("rev-parse", "HEAD")
    for words in (["show", "a"], ["history", "a"], ["status"], ["fsck"]):
        desk.json(*words)
    desk.run("show", "a")


def test_a_shallow_clone_plans_and_applies(new_desk: NewDesk, tmp_path: Path) -> None:
    desk = new_desk({"a": QUICK}, FILES)
    subprocess.run(["git", "clone", "-q", "--depth=1", desk.path.as_uri(), str(tmp_path / "shallow")], check=True)
    shallow = Desk(Repository(tmp_path / "shallow"), desk.environ)
    [version] = shallow.json("apply")["versions"]
    assert (version["job"], version["state"]) == ("a", "succeeded")
    assert "refs/espalier" not in desk.repo.git("for-each-ref"), "nothing is pushed that nobody asked for"


@pytest.mark.parametrize("where", ["espalier.toml", "pyproject.toml"])
def test_another_config_folder_is_named_in_the_commit(new_desk: NewDesk, where: str) -> None:
    desk = new_desk({"a": QUICK}, FILES)
    desk.repo.git("mv", "conf", "configs")
    desk.repo.git("mv", "configs/config.yaml", "configs/main.yaml")
    table = "[tool.espalier]\n" if where == "pyproject.toml" else ""
    desk.repo.write(where, f'{table}config_dir = "configs"\nconfig_name = "main"\n')
    desk.repo.commit("Move the config")
    assert [action["job"] for action in desk.json("plan")["actions"]] == ["a"]


def test_names_that_are_no_jobs_are_passed_over_and_illegal_ones_are_errors(new_desk: NewDesk) -> None:
    package = f"# @package _global_\njob:\n  {QUICK.replace(chr(10), chr(10) + '  ')}\n"
    desk = new_desk(
        {"a": QUICK, "_base": "nonsense: true\n", "_parts/b": "x: 1\n", "v1.2/c_d-e": package, "wrong name": QUICK},
        FILES,
    )
    desk.job(".hidden", "nonsense: true\n")
    desk.job("sub/open", QUICK)
    desk.repo.commit("More names")
    plan = desk.json("plan", code=1)
    assert [action["job"] for action in plan["actions"]] == ["a", "v1.2/c_d-e"]
    assert plan["actions"][0]["digest"] == plan["actions"][1]["digest"], "both ways to write a job are one"
    assert {error["file"] for error in plan["errors"]} == {"conf/job/wrong name.yaml", "conf/job/sub/open.yaml"}


def test_names_that_differ_in_case_alone_are_an_error(new_desk: NewDesk) -> None:
    desk = new_desk({"model/a": QUICK, "Model/a": QUICK}, FILES)
    plan = desk.json("plan", code=1)
    assert "case" in json.dumps(plan["errors"])


def test_submodules_are_refused_while_planning_and_lfs_pointers_when_applying(new_desk: NewDesk) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 12345\n"
    desk = new_desk(
        {"lfs": f"{QUICK}data: {{x: {{path: big.bin}}}}\n", "module": "command: sh t.sh\ncode: [sub]\n"},
        {**FILES, "big.bin": pointer},
    )
    desk.repo.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    desk.repo.git("commit", "-q", "-m", "A submodule")
    plan = desk.json("plan", code=1)
    assert [error["job"] for error in plan["errors"]] == ["module"]
    assert "submodule" in plan["errors"][0]["message"]
    assert "sub" in plan["errors"][0]["message"]
    desk.run("apply", "--skip-errors", code=None)
    [trial] = desk.json("show", "lfs")["trials"]
    assert trial["state"] == "failed"
    assert "LFS" in trial["message"]


def test_points_are_trials_by_content_and_equal_ones_are_one(new_desk: NewDesk) -> None:
    text = f"{QUICK}params: {{b: 1}}\n"
    text += "sweep: {method: points, params: [{a: 1}, {a: 1.0}, {a: 1}, {a: 2, b: 3}]}\n"
    desk = new_desk({"a": text}, FILES)
    assert desk.action("a")["trials"]["total"] == 3
    desk.run("apply")
    values = [trial["params"] for trial in desk.json("show", "a")["trials"]]
    assert [json.dumps(value, sort_keys=True) for value in values] == [
        *('{"a": 1, "b": 1}', '{"a": 1.0, "b": 1}', '{"a": 2, "b": 3}'),
    ]
