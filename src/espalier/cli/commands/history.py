"""``espalier history``: a job's line of versions, from the ledger alone. Never starts or asks anything."""

import argparse

from espalier import wiring
from espalier.cli import lookup, terminal
from espalier.cli.commands.status import NO_REMOTE
from espalier.cli.parser import add_format
from espalier.cli.views.version import history_json, history_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``history``."""
    parser.description = "A job's versions, newest first, side lines too, each with why it was made."
    parser.add_argument("job", metavar="JOB")
    parser.add_argument("--fetch", action="store_true", help="fetch the ledger first, where it has a remote")
    add_format(parser, "text", "json")


def run(arguments: argparse.Namespace) -> int:
    """Print the versions."""
    talk = terminal.Terminal()
    if arguments.fetch:
        talk.say(NO_REMOTE)
    versions = lookup.all_versions(wiring.open_ledger(arguments.directory), arguments.job)
    if arguments.format == "json":
        terminal.result(history_json(arguments.job, versions))
        return 0
    terminal.result(history_text(arguments.job, versions, terminal.out().style))
    talk.next(f"espalier show {arguments.job}@vN shows one whole, espalier diff {arguments.job}@vN what it changed")
    return 0
