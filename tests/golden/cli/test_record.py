"""What a person and a script see of what is recorded."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from espalier.cli.views.diff import Pair, diff_json, diff_text, in_time
from espalier.cli.views.progress import progress_changes, progress_table
from espalier.cli.views.show import Whole, environment_changes, show_json, show_text
from espalier.cli.views.spec import spec_json, spec_yaml
from espalier.cli.views.style import Style
from espalier.cli.views.version import history_json, history_text, status_json, status_text, touched_json, touched_text
from espalier.core.model import Version
from tests.builders import COMMIT
from tests.golden.cli.values import NOW, changes_of, history, sweep_job

TEXTS = Path(__file__).parent / "texts"
STYLE = Style(width=120, now=NOW)
Golden = Callable[[Path, str], None]


def versions() -> list[Version]:
    line = history().lines["digits/mlp"]
    return [*(earlier.version for earlier in line.earlier), line.last.version]


def whole() -> Whole:
    told = history()
    line = told.lines["digits/mlp"]
    return Whole(
        record=line.last,
        parent=line.earlier[0].version,
        changes=changes_of(told),
        environment={"numpy": ("1.26.4", "2.1.0")},
        description="A small MLP",
    )


def test_status_reads_as_it_was_reviewed(golden: Golden) -> None:
    golden(TEXTS / "status.txt", status_text(list(history().heads.values()), STYLE) + "\n")


def test_status_in_json_is_the_contract(golden: Golden) -> None:
    golden(TEXTS / "status.json", status_json(list(history().heads.values())) + "\n")


def test_status_of_nothing_says_so() -> None:
    assert status_text([]) == "no versions yet"
    assert json.loads(status_json([])) == {"format": 1, "jobs": []}


def test_history_reads_as_it_was_reviewed(golden: Golden) -> None:
    golden(TEXTS / "history.txt", history_text("digits/mlp", versions(), STYLE) + "\n")


def test_history_in_json_is_newest_first() -> None:
    tree = json.loads(history_json("digits/mlp", versions()))
    assert (tree["format"], tree["job"]) == (1, "digits/mlp")
    assert [version["version"] for version in tree["versions"]] == [2, 1]


def test_show_reads_as_it_was_reviewed(golden: Golden) -> None:
    golden(TEXTS / "show.txt", show_text(whole(), STYLE) + "\n")


def test_show_of_a_trial_reads_as_it_was_reviewed(golden: Golden) -> None:
    page = whole()
    trial = Whole(record=page.record, parent=page.parent, trial=page.record.trials[-1])
    golden(TEXTS / "show_trial.txt", show_text(trial, STYLE) + "\n")
    assert [row["id"] for row in json.loads(show_json(trial))["trials"]] == [page.record.trials[-1].id]


def test_show_in_json_is_the_contract(golden: Golden) -> None:
    golden(TEXTS / "show.json", json.dumps(json.loads(show_json(whole())), indent=1, ensure_ascii=False) + "\n")


def test_diff_reads_as_it_was_reviewed(golden: Golden) -> None:
    page = whole()
    assert page.parent
    pair = Pair(page.record.version, page.parent, page.parent, page.record.version, page.changes)
    golden(TEXTS / "diff.txt", diff_text(pair, STYLE) + "\n")
    tree = json.loads(diff_json(pair))
    assert (tree["a"], tree["b"]) == ("digits/mlp@v2", "digits/mlp@v1")
    assert set(tree["changes"][0]) == {"path", "old", "new"}


def test_a_difference_is_read_forward_in_time_however_it_was_asked_for() -> None:
    first, second = versions()
    assert in_time(second, first) == in_time(first, second) == (first, second)


def test_the_live_table_reads_as_it_was_reviewed(golden: Golden) -> None:
    records = [line.last for line in history().lines.values()]
    golden(TEXTS / "progress.txt", "\n".join(progress_table(records, STYLE)) + "\n")


def test_without_a_terminal_each_change_is_one_line(golden: Golden) -> None:
    lines = history().lines
    changes = progress_changes([], [line.last for line in lines.values()])
    golden(TEXTS / "changes.txt", "\n".join(changes) + "\n")
    assert progress_changes([line.last for line in lines.values()], [line.last for line in lines.values()]) == []


def test_what_a_command_touched_reads_as_it_was_reviewed(golden: Golden) -> None:
    golden(TEXTS / "touched.txt", touched_text(versions(), STYLE) + "\n")
    assert [v["version"] for v in json.loads(touched_json(versions()))["versions"]] == [1, 2]


def test_a_spec_reads_as_it_was_reviewed(golden: Golden) -> None:
    job = sweep_job()
    origins = {"params.hidden": "conf/job/digits/mlp.yaml:12", "command": "conf/job/digits/mlp.yaml:3"}
    job = replace(job, origins=origins, description='A "small" MLP: 1')
    golden(TEXTS / "spec.yaml", spec_yaml(job, COMMIT) + "\n")
    golden(TEXTS / "spec.json", spec_json(job, COMMIT) + "\n")


def test_environments_differ_only_where_both_are_recorded() -> None:
    line = history().lines["digits/mlp"]
    assert environment_changes((), line.last.trials) == {}
    failed = [trial for trial in line.last.trials if trial.state == "failed"]
    assert environment_changes(failed, failed) == {}
