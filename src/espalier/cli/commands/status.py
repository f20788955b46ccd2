"""``espalier status``: where things stand, from the ledger alone. Never starts or asks anything."""

import argparse
from typing import TYPE_CHECKING

from espalier import wiring
from espalier.cli import lookup, terminal
from espalier.cli.parser import add_fetch, add_format
from espalier.cli.views.version import open_line, status_json, status_text

if TYPE_CHECKING:
    from espalier.core.ports import Ledger

WATCH_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``status``."""
    parser.description = "The last version of every line, side lines below their job."
    parser.add_argument("job", nargs="?", metavar="JOB", help="only this job's lines")
    parser.add_argument("--watch", action="store_true", help="again and again, until nothing is running")
    add_fetch(parser)
    add_format(parser, "text", "json")


def run(arguments: argparse.Namespace) -> int:
    """Print where things stand."""
    talk = terminal.Terminal()
    ledger = lookup.open_ledger(arguments, talk)
    if arguments.watch and arguments.format == "text":
        return _watch(ledger, arguments.job)
    versions = lookup.last_versions(ledger, arguments.job)
    if arguments.format == "json":
        terminal.result(status_json(versions))
        return 0
    terminal.result(status_text(versions, terminal.out().style))
    if not versions:
        talk.next("espalier plan shows what apply would make")
    elif told := open_line(versions):
        running = any(version.state == "running" for version in versions)
        talk.next(f"{told}: espalier {'follow' if running else 'show JOB says why'}")
    return 0


def _watch(ledger: "Ledger", job: str | None) -> int:
    """Show it whenever the ledger has moved; on a terminal in the same place."""
    out, clock, tip = terminal.out(), wiring.SystemClock(), ""
    while True:
        now = ledger.read().tip or "none"
        versions = lookup.last_versions(ledger, job)
        if out.is_tty:
            out.draw(status_text(versions, out.style).splitlines())
        elif now != tip:
            terminal.result(status_text(versions, out.style))
        tip = now
        if not any(version.state == "running" for version in versions):
            return 0
        clock.sleep(WATCH_S)
