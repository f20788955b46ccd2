"""``espalier apply``: carry a plan out, then follow until all of it is final. Never asks without a terminal."""

import argparse
import os
from pathlib import Path

from espalier import wiring
from espalier.cli import lookup, planfile, terminal, waiting
from espalier.cli.commands.plan import aside
from espalier.cli.parser import add_format, add_not_yet
from espalier.cli.views.plan import plan_text
from espalier.core.errors import InputError, RejectedError
from espalier.core.model import Settings
from espalier.core.plan import Plan
from espalier.core.ports import World
from espalier.core.record import Record, Snapshot
from espalier.engine import apply


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``apply``."""
    parser.description = "Carry out what plan shows, then follow with live progress until all is final."
    parser.add_argument(
        "plan", nargs="?", type=Path, metavar="PLAN", help="a plan saved by plan --out; refused if stale"
    )
    parser.add_argument("--rev", help="the commit to apply (default HEAD)")
    parser.add_argument("--job", action="append", default=[], metavar="GLOB", help="only these jobs; * crosses /")
    parser.add_argument("--no-wait", action="store_true", help="return once everything is submitted")
    parser.add_argument("--yes", action="store_true", help="start outside this machine without asking")
    parser.add_argument("--skip-errors", action="store_true", help="carry out the jobs that compose; still exits 1")
    parser.add_argument("--allow-retire", action="store_true", help="retire more than a fifth of the jobs")
    parser.add_argument("--cancel-running", action="store_true", help="end the running trials of retired jobs")
    parser.add_argument("--allow-local-ledger", action="store_true", help="in CI: a ledger that ends with the runner")
    add_format(parser, "text", "json")
    add_not_yet(parser, "--line", "commit on the branch that the main lines follow", value=True)
    add_not_yet(parser, "--allow-unpushed", "leave it out: this clone's ledger takes commits that are not pushed")


def run(arguments: argparse.Namespace) -> int:
    """Apply and wait; return 1 with jobs left out for errors, 3 when a trial did not succeed."""
    talk = terminal.Terminal()
    if arguments.plan and arguments.rev:
        raise InputError("a saved plan has its commit, --rev names another", hint="leave one of them out")
    saved = planfile.read(arguments.plan) if arguments.plan else None
    world = _world(arguments, saved)
    _check_ledger(world.settings, arguments.allow_local_ledger)
    globs = tuple(arguments.job)
    if saved:
        globs = globs or saved.globs
        declared, plan, snapshot = apply.check_saved(world, saved, globs)
    else:
        declared, plan, snapshot = apply.plan_at(world, arguments.rev or "HEAD", globs)
        if not arguments.rev and (dirty := wiring.dirty_paths(arguments.directory)):
            talk.say(f"note: {aside(dirty)}; HEAD is applied")
    if arguments.format == "text" and (plan.changes_pending or plan.errors):
        talk.say(plan_text(plan, talk.style, every=bool(globs)) + "\n")
    before = _unfinished(world, plan, snapshot)
    options = apply.Options(
        globs=globs,
        skip_errors=arguments.skip_errors,
        allow_retire=arguments.allow_retire,
        cancel_running=arguments.cancel_running,
    )
    applied = apply.apply_plan(world, declared, plan, snapshot, options)
    if plan.behind and arguments.format == "text":
        talk.say(f"behind: {plan.commit[:12]} is an ancestor of what was applied; roll back by git revert")
    touched = set() if plan.behind else _touched(plan, before)
    awaited = sorted(set(applied.versions) & touched)
    bad: list[str] = []
    if awaited and not arguments.no_wait:
        _, bad = waiting.wait(world, awaited, before, talk)
    code = waiting.report(lookup.records(world.ledger, touched), bad, arguments, talk, terminal.out())
    return 1 if plan.errors else code


def _world(arguments: argparse.Namespace, saved: Plan | None) -> World:
    """Return the world with the settings of the commit that is applied."""
    rev = saved.commit if saved else arguments.rev or "HEAD"
    try:
        return wiring.open_world(arguments.directory, rev=rev, start_tracker=True, start_runner=True)
    except InputError as error:
        if saved is None or error.file:
            raise
        raise RejectedError(
            f"the plan in {arguments.plan} is of commit {rev[:12]}, which is not known here",
            hint="apply it in the repository that it was made in, or fetch that commit, or plan again",
        ) from error


def _check_ledger(settings: Settings, allow_local: bool) -> None:
    if settings.ledger_remote:
        raise InputError(
            f"a ledger at a remote (ledger.remote: {settings.ledger_remote}) is not there yet",
            hint="meanwhile: leave ledger.remote out; the ledger is this clone's",
        )
    if os.environ.get("CI", "").lower() not in ("", "0", "false") and not allow_local:
        raise RejectedError(
            "this ledger is local and CI is set: it would vanish with the runner",
            hint="where it does not: espalier apply --allow-local-ledger",
        )


def _unfinished(world: World, plan: Plan, snapshot: Snapshot) -> list[Record]:
    """Return the versions as they stand before: those that go on, and those that get further attempts."""
    names = [
        (action.job, action.version)
        for action in plan.actions
        if action.action in ("retry", "resume")
        or (action.action == "keep" and snapshot.heads[action.job].state == "running")
    ]
    return lookup.records(world.ledger, names) if names else []


def _touched(plan: Plan, before: list[Record]) -> set[tuple[str, int]]:
    changed = {(action.job, action.version) for action in plan.actions if action.action != "keep"}
    return changed | {waiting.at_of(record) for record in before}
