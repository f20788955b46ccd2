"""A plan as text, JSON and Markdown. The JSON is a contract (design: planning) and what a saved plan is."""

import json
from collections import Counter
from collections.abc import Sequence

from espalier.cli.views.markdown import Budget, cell, code
from espalier.cli.views.style import PLAIN, Style
from espalier.cli.views.value import count, printable, short_id, value
from espalier.core.content import Change, canonical_json, sha256
from espalier.core.model import JobError, Json
from espalier.core.names import line_name
from espalier.core.plan import Action, Kind, Plan, summary

SYMBOLS: dict[Kind, str] = {"create": "+", "revise": "~", "retry": "!", "resume": ">", "retire": "-", "keep": "="}
COLOURS: dict[Kind, str] = {
    "create": "green",
    "revise": "yellow",
    "retry": "red",
    "resume": "blue",
    "retire": "red",
    "keep": "dim",
}
FEW = 8  # so many unchanged jobs are listed beside what changes; more are counted
MOST = 40  # more unchanged jobs than this are counted even when nothing changes
LEAVES = 20  # changed leaves shown of a job; the rest are counted, JSON has all

COUNTED: tuple[tuple[Kind, str, str], ...] = (
    ("create", "new job", "new jobs"),
    ("revise", "new version", "new versions"),
    ("retry", "to retry", "to retry"),
    ("resume", "to resume", "to resume"),
    ("retire", "to retire", "to retire"),
    ("keep", "unchanged", "unchanged"),
)


def plan_text(plan: Plan, style: Style = PLAIN, *, every: bool = False) -> str:
    """Return a line for each action, the leaves that differ, the errors and one line of counts.

    ``every``: unchanged jobs are listed however many there are.
    """
    listed = set(_listed(plan, every))
    lines = []
    for action in plan.actions:
        if action not in listed:
            continue
        symbol = style.paint(SYMBOLS[action.action], COLOURS[action.action])
        name = style.paint(line_name(action.job, action.line), "bold")
        lines.append(f"{symbol} {name}  {_versions(action)}  {printable(action.reason)}".rstrip())
        if action.action == "keep":
            continue
        lines += [f"    {line}" for line in change_lines(action.changes, style)]
        lines += [f"    {style.paint(printable(note), 'dim')}" for note in _facts(action)]
    for error in plan.errors:
        lines += error_lines(error, style)
    if plan.behind:
        lines.append(f"behind: {short_id(plan.commit)} is an ancestor of what was applied; apply leaves it alone")
    if lines:
        lines.append("")
    lines.append(style.paint(counts_line(plan), "bold"))
    return "\n".join(lines)


def plan_json(plan: Plan) -> str:
    """Return the contract's JSON; ``origin`` and ``notes`` are beside what it asks for."""
    tree: dict[str, Json] = {
        "format": 1,
        "commit": plan.commit,
        "ledger": plan.ledger,
        "ledger_id": plan.ledger_id,
        "actions": [_action_tree(action) for action in plan.actions],
        "summary": {str(kind): number for kind, number in summary(plan.actions).items()},
        "errors": [
            {"job": e.job, "message": e.message, "hint": e.hint, "file": e.file or None, "line": e.line}
            for e in plan.errors
        ],
    }
    if plan.behind:
        tree["behind"] = True
    if plan.globs:
        tree["jobs"] = list(plan.globs)
    return json.dumps(tree, ensure_ascii=False, indent=1)


def plan_markdown(plan: Plan) -> str:
    """Return the page of a pull request or of a job's summary: counts, table of jobs, differences folded away."""
    budget = Budget()
    budget.add(f"<!-- espalier:plan -->\n### espalier plan: {counts_line(plan)}\n")
    if plan.behind:
        budget.add("> [!NOTE]\n> This commit lies behind what was applied: apply leaves it alone.\n")
    for error in plan.errors:
        where = f" ({cell(_place(error.file, error.line))})" if error.file else ""
        job = f"{code(error.job)}: " if error.job else ""
        budget.add(f"> [!CAUTION]\n> {job}{cell(error.message)}{where}\n> {cell(error.hint)}\n", "error")
    shown = [action for action in plan.actions if action.action != "keep"]
    if shown:
        budget.add("\n| | job | version | parent | change | trials |\n|--|--|--|--|--|--:|")
    for action in shown:
        budget.add(_row(action), "job")
    if shown:
        budget.add("")
    for action in shown:
        if len(action.changes) > 1 or any(not note.startswith("parent ") for note in action.notes):
            budget.add(_details(action), "difference")
    budget.add(f"\nplan {code(identity(plan)[:8])} · source {code(short_id(plan.commit))}{_ledger(plan)}", always=True)
    return budget.text()


def identity(plan: Plan) -> str:
    """Return a digest of what would be done, the same wherever and whenever it was planned."""
    return sha256(canonical_json([list(action.identity) for action in plan.actions if action.action != "keep"]))


def counts_line(plan: Plan) -> str:
    """Return the one line of counts: versions, trials to run, reused, waiting, to cancel, errors."""
    kinds = Counter(action.action for action in plan.actions)
    parts = [f"{kinds[kind]} {one if kinds[kind] == 1 else many}" for kind, one, many in COUNTED if kinds[kind]]
    versions = ", ".join(parts) or "no jobs"
    moving = [action.trials for action in plan.actions if action.action != "keep"]
    run, reused = sum(t.run for t in moving), sum(t.reused for t in moving)
    waiting, cancel = sum(t.waiting for t in moving), sum(t.cancel for t in moving)
    trials = [f"{count(run, 'trial')} to run"] if run or plan.changes_pending else []
    trials += [f"{reused} reused"] if reused else []
    trials += [f"{waiting} waiting for an equal one"] if waiting else []
    trials += [f"{cancel} to cancel"] if cancel else []
    errors = f"; {count(len(plan.errors), 'error')}" if plan.errors else ""
    return f"{versions}{'; ' if trials else ''}{', '.join(trials)}{errors}"


def change_lines(changes: Sequence[Change], style: Style) -> list[str]:
    """Return ``path: old → new  (file:line)`` for each leaf, paths and places never cut."""
    lines = []
    for change in changes[:LEAVES]:
        old, new = change_values(change, limit=max(16, (style.width - len(change.path) - len(change.origin)) // 2 - 8))
        place = f"  {style.paint(f'({printable(change.origin)})', 'dim')}" if change.origin else ""
        path = printable(change.path)
        if old == "":
            lines.append(f"{path}: {style.paint(new, 'yellow')}{place}")
        else:
            lines.append(f"{path}: {style.paint(old, 'red')} → {style.paint(new, 'green')}{place}")
    if len(changes) > LEAVES:
        lines.append(f"… and {len(changes) - LEAVES} more (--format json has all)")
    return lines


def change_values(change: Change, limit: int = 60) -> tuple[str, str]:
    """Return old and new for people; for code the verb alone, or short git ids."""
    if change.path.startswith("code."):
        old, new = (_git_id(side) for side in (change.old, change.new))
        if not old:
            return "", f"added {new}"
        if not new:
            return "", f"removed {old}"
        return old, new
    return value(change.old, limit), value(change.new, limit)


def error_lines(error: JobError, style: Style) -> list[str]:
    """Return the lines of one error: where, what, what to do."""
    place = _place(error.file, error.line)
    job = f"{error.job}: " if error.job else ""
    first = f"{style.paint('error:', 'red')} {printable(place)}{': ' if place else ''}{job}{printable(error.message)}"
    return [first, f"  hint: {printable(error.hint)}"]


def _listed(plan: Plan, every: bool) -> list[Action]:
    kept = [action for action in plan.actions if action.action == "keep"]
    limit = MOST if len(kept) == len(plan.actions) else FEW
    if every or len(kept) <= limit:
        return list(plan.actions)
    telling = [action for action in kept if action.reason != "up to date"][:MOST]
    return [action for action in plan.actions if action.action != "keep" or action in telling]


def _versions(action: Action) -> str:
    if action.action in ("create", "revise") and action.parent is not None:
        return f"v{action.parent} → v{action.version}"
    return f"v{action.version}"


def _facts(action: Action) -> list[str]:
    trials = action.trials
    parts = [f"{trials.run} to run"] if trials.run else []
    parts += [f"{trials.reused} reused"] if trials.reused else []
    parts += [f"{trials.waiting} waiting for an equal one"] if trials.waiting else []
    parts += [f"{trials.cancel} to cancel"] if trials.cancel else []
    several = trials.total > 1 or trials.reused or trials.waiting or trials.cancel
    return [*action.notes, *([f"{count(trials.total, 'trial')}: {', '.join(parts)}"] if several and parts else [])]


def _git_id(side: Json) -> str:
    if side is None:
        return ""
    name, _, mode = str(side).partition(" ")
    return f"{short_id(name)} {mode}".rstrip()


def _place(file: str, line: int | None) -> str:
    return f"{file}:{line}" if file and line else file


def _action_tree(action: Action) -> dict[str, Json]:
    trials = action.trials
    return {
        "action": action.action,
        "job": action.job,
        "line": action.line,
        "version": action.version,
        "parent": action.parent,
        "digest": action.digest,
        "reason": action.reason,
        "changes": [
            {"path": c.path, "old": c.old, "new": c.new, **({"origin": c.origin} if c.origin else {})}
            for c in action.changes
        ],
        "trials": {
            "total": trials.total,
            "reused": trials.reused,
            "waiting": trials.waiting,
            "run": trials.run,
            "cancel": trials.cancel,
        },
        **({"notes": list(action.notes)} if action.notes else {}),
        **({"behind": True} if action.behind else {}),
    }


def _row(action: Action) -> str:
    parent = f"v{action.parent}" if action.parent is not None and action.action in ("create", "revise") else ""
    told = next((note for note in action.notes if note.startswith(f"parent v{action.parent}")), "")
    if parent and told:
        how = told.removeprefix(f"parent v{action.parent}").removeprefix(":").strip().removeprefix("is ")
        parent = f"{parent} ({cell(how)})"
    change = _change_cell(action.changes[0]) if len(action.changes) == 1 else cell(action.reason)
    run = str(action.trials.run) if action.trials.run else ""
    reused = f"{action.trials.reused} reused" if action.trials.reused else ""
    trials = ", ".join(part for part in (run, reused) if part)
    name = code(line_name(action.job, action.line))
    symbol = SYMBOLS[action.action].replace("-", "\\-").replace("+", "\\+").replace("~", "\\~").replace(">", "&gt;")
    return f"| {symbol} | {name} | v{action.version} | {parent} | {change} | {trials} |"


def _change_cell(change: Change) -> str:
    old, new = change_values(change, 40)
    place = f" ({cell(change.origin)})" if change.origin else ""
    return f"{code(change.path)} {cell(old)}{' → ' if old else ''}{cell(new)}{place}"


def _details(action: Action) -> str:
    name = cell(line_name(action.job, action.line))
    items = [f"- {_change_cell(change)}" for change in action.changes[: 5 * LEAVES]]
    if len(action.changes) > len(items):
        items.append(f"- … and {len(action.changes) - len(items)} more")
    items += [f"- {cell(note)}" for note in action.notes]
    body = "\n".join(items)
    return f"<details><summary>{name} {_versions(action)}</summary>\n\n{body}\n\n</details>"


def _ledger(plan: Plan) -> str:
    return f" · ledger {code(short_id(plan.ledger))}" if plan.ledger else ""
