"""Markdown that nobody's config can break: escaping, and a page within a host's limit."""

import re

from espalier.cli.views.value import printable

LIMIT = 60_000  # GitHub cuts a comment at 65,536 characters
RESERVE = 1_000  # for what is always said: how much was left out, and the footer

_ESCAPED = re.compile(r"[\\`*_{}\[\]()#+!|<>~$]")
_AUTOLINK = re.compile(r"(?i)(https?|ftp)(://)|(www)(\.)")


def cell(text: str) -> str:
    """Return ``text`` as plain text of a table cell or list entry: no markup, link, image, mention or HTML."""
    safe = printable(text).replace("&", "&amp;")
    safe = _ESCAPED.sub(lambda match: f"&#{ord(match[0])};" if match[0] in "<>|`@" else f"\\{match[0]}", safe)
    safe = safe.replace("@", "@\u2060")  # a word joiner: nobody is notified
    return _AUTOLINK.sub(lambda m: f"{m[1] or m[3]}\u2060{m[2] or m[4]}", safe)


def code(text: str) -> str:
    """Return ``text`` as code in a line; as escaped text where it holds a backtick or a pipe."""
    shown = printable(text)
    return cell(text) if "`" in shown or "|" in shown or not shown else f"`{shown}`"


class Budget:
    """A page that never exceeds the limit: parts go in whole or are counted as left out."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit - RESERVE
        self._parts: list[str] = []
        self._used = 0
        self._left: dict[str, int] = {}

    def add(self, part: str, kind: str = "part", *, always: bool = False) -> None:
        """Put ``part`` on the page if there is room; once one of its kind was left out, all after it are."""
        size = len(part) + 1
        if not always and (kind in self._left or self._used + size > self._limit):
            self._left[kind] = self._left.get(kind, 0) + 1
            return
        if always and self._left:
            said = ", ".join(f"{number} {kind}{'s' if number > 1 else ''}" for kind, number in self._left.items())
            self._parts.append(f"\nLeft out for length: {said}; the saved plan has all.")
        self._parts.append(part)
        self._used += size

    def text(self) -> str:
        """Return the page."""
        return "\n".join(self._parts)
