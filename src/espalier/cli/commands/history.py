"""``espalier history``: a job's line of versions, from the ledger alone. Never starts or asks anything."""

import argparse

from espalier.cli import lookup, terminal
from espalier.cli.parser import add_fetch, add_format
from espalier.cli.views.version import history_json, history_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``history``."""
    parser.description = "A job's versions, newest first, side lines too, each with why it was made."
    parser.add_argument("job", metavar="JOB")
    add_fetch(parser)
    add_format(parser, "text", "json")


def run(arguments: argparse.Namespace) -> int:
    """Print the versions."""
    talk = terminal.Terminal()
    versions = lookup.all_versions(lookup.open_ledger(arguments, talk), arguments.job)
    if arguments.format == "json":
        terminal.result(history_json(arguments.job, versions))
        return 0
    terminal.result(history_text(arguments.job, versions, terminal.out().style))
    talk.next(f"espalier show {arguments.job}@vN shows one whole, espalier diff {arguments.job}@vN what it changed")
    return 0
