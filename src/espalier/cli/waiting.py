"""Follow what was launched, showing how it moves, and say how it ended. Never launches anything itself."""

from collections.abc import Collection, Sequence
from typing import Protocol

from espalier.cli import lookup
from espalier.cli.terminal import Terminal, result
from espalier.cli.views.progress import progress_changes, progress_table, unsuccessful
from espalier.cli.views.record import name_of
from espalier.cli.views.value import count, printable, short_id
from espalier.cli.views.version import touched_json, touched_text
from espalier.core.names import line_name
from espalier.core.ports import World
from espalier.core.record import Record
from espalier.engine import follow
from espalier.engine.follow import Followed

UNSUCCESSFUL = 3


class Watcher:
    """Shows each pass: a live table on a terminal, a line for each change anywhere else."""

    def __init__(self, talk: Terminal, awaited: Collection[tuple[str, int]], before: Sequence[Record]) -> None:
        self._talk = talk
        self._awaited = sorted(set(awaited))
        self._records = {at_of(record): record for record in before}
        self._trouble = ""

    def __call__(self, followed: Followed) -> None:
        """Show what ``followed`` brought."""
        held = [lookup.held(followed.snapshot, *at) for at in self._awaited]
        self._show([record for record in held if record is not None])
        if followed.trouble and followed.trouble != self._trouble:
            self._trouble = followed.trouble
            self._talk.say(f"note: MLflow was not told: {printable(followed.trouble)}; the next pass tells it")

    def end(self, records: Sequence[Record]) -> None:
        """Show how it ended: another process may have recorded the last of it."""
        self._show(records)
        if self._talk.is_tty:
            self._talk.clear()

    def _show(self, records: Sequence[Record]) -> None:
        before = list(self._records.values())
        self._records.update({at_of(record): record for record in records})
        if self._talk.is_tty:
            self._talk.draw(progress_table(list(self._records.values()), self._talk.style))
        else:
            for line in progress_changes(before, records):
                self._talk.say(line)


class Asked(Protocol):
    """The options of a command that waits."""

    format: str


def at_of(record: Record) -> tuple[str, int]:
    """Return line and number of a version."""
    return line_name(record.version.job, record.version.line), record.version.version


def wait(
    world: World, awaited: Collection[tuple[str, int]], before: Sequence[Record], talk: Terminal, *, once: bool = False
) -> tuple[list[Record], list[str]]:
    """Follow until ``awaited`` are final; return their records, and the trials waited for that did not succeed.

    ``before``: their records when the command began; what was final then was not waited for.
    """
    started = lookup.records(world.ledger, awaited)
    watcher = Watcher(talk, awaited, started)
    follow.follow(world, awaited, once=once, watch=watcher)
    after = lookup.records(world.ledger, awaited)
    watcher.end(after)
    for record in after if not once else []:
        if record.version.state == "running":
            places = sorted({trial.place or "?" for trial in record.trials if trial.state in ("queued", "running")})
            name = name_of(record.version)
            talk.say(f"note: {name} runs elsewhere ({', '.join(places)}) and was not waited for")
            talk.say(f"      if that place is gone for good, send it again from here: espalier retry --lost {name}")
    return after, [] if once else unsuccessful(before, after)


def report(records: Sequence[Record], bad: Sequence[str], asked: Asked, talk: Terminal, out: Terminal) -> int:
    """Print the versions that a command touched and what to do next; return the exit code."""
    versions = [record.version for record in records]
    if asked.format == "json":
        result(touched_json(versions))
    else:
        text = touched_text(versions, out.style)
        if text:
            result(text)
        for record in records:
            if missing := _missing_objective(record):
                talk.say(f"note: {missing}")
        talk.next(next_step(records, bad))
    return UNSUCCESSFUL if bad else 0


def next_step(records: Sequence[Record], bad: Sequence[str]) -> str:
    """Return what a person would do now."""
    if bad:
        first = bad[0]
        more = f" ({count(len(bad), 'trial')} did not succeed)" if len(bad) > 1 else ""
        look = "logs" if first in _started(records) else "show"  # what was refused has no output
        return f"espalier {look} {first}{more}; then mend it and commit, or espalier retry {first.rpartition('/')[0]}"
    running = [record for record in records if record.version.state == "running"]
    if running:
        return "espalier follow (watch it), espalier status (look once)"
    if records:
        return f"espalier show {name_of(records[0].version)}, or espalier ui for all of it"
    return "nothing to wait for; espalier status shows where things stand"


def _started(records: Sequence[Record]) -> set[str]:
    return {
        f"{name_of(record.version)}/{short_id(trial.id)}"
        for record in records
        for trial in record.trials
        if trial.handle
    }


def _missing_objective(record: Record) -> str:
    """Say that no trial logged what the sweep is judged by; empty where one did, or none succeeded."""
    version = record.version
    done = [trial for trial in record.trials if trial.state in ("succeeded", "reused")]
    if version.objective is None or version.best is not None or version.state == "running" or not done:
        return ""
    logged = sorted({name for trial in done for name in trial.metrics})
    told = ", ".join(printable(name) for name in logged[:6]) + (", …" if len(logged) > 6 else "")
    return f"no trial of {name_of(version)} logged {printable(version.objective.metric)}; logged: {told or 'nothing'}"
