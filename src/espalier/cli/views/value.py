"""Values as people read them: numbers short, ids 8 digits, times relative. Never lets a control character through."""

import json
from datetime import UTC, datetime

from espalier.core.model import Json

ID_SHOWN = 8  # people see 8 of the 12 digits of a trial, and of a commit's 40
NONE = "(none)"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-./:@+=%,*~$(){}")


def printable(text: str) -> str:
    """Return ``text`` with everything that could steer a terminal written as an escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def short_id(digits: str) -> str:
    """Return the first 8 digits of a trial's or commit's id."""
    return digits[:ID_SHOWN]


def metric(value: float) -> str:
    """Return a measured number with four significant digits; whole numbers up to a million whole."""
    if abs(value) < 1e6 and value == int(value):
        return str(int(value))
    return f"{value:.4g}"


def value(of: Json, limit: int = 60) -> str:
    """Return a configured value exactly, but for what is longer than ``limit``."""
    if of is None:
        return NONE
    if isinstance(of, str) and of and of[0] != " " and of[-1] != " " and set(of) <= _PLAIN and of != NONE:
        text = of
    else:
        text = printable(json.dumps(of, ensure_ascii=False))
    return cut(text, limit)


def cut(text: str, limit: int) -> str:
    """Return ``text``, its middle left out where it has more than ``limit`` characters."""
    if len(text) <= limit:
        return text
    if limit < 8:
        return text[: max(limit - 1, 0)] + "…"
    tail = (limit - 1) // 3
    return f"{text[: limit - 1 - tail]}…{text[-tail:]}"


def ago(then: str | None, now: str) -> str:
    """Return how long before ``now`` it was: ``5 min ago``; the time itself where either is missing or odd."""
    if not then:
        return ""
    if not now:
        return then
    try:
        seconds = (parse_time(now) - parse_time(then)).total_seconds()
    except ValueError:
        return printable(then)
    if seconds < -90:
        return then
    return "now" if seconds < 5 else f"{duration(seconds)} ago"


def lasted(start: str | None, end: str | None) -> str:
    """Return how long it took from ``start`` to ``end``; empty where either is missing."""
    if not start or not end:
        return ""
    try:
        return duration((parse_time(end) - parse_time(start)).total_seconds())
    except ValueError:
        return ""


def duration(seconds: float) -> str:
    """Return ``seconds`` in the largest unit that says enough."""
    seconds = max(seconds, 0.0)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{int(seconds)} s"
    if seconds < 90 * 60:
        return f"{int(seconds / 60)} min"
    if seconds < 48 * 3600:
        return f"{int(seconds / 3600)} h"
    return f"{int(seconds / 86400)} d"


def parse_time(text: str) -> datetime:
    """Return an RFC 3339 time; one without a zone is UTC. Raises ValueError."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def count(number: int, noun: str, plural: str = "") -> str:
    """Return ``1 trial`` or ``2 trials``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def _escape(char: str) -> str:
    code = ord(char)
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char) or (
        f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )
