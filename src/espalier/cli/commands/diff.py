"""``espalier diff``: two versions side by side. Never starts or asks anything."""

import argparse
import shlex

from espalier import wiring
from espalier.cli import lookup, terminal
from espalier.cli.parser import add_format
from espalier.cli.views.diff import Pair, diff_json, diff_text, in_time
from espalier.cli.views.record import name_of
from espalier.cli.views.value import short_id
from espalier.core.content import diff
from espalier.core.errors import InputError
from espalier.core.names import parse_target
from espalier.core.ports import Ledger
from espalier.core.record import Record
from espalier.engine import act

FILES = 3  # more are left out of the hint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``diff``."""
    parser.description = "Specs and results of two versions; what changed is read from the older to the newer."
    parser.add_argument("a", metavar="A", help="JOB[@vN]")
    parser.add_argument("b", metavar="B", nargs="?", help="JOB[@vN] (default A's parent)")
    add_format(parser, "text", "json")


def run(arguments: argparse.Namespace) -> int:
    """Print the difference."""
    ledger = wiring.open_ledger(arguments.directory)
    a = _find(ledger, arguments.a)
    b = _find(ledger, arguments.b) if arguments.b else lookup.parent_of(ledger, a.version)
    if b is None:
        raise InputError(f"{name_of(a.version)} has no parent", hint="name the version to compare with as well")
    old, new = in_time(a.version, b.version)
    before, after = (a, b) if old is a.version else (b, a)
    changes = diff(before.spec, after.spec, after.version.origins)
    pair = Pair(a.version, b.version, old, new, changes)
    terminal.result(diff_json(pair) if arguments.format == "json" else diff_text(pair, terminal.out().style))
    files = [change.path.removeprefix("code.") for change in changes if change.path.startswith("code.")]
    if files and arguments.format == "text":
        commits = f"{short_id(old.commit)} {short_id(new.commit)}"
        named = f" -- {shlex.join(files)}" if len(files) <= FILES else ""
        terminal.Terminal().next(f"git diff {commits}{named} shows what changed in the code")
    return 0


def _find(ledger: Ledger, text: str) -> Record:
    target = parse_target(text)
    if target.trial:
        raise InputError(f"{text!r} names a trial, this compares versions", hint="leave the trial out")
    return act.find(ledger, target)[0]
