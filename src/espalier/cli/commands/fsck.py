"""``espalier fsck``: is the ledger sound. Never changes it."""

import argparse

from espalier import wiring
from espalier.cli import terminal
from espalier.cli.parser import add_format, add_not_yet
from espalier.cli.views.check import fsck_json, fsck_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``fsck``."""
    parser.description = "Verify the ledger: chain, numbering, parents, digests, paths; say how to mend what is wrong."
    add_format(parser, "text", "json")
    add_not_yet(parser, "--rebuild", "each problem names how to mend it by hand")


def run(arguments: argparse.Namespace) -> int:
    """Print what is wrong; return 1 when anything is."""
    problems = wiring.check_ledger(arguments.directory)
    text = fsck_json(problems) if arguments.format == "json" else fsck_text(problems, terminal.out().style)
    terminal.result(text)
    return 1 if problems else 0
