"""Versions as rows: status, history, what a command touched. Never looks inside one."""

import json
from collections.abc import Sequence

from espalier.cli.views.record import name_of
from espalier.cli.views.style import PLAIN, STATE_COLOURS, Cell, Row, Style, columns
from espalier.cli.views.value import ago, count, duration, metric, parse_time, printable, short_id
from espalier.core.model import Version
from espalier.core.wire import version_json


def status_text(versions: Sequence[Version], style: Style = PLAIN) -> str:
    """Return a row for each line's last version, side lines below their job; then what is still open."""
    rows: list[Row] = []
    for version in sorted_lines(versions):
        name = f"  +{version.line}" if version.line else version.job
        rows.append(
            [
                Cell(name, "" if version.line else "bold"),
                f"v{version.version}",
                _state(version),
                progress(version),
                best(version),
                ago(version.ended_at or version.created_at, style.now),
                _why(version),
            ]
        )
    header = ("JOB", "VERSION", "STATE", "TRIALS", "BEST", "WHEN", "")
    return "\n".join(columns(rows, style, header=header)) if rows else "no versions yet"


def status_json(versions: Sequence[Version]) -> str:
    """Return the contract's JSON of ``status``."""
    return json.dumps({"format": 1, "jobs": [version_json(v) for v in sorted_lines(versions)]}, ensure_ascii=False)


def history_text(job: str, versions: Sequence[Version], style: Style = PLAIN) -> str:
    """Return a row for each version, newest first, with why it was made."""
    rows: list[Row] = []
    for version in newest_first(versions):
        name = f"{'+' + version.line + ' ' if version.line else ''}v{version.version}"
        rows.append(
            [
                Cell(name, "bold"),
                _state(version),
                progress(version),
                best(version),
                ago(version.created_at, style.now),
                took(version),
                Cell(short_id(version.commit), "cyan"),
                printable(f"{version.reason} · {version.subject} ({version.author.partition(' <')[0]})"),
            ]
        )
    header = ("VERSION", "STATE", "TRIALS", "BEST", "MADE", "TOOK", "COMMIT", "WHY")
    return "\n".join([style.paint(job, "bold"), *columns(rows, style, header=header)])


def history_json(job: str, versions: Sequence[Version]) -> str:
    """Return the contract's JSON of ``history``."""
    tree = {"format": 1, "job": job, "versions": [version_json(version) for version in newest_first(versions)]}
    return json.dumps(tree, ensure_ascii=False)


def touched_text(versions: Sequence[Version], style: Style = PLAIN) -> str:
    """Return a row for each version that a command touched; empty without any."""
    rows: list[Row] = [
        [Cell(name_of(v), "bold"), _state(v), progress(v), best(v), took(v), _why(v)] for v in sorted_lines(versions)
    ]
    return "\n".join(columns(rows, style))


def touched_json(versions: Sequence[Version]) -> str:
    """Return the contract's JSON of apply, follow, cancel and retry."""
    return json.dumps({"format": 1, "versions": [version_json(v) for v in sorted_lines(versions)]}, ensure_ascii=False)


def sorted_lines(versions: Sequence[Version]) -> list[Version]:
    """Return ``versions`` by job, the main line first, then by number."""
    return sorted(versions, key=lambda v: (v.job, v.line or "", v.version))


def newest_first(versions: Sequence[Version]) -> list[Version]:
    """Return ``versions`` by the time they were made, the last one first."""
    return sorted(versions, key=lambda v: (v.created_at, v.line is None, v.line or "", v.version), reverse=True)


def progress(version: Version) -> str:
    """Return how many trials have ended of how many, and what is worth a word."""
    counts = version.counts
    ended = counts.total - counts.queued - counts.running
    parts = [f"{counts.running} running"] if counts.running else []
    parts += [f"{counts.failed} failed"] if counts.failed and counts.total > 1 else []
    parts += [f"{counts.lost} lost"] if counts.lost and counts.total > 1 else []
    parts += [f"{counts.cancelled} cancelled"] if counts.cancelled and counts.total > 1 else []
    parts += [f"{counts.reused} reused"] if counts.reused else []
    return f"{ended}/{counts.total}" + (f" ({', '.join(parts)})" if parts else "")


def best(version: Version) -> str:
    """Return the best value so far, and its trial where there are several."""
    if version.best is None:
        return ""
    trial = f" ({short_id(version.best.trial)})" if version.counts.total > 1 else ""
    return f"{printable(version.best.metric)} {metric(version.best.value)}{trial}"


def took(version: Version) -> str:
    """Return how long it took from being made to its end; empty while it runs."""
    if not version.ended_at:
        return ""
    try:
        return duration((parse_time(version.ended_at) - parse_time(version.created_at)).total_seconds())
    except ValueError:
        return ""


def open_line(versions: Sequence[Version]) -> str:
    """Return one line on what is unfinished or failed; empty when all is well."""
    running = sum(v.state == "running" for v in versions)
    failed = sum(v.state == "failed" and not v.retired for v in versions)
    parts = [f"{count(running, 'version')} running"] if running else []
    parts += [f"{count(failed, 'version')} failed"] if failed else []
    return ", ".join(parts)


def _state(version: Version) -> Cell:
    marks = [version.state, *(["retired"] if version.retired else []), *([] if version.official else ["unofficial"])]
    colour = "dim" if version.retired and version.state != "running" else STATE_COLOURS.get(version.state, "")
    return Cell(", ".join(marks), colour)


def _why(version: Version) -> str:
    if version.state != "failed":
        return ""
    code = f"exit code {version.exit_code}" if version.exit_code is not None else ""
    return printable(", ".join(part for part in (code, version.message or "") if part))
