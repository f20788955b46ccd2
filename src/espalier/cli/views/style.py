"""How text looks: colour, width, what time it is, and columns. Never looks at a terminal: it is told."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}

STATE_COLOURS = {
    "running": "blue",
    "queued": "dim",
    "succeeded": "green",
    "reused": "green",
    "failed": "red",
    "lost": "red",
    "cancelled": "yellow",
}


class Style(NamedTuple):
    """What a view may use; ``now`` is RFC 3339 (empty: times are shown as they are recorded)."""

    colour: bool = False
    width: int = 100
    now: str = ""

    def paint(self, text: str, colour: str) -> str:
        """Return ``text`` in ``colour``; as it is where there are no colours."""
        return f"\033[{CODES[colour]}m{text}\033[0m" if self.colour and text and colour else text

    def state(self, name: str) -> str:
        """Return a state in its colour."""
        return self.paint(name, STATE_COLOURS.get(name, ""))


PLAIN = Style()


class Cell(NamedTuple):
    """A text and its colour: columns are as wide as the text."""

    text: str
    colour: str = ""


Row: TypeAlias = list[str | Cell]


def columns(rows: Sequence[Row], style: Style, *, header: Sequence[str] = (), last_cut: bool = True) -> list[str]:
    """Return the lines of a table whose columns are aligned; empty columns are left out.

    Only the last column is cut to the terminal's width: names stay whole.
    """
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    number = max((len(row) for row in cells), default=0)
    kept = [n for n in range(number) if any(n < len(row) and row[n].text for row in cells)]
    table = [[row[n] if n < len(row) else Cell("") for n in kept] for row in cells]
    if header and table:
        table.insert(0, [Cell(header[n], "dim") for n in kept])
    widths = [max(len(row[n].text) for row in table) for n in range(len(kept))]
    lines = []
    for row in table:
        parts, used = [], 0
        for n, cell in enumerate(row):
            last = n == len(row) - 1
            text = cell.text
            if last and last_cut and (room := style.width - used) < len(text) and room > 12:
                text = text[: room - 1] + "…"
            parts.append(style.paint(text, cell.colour) + ("" if last else " " * (widths[n] - len(text))))
            used += widths[n] + 2
        lines.append("  ".join(parts).rstrip())
    return lines
