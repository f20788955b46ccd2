"""Two versions side by side: specs and results. Never says which is better."""

import json
from dataclasses import dataclass

from espalier.cli.views.plan import change_lines
from espalier.cli.views.record import name_of
from espalier.cli.views.style import PLAIN, STATE_COLOURS, Cell, Row, Style, columns
from espalier.cli.views.version import best, progress, took
from espalier.core.content import Change
from espalier.core.model import Version
from espalier.core.wire import version_json


@dataclass(frozen=True, slots=True)
class Pair:
    """Two versions as they were named, and which of them ``changes`` lead from and to."""

    a: Version
    b: Version
    old: Version
    new: Version
    changes: tuple[Change, ...]


def in_time(one: Version, other: Version) -> tuple[Version, Version]:
    """Return the two, the one that was made first first: a difference is read forward in time."""
    if (one.job, one.line) == (other.job, other.line):
        return (one, other) if one.version <= other.version else (other, one)
    return (one, other) if one.created_at <= other.created_at else (other, one)


def diff_text(pair: Pair, style: Style = PLAIN) -> str:
    """Return the leaves that differ, then the results of both."""
    old, new = name_of(pair.old), name_of(pair.new)
    lines = [style.paint(f"{old} → {new}", "bold")]
    lines += [f"  {line}" for line in change_lines(pair.changes, style)] or ["  same spec"]
    rows: list[Row] = [
        [Cell(f"  {name_of(v)}", "bold"), Cell(v.state, STATE_COLOURS[v.state]), progress(v), best(v), took(v)]
        for v in (pair.old, pair.new)
    ]
    return "\n".join([*lines, "", *columns(rows, style)])


def diff_json(pair: Pair) -> str:
    """Return the contract's JSON of ``diff``; the changes lead from ``old`` to ``new``."""
    tree = {
        "format": 1,
        "a": name_of(pair.a),
        "b": name_of(pair.b),
        "changes": [{"path": change.path, "old": change.old, "new": change.new} for change in pair.changes],
        "old": name_of(pair.old),
        "new": name_of(pair.new),
        "results": {name_of(version): version_json(version) for version in (pair.a, pair.b)},
    }
    return json.dumps(tree, ensure_ascii=False)
