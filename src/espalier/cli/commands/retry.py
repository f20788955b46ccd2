"""``espalier retry``: a further attempt for what failed, was lost or cancelled. Never makes a version."""

import argparse

from espalier import wiring
from espalier.cli import lookup, terminal, waiting
from espalier.cli.parser import add_format
from espalier.core.names import line_name, parse_target
from espalier.engine import act


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``retry``."""
    parser.description = "Send what failed, was lost or cancelled again, whatever the policy says; then follow it."
    parser.add_argument("target", metavar="JOB[@vN[/TRIAL]]", help="the last version where none is named")
    parser.add_argument("--lost", action="store_true", help="what runs at a place that is gone for good, instead")
    parser.add_argument("--no-wait", action="store_true", help="return once it is submitted")
    add_format(parser, "text", "json")


def run(arguments: argparse.Namespace) -> int:
    """Retry and wait; return 3 when a trial did not succeed."""
    talk = terminal.Terminal()
    world = wiring.open_world(arguments.directory, start_tracker=True, start_runner=True)
    target = parse_target(arguments.target)
    record, _ = act.find(world.ledger, target)
    before = lookup.records(world.ledger, [(line_name(target.job, target.line), record.version.version)])
    touched = act.retry(world, target, lost=arguments.lost)
    if arguments.no_wait:
        return waiting.report(lookup.records(world.ledger, touched), [], arguments, talk, terminal.out())
    after, bad = waiting.wait(world, touched, before, talk)
    return waiting.report(after, bad, arguments, talk, terminal.out())
