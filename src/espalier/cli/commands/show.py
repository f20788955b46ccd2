"""``espalier show``: one version whole, with why it exists. Never starts or asks anything."""

import argparse

from espalier.cli import lookup, terminal
from espalier.cli.parser import add_fetch, add_format
from espalier.cli.views.show import Whole, environment_changes, show_json, show_text
from espalier.core.content import Change, diff
from espalier.core.names import parse_target
from espalier.engine import act


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``show``."""
    parser.description = "One version whole: why it exists, what it changed, its trials; or one of its trials."
    parser.add_argument("target", metavar="JOB[@vN[/TRIAL]]", help="the last version where none is named")
    add_fetch(parser)
    add_format(parser, "text", "json")


def run(arguments: argparse.Namespace) -> int:
    """Print the version."""
    ledger = lookup.open_ledger(arguments, terminal.Terminal())
    target = parse_target(arguments.target)
    record, trials = act.find(ledger, target)
    parent = lookup.parent_of(ledger, record.version)
    changes: tuple[Change, ...] = diff(parent.spec, record.spec, record.version.origins) if parent else ()
    whole = Whole(
        record=record,
        parent=parent.version if parent else None,
        changes=changes,
        environment=environment_changes(parent.trials, record.trials) if parent else {},
        trial=trials[0] if target.trial else None,
        description=record.version.description,
    )
    terminal.result(show_json(whole) if arguments.format == "json" else show_text(whole, terminal.out().style))
    return 0
