"""``espalier show``: one version whole, with why it exists. Never starts or asks anything."""

import argparse
from pathlib import Path

from espalier import wiring
from espalier.cli import lookup, terminal
from espalier.cli.commands.status import NO_REMOTE
from espalier.cli.parser import add_format
from espalier.cli.views.show import Whole, environment_changes, show_json, show_text
from espalier.core.content import Change, diff
from espalier.core.errors import EspalierError
from espalier.core.model import Job
from espalier.core.names import parse_target
from espalier.core.record import Record
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
    job = declared(arguments.directory, record)
    changes: tuple[Change, ...] = diff(parent.spec, record.spec, job.origins if job else {}) if parent else ()
    whole = Whole(
        record=record,
        parent=parent.version if parent else None,
        changes=changes,
        environment=environment_changes(parent.trials, record.trials) if parent else {},
        trial=trials[0] if target.trial else None,
        description=job.description if job else "",
    )
    terminal.result(show_json(whole) if arguments.format == "json" else show_text(whole, terminal.out().style))
    return 0


def declared(directory: Path, record: Record) -> Job | None:
    """Return the job as the version's commit declares it; None where that commit is not here or does not compose.

    The record has no places: file and line come from the commit.
    """
    try:
        source = wiring.open_world(directory).source
        commit = source.resolve(record.version.commit)
        jobs = source.specs(commit, [record.version.job]).jobs
    except EspalierError:
        return None
    return next((job for job in jobs if job.name == record.version.job), None)
