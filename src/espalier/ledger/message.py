"""What a ledger commit says in ``git log``: a line for people, then trailers for programs. Never touches git."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from espalier.core.events import (
    CancelRequested,
    Created,
    CursorMoved,
    Event,
    Intended,
    Observed,
    Opened,
    Retired,
    Submitted,
    Tracked,
    Treated,
)
from espalier.core.names import version_name

SUBJECT_MAX = 100
LINES_MAX = 50
"""Versions that the text names one by one; the trailers name all."""

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def commit_message(events: Iterable[Event], kind: str, actor: str, tx: str) -> str:
    """Return the message of the commit that records ``events``; no foreign text can add a line to it."""
    told = list(events)
    stories = {at: story(of) for at, of in _by_version(told).items()}
    cursors = [event for event in told if isinstance(event, CursorMoved)]
    parts = [subject(stories, kind, cursors), ""]
    if len(stories) > 1:
        parts += [f"{version}: {text}" for version, text in list(stories.items())[:LINES_MAX]]
        parts += [f"and {len(stories) - LINES_MAX} more"] if len(stories) > LINES_MAX else []
        parts.append("")
    parts += ["[skip ci]", "", f"Espalier-Kind: {one_line(kind)}"]
    for version in stories:
        name, _, number = version.rpartition("@v")
        parts += [f"Espalier-Job: {one_line(name)}", f"Espalier-Version: {number}"]
    commits = [event.record.version.commit for event in told if isinstance(event, Created)]
    commits += [event.commit for event in cursors]
    parts += [f"Espalier-Source: {one_line(commit)}" for commit in dict.fromkeys(commits)]
    parts += [f"Espalier-Actor: {one_line(actor)}", f"Espalier-Tx: {tx}"]
    return "\n".join(parts) + "\n"


def subject(stories: dict[str, str], kind: str, cursors: Sequence[CursorMoved]) -> str:
    """Return the first line: what happened, to what."""
    if not stories:
        moved = ", ".join(f"{event.branch} at {event.commit[:12]}" for event in cursors)
        return _cut(one_line(f"cursor: {moved}" if moved else f"ledger {kind}"))
    if len(stories) == 1:
        version, text = next(iter(stories.items()))
        return _cut(one_line(f"{version}: {text}"))
    first, second = list(stories)[:2]
    more = f" and {len(stories) - 2} more" if len(stories) > 2 else ""
    return _cut(one_line(f"{kind}: {first}, {second}{more}"))


def story(events: Sequence[Event]) -> str:
    """Return in words what ``events`` say of one version."""
    parts: list[str] = []
    states: Counter[str] = Counter()
    submitted, shown, asked, intents = 0, 0, 0, 0
    for event in events:
        match event:
            case Created():
                trials = len(event.record.trials)
                parts.append(f"{event.record.version.reason or 'created'} ({trials} trial{'s' * (trials != 1)})")
            case Observed():
                states[event.state] += 1
            case Submitted():
                submitted += len(event.handles)
            case Tracked():
                shown += len(event.trials)
            case CancelRequested():
                asked += len(event.trials)
            case Intended():
                intents += len(event.intents)
            case Retired():
                parts.append("retired")
            case Treated():
                parts.append("policy as committed")
            case Opened() | CursorMoved():
                pass
    parts += [f"{count} {state}" for state, count in sorted(states.items())]
    counted = ((intents, "to send"), (submitted, "submitted"), (asked, "to cancel"), (shown, "shown in MLflow"))
    parts += [f"{count} {word}" for count, word in counted if count]
    return one_line(", ".join(parts) or "shown in MLflow")


def one_line(text: str) -> str:
    """Return ``text`` without line ends and other control characters."""
    return _UNSAFE.sub(" ", text).strip()


def _by_version(events: Iterable[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for event in events:
        if isinstance(event, CursorMoved):
            continue
        number = event.record.version.version if isinstance(event, Created) else event.version
        job, _, line = event.line.partition("+")
        found.setdefault(version_name(job, line or None, number), []).append(event)
    return found


def _cut(text: str) -> str:
    return text if len(text) <= SUBJECT_MAX else f"{text[: SUBJECT_MAX - 1]}…"
