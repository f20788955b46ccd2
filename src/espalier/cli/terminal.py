"""The terminal: whether there is one, its width and colours, talk on stderr, a live table. Never a result."""

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TextIO

from espalier.cli.views.style import Style


class Terminal:
    """One stream: a terminal that may be redrawn, or a file or pipe that gets lines."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self.is_tty = self._stream.isatty()
        self.dumb = os.environ.get("TERM", "") == "dumb"
        self.colour = self.is_tty and not self.dumb and not os.environ.get("NO_COLOR")
        self._drawn = 0

    @property
    def style(self) -> Style:
        """How a view should look here, now. In a file or pipe lines are not cut."""
        size = _size() if self.is_tty else None
        return Style(self.colour, max(size.columns, 40) if size else 10_000, utc_now())

    def say(self, text: str) -> None:
        """Write a line of talk below what was drawn."""
        self.leave()
        self._write(text + "\n")

    def next(self, text: str) -> None:
        """Write the one line that says what to do next."""
        self.say(f"{self.style.paint('next:', 'cyan')} {text}")

    def draw(self, lines: Sequence[str]) -> None:
        """Show ``lines`` in the place of those drawn before; what has no room is left out at the top."""
        height = max(_size().lines - 1, 3)
        if len(lines) > height:
            lines = [f"… {len(lines) - height + 1} lines above", *lines[-(height - 1) :]]
        up = f"\033[{self._drawn}A\r" if self._drawn else ""
        # no wrapping while drawing: a line that is too long would move what is counted
        self._write(f"{up}\033[J\033[?7l" + "".join(f"{line}\n" for line in lines) + "\033[?7h")
        self._drawn = len(lines)

    def clear(self) -> None:
        """Take away what was drawn."""
        if self._drawn:
            self._write(f"\033[{self._drawn}A\r\033[J")
        self._drawn = 0

    def leave(self) -> None:
        """Let what was drawn stand."""
        self._drawn = 0

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (BrokenPipeError, ValueError):  # talk that nobody hears any more is no failure of the work
            self._stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _size() -> os.terminal_size:
    import shutil  # brings every kind of compression, which a pipe never needs

    return shutil.get_terminal_size((100, 40))


def out() -> Terminal:
    """The stream of results."""
    return Terminal(sys.stdout)


def result(text: str) -> None:
    """Write a result to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def utc_now() -> str:
    """Return the time in RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
