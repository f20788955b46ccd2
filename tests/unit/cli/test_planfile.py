"""A saved plan: what is written is what is read, and nothing else is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from espalier.cli import planfile
from espalier.core.errors import InputError
from tests.golden.cli.values import full_plan, hostile_plan, quiet_plan


@pytest.mark.parametrize("plan", [full_plan(), quiet_plan(), quiet_plan(0)])
def test_a_saved_plan_reads_back_whole(plan: Any, tmp_path: Path) -> None:
    planfile.write(plan, tmp_path / "plan.json")
    read = planfile.read(tmp_path / "plan.json")
    assert read == plan
    assert [(a.reason, a.changes, a.trials, a.notes) for a in read.actions] == [
        (a.reason, a.changes, a.trials, a.notes) for a in plan.actions
    ]
    assert [c.origin for a in read.actions for c in a.changes] == [c.origin for a in plan.actions for c in a.changes]


def test_a_saved_plan_of_some_jobs_knows_which(tmp_path: Path) -> None:
    from dataclasses import replace

    planfile.write(replace(quiet_plan(), globs=("job*",)), tmp_path / "plan.json")
    assert planfile.read(tmp_path / "plan.json").globs == ("job*",)


def test_what_a_pull_request_may_hold_is_read_as_it_is(tmp_path: Path) -> None:
    planfile.write(hostile_plan(), tmp_path / "plan.json")
    assert planfile.read(tmp_path / "plan.json") == hostile_plan()


def changed(path: tuple[Any, ...], value: Any) -> str:
    tree = json.loads(planfile.plan_json(full_plan()))
    inner = tree
    for step in path[:-1]:
        inner = inner[step]
    if value is KeyError:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return json.dumps(tree)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is not JSON"),
        ("[]", "the plan is no object"),
        ("{}", "the plan has no 'format'"),
        ("[" * 100_000, "it is not JSON"),
        (changed(("format",), 2), "its format is 2"),
        (changed(("format",), True), "'format' of the plan is of a wrong kind"),
        (changed(("commit",), "HEAD"), "commit is not 40"),
        (changed(("commit",), KeyError), "the plan has no 'commit'"),
        (changed(("ledger",), "../x"), "ledger is not 40"),
        (changed(("actions",), {}), "'actions' of the plan is of a wrong kind"),
        (changed(("actions", 0), "x"), "an action is no object"),
        (changed(("actions", 0, "action"), "destroy"), "'destroy' is no action"),
        (changed(("actions", 0, "job"), "../../etc"), "is no job name"),
        (changed(("actions", 0, "job"), "digits/mlp"), "a job has two actions"),
        (changed(("actions", 0, "line"), "A B"), "is no name of a side line"),
        (changed(("actions", 0, "version"), 0), "'version' of bert/base is below 1"),
        (changed(("actions", 0, "version"), 1.5), "'version' of bert/base is of a wrong kind"),
        (changed(("actions", 0, "digest"), "ab"), "digest of bert/base is not 64 hex digits"),
        (changed(("actions", 0, "trials", "run"), -1), "'run' of bert/base is below 0"),
        (changed(("actions", 0, "trials"), KeyError), "bert/base has no 'trials'"),
        (changed(("actions", 0, "changes", 0, "old"), KeyError), "a change of bert/base has no 'old'"),
        (changed(("actions", 0, "notes"), [3]), "a text of bert/base is of a wrong kind"),
        (changed(("errors", 0, "line"), "7"), "'line' of an error is of a wrong kind"),
        (changed(("errors", 0, "message"), float("nan")), "it is not JSON"),
    ],
)
def test_a_file_that_is_no_plan_is_refused_by_name_and_reason(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text, "utf-8")
    with pytest.raises(InputError) as caught:
        planfile.read(tmp_path / "plan.json")
    assert why in caught.value.message
    assert caught.value.file == str(tmp_path / "plan.json")
    assert caught.value.hint


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        planfile.read(tmp_path / "none.json")
    assert "espalier plan --out" in caught.value.hint


def test_a_place_that_cannot_be_written_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none"):
        planfile.write(quiet_plan(), tmp_path / "none" / "plan.json")
