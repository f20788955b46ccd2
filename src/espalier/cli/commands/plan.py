"""``espalier plan``: what apply would do at a commit. Never writes but to ``--out``."""

import argparse
from pathlib import Path

from espalier import wiring
from espalier.cli import planfile, terminal
from espalier.cli.parser import add_format, add_not_yet
from espalier.cli.views.plan import plan_json, plan_markdown, plan_text
from espalier.cli.views.record import name_of
from espalier.cli.views.value import count
from espalier.engine import apply


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``plan``."""
    parser.description = "What apply would do at a commit: one action a job, with the leaves that differ."
    parser.add_argument("--rev", default="HEAD", help="the commit to plan (default HEAD)")
    parser.add_argument("--job", action="append", default=[], metavar="GLOB", help="only these jobs; * crosses /")
    parser.add_argument("--out", type=Path, metavar="FILE", help="save the plan, for: espalier apply FILE")
    parser.add_argument("--exit-code", action="store_true", help="exit 2 when changes are pending")
    add_format(parser, "text", "json", "markdown")
    add_not_yet(parser, "--working-tree", "commit on a branch of your own and plan that")


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; return 1 with job errors, 2 with ``--exit-code`` and changes pending."""
    talk = terminal.Terminal()
    world = wiring.open_world(arguments.directory, rev=arguments.rev)
    _, plan, snapshot = apply.plan_at(world, arguments.rev, arguments.job)
    dirty = wiring.dirty_paths(arguments.directory) if arguments.rev == "HEAD" else []
    if dirty:
        talk.say(f"note: {aside(dirty)}; a plan is of commits")
    if arguments.out:
        planfile.write(plan, arguments.out)
    if arguments.format == "json":
        terminal.result(plan_json(plan))
    elif arguments.format == "markdown":
        terminal.result(plan_markdown(plan))
    else:
        terminal.result(plan_text(plan, terminal.out().style, every=bool(arguments.job)))
        kept = [snapshot.heads[action.job] for action in plan.actions if action.action == "keep"]
        failed = [name_of(head) for head in kept if head.state == "failed"]
        talk.next(_next(arguments, bool(plan.errors), plan.changes_pending, bool(dirty), failed))
    if plan.errors:
        return 1
    return 2 if arguments.exit_code and plan.changes_pending else 0


def aside(dirty: list[str]) -> str:
    """Say what of the working tree is left aside."""
    named = ", ".join(dirty[:3]) + (", …" if len(dirty) > 3 else "")
    return f"{count(len(dirty), 'path')} not committed ({named}) left aside"


def _next(arguments: argparse.Namespace, errors: bool, pending: bool, dirty: bool, failed: list[str]) -> str:
    if errors:
        return "mend what is wrong, commit, plan again (espalier apply --skip-errors carries out the rest)"
    if not pending:
        if failed:
            first = failed[0]
            return f"espalier show {first} (it failed); then mend it and commit, or espalier retry {first}"
        if dirty:
            return "nothing to do at HEAD; to plan what is not committed, commit it"
        return "nothing to do; espalier status shows where things stand"
    if arguments.out:
        return f"espalier apply {arguments.out}"
    rev = "" if arguments.rev == "HEAD" else f" --rev {arguments.rev}"
    jobs = "".join(f" --job '{glob}'" for glob in arguments.job)
    return f"espalier apply{rev}{jobs}"
