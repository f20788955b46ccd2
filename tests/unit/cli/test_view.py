"""Values, columns and what was waited for."""

import io
from collections.abc import Sequence
from dataclasses import replace

import pytest
import yaml

from espalier.cli.terminal import Terminal
from espalier.cli.views import value
from espalier.cli.views.check import Check, doctor_json, doctor_text, fsck_json, fsck_text
from espalier.cli.views.progress import unsuccessful
from espalier.cli.views.spec import declared_tree, spec_yaml
from espalier.cli.views.style import Cell, Style, columns
from espalier.core.model import State
from espalier.core.record import Record
from tests.builders import COMMIT, a_job, recorded


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.97222222, "0.9722"),
        (20.0, "20"),
        (1e-7, "1e-07"),
        (float("nan"), "nan"),
        (123456789.0, "1.235e+08"),
        (-0.5, "-0.5"),
    ],
)
def test_metrics_are_short(number: float, text: str) -> None:
    assert value.metric(number) == text


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (0.1, "0.1"),
        (1e-05, "1e-05"),
        (True, "true"),
        (None, "(none)"),
        ("(none)", '"(none)"'),
        ("", '""'),
        ("python train.py --lr=1", "python train.py --lr=1"),
        ("a\x1b[31m", '"a\\u001b[31m"'),
        ("\u202e", '"\\u202e"'),
        ([64, 64], "[64, 64]"),
    ],
)
def test_configured_values_are_exact_and_steer_no_terminal(of: object, text: str) -> None:
    assert value.value(of) == text  # type: ignore[arg-type]


def test_long_values_lose_their_middle() -> None:
    assert value.cut("a" * 50 + "b" * 50, 20) == "a" * 13 + "…" + "b" * 6


@pytest.mark.parametrize(
    ("then", "text"),
    [
        ("2026-01-02T03:04:05Z", "now"),
        ("2026-01-02T03:03:05.000Z", "60 s ago"),
        ("2026-01-02T00:04:05+00:00", "3 h ago"),
        ("2025-12-20T03:04:05Z", "13 d ago"),
        ("2027-01-02T03:04:05Z", "2027-01-02T03:04:05Z"),
        ("yesterday", "yesterday"),
        (None, ""),
    ],
)
def test_times_are_relative(then: str | None, text: str) -> None:
    assert value.ago(then, "2026-01-02T03:04:05Z") == text


def test_columns_never_cut_a_name_and_drop_what_is_empty() -> None:
    name = "a-very-long-job-name/" * 4
    rows: list[list[str | Cell]] = [[name, "", "x" * 200], ["b", "", "y"]]
    lines = columns(rows, Style(width=110))
    assert lines[0].startswith(name)
    assert len(lines[0]) == 110
    assert lines[1] == "b" + " " * (len(name) + 1) + "y"


def test_talk_to_a_pipe_has_neither_colour_nor_cursor_moves() -> None:
    stream = io.StringIO()
    terminal = Terminal(stream)
    terminal.next("espalier apply")
    assert stream.getvalue() == "next: espalier apply\n"


class Screen(io.StringIO):
    """A terminal that remembers what it was sent."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_is_redrawn_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    terminal = Terminal(screen)
    terminal.draw(["one", "two"])
    terminal.draw(["three"])
    terminal.clear()
    assert screen.getvalue().count("\033[2A") == 1
    assert screen.getvalue().endswith("\033[1A\r\033[J")


@pytest.mark.parametrize("name", ["NO_COLOR", "TERM"])
def test_colours_can_be_turned_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert Terminal(Screen()).colour
    monkeypatch.setenv(name, "dumb")
    assert not Terminal(Screen()).colour


def test_a_spec_in_yaml_reads_back_as_the_spec() -> None:
    job = replace(
        a_job(
            params={
                "a.b": "yes",
                "c": 1e-05,
                "d": "line\nbreak # no",
                "e": [1, "x: y"],
                "f": None,
                "1": "\U0001f9ea\x85",
            }
        ),
        description="- not a list",
    )
    assert yaml.safe_load(spec_yaml(job, COMMIT)) == declared_tree(job)


def with_state(state: State, attempt: int = 1) -> Record:
    job = a_job()
    record = recorded(job).lines[job.name].last
    return replace(record, trials=tuple(replace(t, state=state, attempt=attempt) for t in record.trials))


@pytest.mark.parametrize(
    ("before", "after", "bad"),
    [
        ([], [with_state("failed")], 1),
        ([], [with_state("lost")], 1),
        ([], [with_state("cancelled")], 1),
        ([], [with_state("succeeded")], 0),
        ([], [with_state("reused", 0)], 0),
        ([], [with_state("running")], 0),
        ([with_state("running")], [with_state("failed")], 1),
        ([with_state("failed")], [with_state("failed")], 0),
        ([with_state("failed")], [with_state("failed", 2)], 1),
        ([with_state("failed")], [with_state("succeeded", 2)], 0),
    ],
)
def test_what_was_final_before_was_not_waited_for(before: Sequence[Record], after: Sequence[Record], bad: int) -> None:
    assert len(unsuccessful(before, after)) == bad


def test_doctor_says_how_to_mend_what_is_not_well() -> None:
    checks = [
        Check("git", "ok", "git version 2.39", "never said"),
        Check("threads", "warn", "not set", "set it"),
        Check("mlflow", "fail", "refused", "start it"),
    ]
    text = doctor_text(checks)
    assert text.splitlines()[-1] == "1 failed, 1 warning"
    assert "mend: set it" in text
    assert "never said" not in text
    assert '"ok": false' in doctor_json(checks)
    assert doctor_text(checks[:1]).endswith("all is well")


def test_fsck_names_each_problem_and_its_hint() -> None:
    assert fsck_text([]) == "the ledger is sound"
    assert fsck_json([]) == '{"format": 1, "ok": true, "problems": []}'
    assert fsck_text([("v2 is missing", "restore it")]).splitlines()[:2] == [
        "problem: v2 is missing",
        "  hint: restore it",
    ]
    assert fsck_json([("a", "b")]) == '{"format": 1, "ok": false, "problems": [{"message": "a", "hint": "b"}]}'
