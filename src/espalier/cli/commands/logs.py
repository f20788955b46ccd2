"""``espalier logs``: a trial's output, so far or as it comes. Never changes anything."""

import argparse
from collections import deque
from itertools import islice

from espalier import wiring
from espalier.cli import terminal
from espalier.cli.terminal import Terminal
from espalier.cli.views.show import swept_names
from espalier.cli.views.style import PLAIN, Row, columns
from espalier.cli.views.value import short_id, value
from espalier.core.errors import InputError
from espalier.core.model import FINAL, Trial
from espalier.core.names import parse_target, trial_name
from espalier.core.ports import Backend, World
from espalier.core.record import Record
from espalier.engine import act

PAUSE_S = 0.5
LISTED = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``logs``."""
    parser.description = "The output of a trial's last attempt; a reused trial's is that of the one it was taken from."
    parser.add_argument("target", metavar="JOB[@vN[/TRIAL]]", help="no trial is needed where there is one only")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the attempt ends")
    parser.add_argument("--tail", type=_lines, metavar="N", help="only the last N lines")


def run(arguments: argparse.Namespace) -> int:
    """Print the output."""
    talk = terminal.Terminal()
    world = wiring.open_world(arguments.directory, start_runner=True)
    record, trial = _trial(world, arguments.target, talk)
    while arguments.follow and not trial.handle and trial.state not in FINAL:
        world.clock.sleep(PAUSE_S)
        record, trial = _trial(world, _name(record, trial), talk)
    if not trial.handle:
        talk.say(f"{_name(record, trial)} is {trial.state} and was never sent: there is no output")
        return 0
    _print(world, world.backends(record.version.backend), trial.handle, arguments)
    return 0


def _print(world: World, backend: Backend, handle: str, arguments: argparse.Namespace) -> None:
    lines = list(backend.logs(handle))
    shown = len(lines)
    for line in deque(lines, maxlen=arguments.tail):
        terminal.result(line.rstrip("\n"))
    while arguments.follow:
        report = backend.status([handle]).get(handle)
        for line in islice(backend.logs(handle), shown, None):
            terminal.result(line.rstrip("\n"))
            shown += 1
        if report is None or report.state not in ("queued", "running"):
            return
        world.clock.sleep(PAUSE_S)


def _trial(world: World, text: str, talk: Terminal) -> tuple[Record, Trial]:
    """Return the one trial that ``text`` means; for a reused one the trial that it was taken from."""
    record, trials = act.find(world.ledger, parse_target(text))
    if len(trials) != 1:
        raise InputError(
            f"{text} has {len(trials)} trials", hint=f"name one:\n{chr(10).join(_choices(record))}" if trials else "…"
        )
    trial = trials[0]
    if not trial.reused_from:
        return record, trial
    talk.say(f"note: {_name(record, trial)} is reused from {trial.reused_from}: this is its output")
    return _trial(world, trial.reused_from, talk)


def _choices(record: Record) -> list[str]:
    names = swept_names(record)
    rows: list[Row] = [
        [
            f"    {_name(record, trial)}",
            trial.state,
            " ".join(f"{name}={value(trial.params.get(name), 24)}" for name in names),
        ]
        for trial in record.trials[:LISTED]
    ]
    more = len(record.trials) - LISTED
    return [*columns(rows, PLAIN, last_cut=False), *([f"    … and {more} more"] if more > 0 else [])]


def _name(record: Record, trial: Trial) -> str:
    version = record.version
    return trial_name(version.job, version.line, version.version, short_id(trial.id))


def _lines(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number
