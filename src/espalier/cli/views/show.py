"""One version whole: why it exists, what changed, its trials, its environment. Never another one's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from espalier.cli.views.plan import change_lines
from espalier.cli.views.record import name_of, spec_tree
from espalier.cli.views.style import PLAIN, STATE_COLOURS, Cell, Row, Style, columns
from espalier.cli.views.value import ago, cut, lasted, metric, printable, short_id, value
from espalier.cli.views.version import best, progress
from espalier.core.content import Change
from espalier.core.model import Trial, Version
from espalier.core.record import Record
from espalier.core.wire import trial_json, version_json

TRIALS = 60  # rows of the text; JSON has all
METRICS = 3  # metrics beside the objective in a row


@dataclass(frozen=True, slots=True)
class Whole:
    """A version with what stands beside it; ``parent`` is the base for a side line's first version.

    ``trial``: only this one is asked for. ``environment`` maps what differs from the parent's trials
    to (then, now).
    """

    record: Record
    parent: Version | None = None
    changes: tuple[Change, ...] = ()
    environment: Mapping[str, tuple[str | None, str | None]] | None = None
    trial: Trial | None = None
    description: str = ""


def show_text(whole: Whole, style: Style = PLAIN) -> str:
    """Return the page of a version, or of one of its trials."""
    version = whole.record.version
    title = name_of(version) + (f"/{short_id(whole.trial.id)}" if whole.trial else "")
    lines = [style.paint(title, "bold") + (f"  {printable(whole.description)}" if whole.description else "")]
    if whole.trial:
        return "\n".join([*lines, *_trial_lines(whole.trial, version, style)])
    lines += columns(_facts(version, whole.parent, style), style, last_cut=False)
    lines += _changes(whole, style)
    lines += _environment(whole, style)
    lines += ["", *_trials(whole.record, style)]
    return "\n".join(lines)


def show_json(whole: Whole) -> str:
    """Return the contract's JSON of ``show``; with a trial it alone is under ``trials``."""
    record = whole.record
    trials = [whole.trial] if whole.trial else list(record.trials)
    tree = {
        "format": 1,
        **version_json(record.version),
        "spec": {**spec_tree(record), "description": whole.description},
        "trials": [trial_json(trial) for trial in trials],
        "changes": [
            {"path": c.path, "old": c.old, "new": c.new, **({"origin": c.origin} if c.origin else {})}
            for c in whole.changes
        ],
        "environment_changes": [
            {"name": name, "old": then, "new": now} for name, (then, now) in sorted((whole.environment or {}).items())
        ],
    }
    return json.dumps(tree, ensure_ascii=False)


def environment_changes(then: Sequence[Trial], now: Sequence[Trial]) -> dict[str, tuple[str | None, str | None]]:
    """Return what differs between the environments of two versions' trials; empty where one has none recorded."""
    before, after = _recorded(then), _recorded(now)
    if not before or not after:
        return {}
    names = sorted(before.keys() | after.keys())
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def _recorded(trials: Sequence[Trial]) -> Mapping[str, str]:
    return next((trial.environment for trial in trials if trial.environment), {})


def _facts(version: Version, parent: Version | None, style: Style) -> list[Row]:
    marks = [*(["retired"] if version.retired else []), *([] if version.official else ["unofficial"])]
    failed = version.state == "failed"
    end = version.ended_at or ""
    rows: list[Row] = [
        ["  state", Cell(", ".join([version.state, *marks]), STATE_COLOURS[version.state])],
        ["  why", printable(version.reason)],
        ["  commit", f"{short_id(version.commit)}  {printable(version.subject)}"],
        ["  author", printable(version.author)],
        ["  applied by", f"{printable(version.actor)}, {ago(version.created_at, style.now)}"],
        ["  parent", _parent(version, parent)],
        ["  ended", f"{ago(end, style.now)}, after {lasted(version.created_at, end)}" if end else ""],
        ["  failed", f"exit code {version.exit_code}" if failed and version.exit_code is not None else ""],
        ["  message", printable(version.message or "") if failed else ""],
        ["  trials", progress(version)],
        ["  best", best(version)],
        ["  backend", printable(version.backend)],
        ["  run", printable(version.run_id or "")],
        ["  digest", short_id(version.digest)],
    ]
    return [row for row in rows if _text(row[1])]


def _text(of: str | Cell) -> str:
    return of.text if isinstance(of, Cell) else of


def _parent(version: Version, parent: Version | None) -> str:
    if parent is None:
        return f"v{version.parent}" if version.parent else version.base or ""
    result = f", {best(parent)}" if parent.best else ""
    name = f"v{parent.version}" if version.parent else f"base {name_of(parent)}"
    return f"{name} ({parent.state}{result})"


def _changes(whole: Whole, style: Style) -> list[str]:
    if whole.parent is None:
        return []
    if not whole.changes:
        return ["", "  same spec as its parent"]
    name = name_of(whole.parent)
    return ["", f"  changed since {name}", *(f"    {line}" for line in change_lines(whole.changes, style))]


def _environment(whole: Whole, style: Style) -> list[str]:
    if not whole.environment:
        return []
    rows: list[Row] = [
        [f"    {printable(name)}", f"{printable(then or '(none)')} → {printable(now or '(none)')}"]
        for name, (then, now) in whole.environment.items()
    ]
    return ["", "  environment differs from the parent's", *columns(rows, style)]


def _trials(record: Record, style: Style) -> list[str]:
    objective = record.version.objective
    swept = swept_names(record)
    rows: list[Row] = [
        [
            Cell(f"  {short_id(trial.id)}", "bold"),
            Cell(trial.state, STATE_COLOURS[trial.state]),
            _attempt(trial),
            lasted(trial.started_at, trial.ended_at),
            *(value(trial.params.get(name), 24) for name in swept),
            _metrics(trial, objective.metric if objective else None),
            _said(trial),
        ]
        for trial in record.trials[:TRIALS]
    ]
    header = ("  TRIAL", "STATE", "TRY", "TOOK", *(printable(name) for name in swept), "METRICS", "")
    more = (
        [f"  … and {len(record.trials) - TRIALS} more (--format json has all)"] if len(record.trials) > TRIALS else []
    )
    return columns(rows, style, header=header) + more


def swept_names(record: Record) -> list[str]:
    """Return the names of the parameters in which the trials differ, those of the sweep first."""
    if len(record.trials) < 2:
        return []
    sweep = record.spec.sweep
    listed = list(sweep.params) if sweep else []
    names = [*listed, *sorted({name for trial in record.trials for name in trial.params} - set(listed))]
    return [name for name in names if len({repr(trial.params.get(name)) for trial in record.trials}) > 1]


def _trial_lines(trial: Trial, version: Version, style: Style) -> list[str]:
    end = f"{ago(trial.ended_at, style.now)}, after {lasted(trial.started_at, trial.ended_at)}"
    facts: list[Row] = [
        ["  state", Cell(trial.state, STATE_COLOURS[trial.state])],
        ["  attempt", str(trial.attempt) if trial.attempt else ""],
        ["  exit code", "" if trial.exit_code is None else str(trial.exit_code)],
        ["  message", printable(trial.message or "")],
        ["  started", ago(trial.started_at, style.now)],
        ["  ended", end if trial.ended_at else ""],
        ["  taken from", trial.reused_from or ""],
        ["  waits for", trial.waits_for or ""],
        ["  backend", printable(version.backend)],
        ["  handle", printable(trial.handle or "")],
        ["  place", printable(trial.place or "")],
        ["  run", printable(trial.run_id or "")],
    ]
    lines = columns([row for row in facts if _text(row[1])], style, last_cut=False)
    for title, entries in (
        ("params", {name: value(of) for name, of in trial.params.items()}),
        ("metrics", {name: metric(of) for name, of in sorted(trial.metrics.items())}),
        ("environment", {name: printable(of) for name, of in sorted(trial.environment.items())}),
    ):
        if entries:
            lines += ["", f"  {title}", *columns([[f"    {printable(n)}", of] for n, of in entries.items()], style)]
    return lines


def _attempt(trial: Trial) -> str:
    return str(trial.attempt) if trial.attempt > 1 else ""


def _metrics(trial: Trial, objective: str | None) -> str:
    names = [*([objective] if objective in trial.metrics else []), *sorted(trial.metrics.keys() - {objective})]
    shown = [f"{printable(str(name))} {metric(trial.metrics[str(name)])}" for name in names[:METRICS]]
    return ", ".join(shown) + (", …" if len(names) > METRICS else "")


def _said(trial: Trial) -> str:
    if trial.state == "reused":
        return f"from {trial.reused_from}"
    if trial.waits_for and trial.state == "queued":
        return f"waits for {trial.waits_for}"
    code = f"exit code {trial.exit_code}" if trial.exit_code else ""
    text = ", ".join(part for part in (code, printable(trial.message or "")) if part)
    return cut(text, 100) if trial.state in ("failed", "lost", "cancelled") else ""
