"""What a person named, found in the ledger. Never changes anything and never asks a backend."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from espalier import wiring
from espalier.core.errors import InputError
from espalier.core.model import Version
from espalier.core.names import line_name, parse_target
from espalier.core.record import Record, Snapshot

if TYPE_CHECKING:
    import argparse

    from espalier.cli.terminal import Terminal
    from espalier.core.ports import Ledger


def open_ledger(arguments: "argparse.Namespace", talk: "Terminal") -> "Ledger":
    """Return the ledger to read, fetched first where ``--fetch`` asks for it: no remote is there yet."""
    if arguments.fetch:
        talk.say("note: this ledger has no remote; there is nothing to fetch")
    return wiring.open_ledger(arguments.directory)


def lines_of(heads: Mapping[str, Version], job: str) -> tuple[str, ...]:
    """Return the lines that ``JOB`` (its side lines too) or ``JOB+LINE`` means; InputError when there is none."""
    target = parse_target(job)
    if target.version is not None:
        raise InputError(f"{job!r} names a version, this takes a job", hint=f"espalier show {job} shows one version")
    if target.line:
        found = tuple(name for name in heads if name == job)
    else:
        found = tuple(name for name, head in heads.items() if head.job == job)
    if not found:
        import difflib  # 1 ms of start-up that only a mistyped name needs

        near = difflib.get_close_matches(job, heads, n=1)
        raise InputError(f"{job} has no version", hint=f"{near[0]}?" if near else "see what there is: espalier status")
    return found


def last_versions(ledger: "Ledger", job: str | None) -> list[Version]:
    """Return the last version of every line, or of those of ``job``."""
    heads = ledger.read().heads
    names = lines_of(heads, job) if job else tuple(heads)
    return [heads[name] for name in names]


def all_versions(ledger: "Ledger", job: str) -> list[Version]:
    """Return every version of the lines of ``job``."""
    names = lines_of(ledger.read().heads, job)
    lines = ledger.read(names).lines
    return [v for name in names for v in (*(old.version for old in lines[name].earlier), lines[name].last.version)]


def records(ledger: "Ledger", versions: Iterable[tuple[str, int]]) -> list[Record]:
    """Return the whole records of ``versions`` (line and number), sorted; those that nobody knows are left out."""
    wanted = sorted(set(versions))
    snapshot = ledger.read(sorted({name for name, _ in wanted}))
    found = []
    for name, number in wanted:
        record = held(snapshot, name, number) or ledger.version(name, number)
        if record is not None:
            found.append(record)
    return found


def held(snapshot: Snapshot, name: str, number: int) -> Record | None:
    """Return a version's record where ``snapshot`` has it: the last one, or one that is still open."""
    line = snapshot.lines.get(name)
    if line is None:
        return None
    return line.last if line.last.version.version == number else line.open.get(number)


def parent_of(ledger: "Ledger", version: Version) -> Record | None:
    """Return the parent's record; for a first version of a side line its base's; None for a first version."""
    if version.parent is not None:
        return ledger.version(line_name(version.job, version.line), version.parent)
    if version.base is None:
        return None
    base = parse_target(version.base)
    return ledger.version(line_name(base.job, base.line), base.version or 1)
