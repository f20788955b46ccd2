"""``espalier follow``: look after what was applied. Never makes a version."""

import argparse

from espalier import wiring
from espalier.cli import lookup, terminal, waiting
from espalier.cli.parser import add_format
from espalier.core.ports import World
from espalier.core.record import Record
from espalier.engine import follow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``follow``."""
    parser.description = "Ask the backends, record what moved, start what the recorded policy still allows."
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="wait for these only; all are looked after")
    parser.add_argument("--once", action="store_true", help="one pass, waiting for nothing")
    parser.add_argument("--beside", action="store_true", help=argparse.SUPPRESS)  # started by a runner, for itself
    add_format(parser, "text", "json")


def run(arguments: argparse.Namespace) -> int:
    """Follow until all is final; return 3 when a trial that was waited for did not succeed."""
    if arguments.beside:
        return _beside(arguments)
    talk = terminal.Terminal()
    world = wiring.open_world(arguments.directory, start_tracker=True, start_runner=True)
    before = _unsettled(world, arguments.jobs)
    awaited = [waiting.at_of(record) for record in before]
    after, bad = waiting.wait(world, awaited, before, talk, once=arguments.once)
    return waiting.report(after, bad, arguments, talk, terminal.out())


def _unsettled(world: World, jobs: list[str]) -> list[Record]:
    """Return the versions in which something runs, or whose end MLflow does not show yet."""
    heads = world.ledger.read().heads
    wanted = {name for job in jobs for name in lookup.lines_of(heads, job)} if jobs else set(heads)
    names = [name for name in follow.unsettled(heads, world.tracker.uri) if name in wanted]
    lines = world.ledger.read(names).lines if names else {}
    return [
        record
        for name in names
        for record in (lines[name].last, *lines[name].open.values())
        if record.version.state == "running" or not record.version.tracked
    ]


def _beside(arguments: argparse.Namespace) -> int:
    """Keep the ledger and MLflow written beside a runner, silently, until nothing here is unfinished."""
    world = wiring.open_world(arguments.directory, start_tracker=True)
    while awaited := _here(world):  # more may be applied while we follow
        follow.follow(world, awaited)
    return 0


def _here(world: World) -> list[tuple[str, int]]:
    """Return the versions with unfinished trials that can be asked about here."""
    found = [waiting.at_of(record) for record in _unsettled(world, []) if record.version.state == "running"]
    snapshot = world.ledger.read([name for name, _ in found]) if found else world.ledger.read()
    return [at for at in found if follow.still_waited_for(world, snapshot, at)]
