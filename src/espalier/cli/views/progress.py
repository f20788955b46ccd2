"""What is being waited for, while it moves: a table for a terminal, lines of change for a log. Never a result."""

from collections.abc import Iterable, Sequence

from espalier.cli.views.record import name_of
from espalier.cli.views.style import STATE_COLOURS, Cell, Row, Style, columns
from espalier.cli.views.value import count, lasted, metric, printable, short_id
from espalier.cli.views.version import best
from espalier.core.model import FINAL, Trial
from espalier.core.record import Record

BAR = 20
ROWS = 15  # versions in the table; those that run first


def progress_table(records: Sequence[Record], style: Style) -> list[str]:
    """Return the lines of the live table: a bar, counts and the best value so far for each version."""
    ordered = sorted(records, key=lambda record: record.version.state != "running")
    rows: list[Row] = []
    for record in ordered[:ROWS]:
        version = record.version
        rows.append(
            [
                Cell(name_of(version), "bold"),
                Cell(_bar(record), STATE_COLOURS[version.state]),
                _counts(record),
                best(version),
                lasted(version.created_at, style.now) if version.state == "running" else version.state,
            ]
        )
    lines = columns(rows, style)
    if len(ordered) > ROWS:
        lines.append(f"… and {count(len(ordered) - ROWS, 'more version')}")
    trials = [trial for record in records for trial in record.trials]
    ended = sum(trial.state in FINAL for trial in trials)
    running = sum(trial.state == "running" for trial in trials)
    last = f"{ended} of {count(len(trials), 'trial')} ended, {running} running; Ctrl-C stops watching, not the work"
    return [*lines, style.paint(last[: style.width], "dim")]


def progress_changes(before: Iterable[Record], after: Iterable[Record]) -> list[str]:
    """Return a line for each trial and version whose state or attempt moved since ``before``."""
    old = {name_of(record.version): record for record in before}
    lines = []
    for record in after:
        name = name_of(record.version)
        earlier = old.get(name)
        known = {trial.id: trial for trial in earlier.trials} if earlier else {}
        lines += [
            f"{name}/{short_id(trial.id)} {_told(trial)}"
            for trial in record.trials
            if _moved(known.get(trial.id), trial)
        ]
        if record.version.state != "running" and (earlier is None or earlier.version.state == "running"):
            result = f", {best(record.version)}" if record.version.best else ""
            lines.append(f"{name} {record.version.state}{result}")
    return lines


def unsuccessful(before: Iterable[Record], after: Iterable[Record]) -> list[str]:
    """Return the names of the trials that were waited for and did not succeed.

    Waited for is what was not final in ``before``, a further attempt of what was included.
    """
    done = {
        (name_of(record.version), trial.id, trial.attempt)
        for record in before
        for trial in record.trials
        if trial.state in FINAL
    }
    return [
        f"{name_of(record.version)}/{short_id(trial.id)}"
        for record in after
        for trial in record.trials
        if trial.state in ("failed", "cancelled", "lost")
        and (name_of(record.version), trial.id, trial.attempt) not in done
    ]


def _moved(before: Trial | None, after: Trial) -> bool:
    if before is None:
        return after.state != "queued"
    return (before.state, before.attempt) != (after.state, after.attempt)


def _told(trial: Trial) -> str:
    attempt = f" (attempt {trial.attempt})" if trial.attempt > 1 else ""
    why = [f"exit code {trial.exit_code}"] if trial.exit_code else []
    why += [printable(trial.message)] if trial.message and trial.state != "succeeded" else []
    values = [f"{printable(name)} {metric(of)}" for name, of in sorted(trial.metrics.items())[:3]]
    more = why if trial.state in ("failed", "lost", "cancelled") else values if trial.state == "succeeded" else []
    source = f" from {trial.reused_from}" if trial.state == "reused" else ""
    return f"{trial.state}{attempt}{source}{': ' if more else ''}{', '.join(more)}"


def _bar(record: Record) -> str:
    total = max(len(record.trials), 1)
    ended = sum(trial.state in FINAL for trial in record.trials)
    running = sum(trial.state == "running" for trial in record.trials)
    full = BAR * ended // total
    moving = min(max(BAR * running // total, 1 if running else 0), BAR - full)
    return "█" * full + "▒" * moving + "·" * (BAR - full - moving)


def _counts(record: Record) -> str:
    counts = record.version.counts
    ended = counts.total - counts.queued - counts.running
    bad = counts.failed + counts.lost
    parts = [f"{ended}/{counts.total}"]
    parts += [f"{bad} failed"] if bad else []
    parts += [f"{counts.cancelled} cancelled"] if counts.cancelled else []
    return ", ".join(parts)
