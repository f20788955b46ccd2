"""``espalier cancel``: end the unfinished trials of a version, or one trial. Never waits for them."""

import argparse

from espalier import wiring
from espalier.cli import lookup, terminal
from espalier.cli.parser import add_format
from espalier.cli.views.version import touched_json, touched_text
from espalier.core.names import parse_target
from espalier.engine import act, follow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``cancel``."""
    parser.description = "Record the wish that these trials end, and ask their backend; the program gets its grace."
    parser.add_argument("target", metavar="JOB[@vN[/TRIAL]]", help="the last version where none is named")
    add_format(parser, "text", "json")


def run(arguments: argparse.Namespace) -> int:
    """Cancel, make one pass, print the version."""
    world = wiring.open_world(arguments.directory, start_tracker=True, start_runner=True)
    touched = act.cancel(world, parse_target(arguments.target))
    follow.follow(world, (), once=True)
    versions = [record.version for record in lookup.records(world.ledger, touched)]
    if arguments.format == "json":
        terminal.result(touched_json(versions))
        return 0
    terminal.result(touched_text(versions, terminal.out().style))
    ended = all(version.state != "running" for version in versions)
    terminal.Terminal().next("espalier status" if ended else "espalier follow waits until they have ended")
    return 0
