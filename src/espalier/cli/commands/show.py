"""``espalier show``: one version whole, with why it exists. Never starts or asks anything."""

import argparse

from espalier import wiring
from espalier.cli import lookup, terminal
from espalier.cli.commands.status import NO_REMOTE
from espalier.cli.parser import add_format
from espalier.cli.views.show import Whole, environment_changes, show_json, show_text
from espalier.core.content import Change, diff
from espalier.core.names import parse_target
from espalier.engine import act


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``show``."""
    parser.description = "One version whole: why it exists, what it changed, its trials; or one of its trials."
    parser.add_argument("target", metavar="JOB[@vN[/TRIAL]]", help="the last version where none is named")
    parser.add_argument("--fetch", action="store_true", help="fetch the ledger first, where it has a remote")
    add_format(parser, "text", "json")


def run(arguments: argparse.Namespace) -> int:
    """Print the version."""
    talk = terminal.Terminal()
    if arguments.fetch:
        talk.say(NO_REMOTE)
    ledger = wiring.open_ledger(arguments.directory)
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
