"""A stream without the values of secrets, also where one is cut between two writes. Standard library only."""

from __future__ import annotations

import re

MASK = b"***"
SHORTEST = 4  # shorter values would blank out ordinary words


class Masking:
    """Takes a stream piece by piece and gives it back masked; keeps back what may be the start of a secret."""

    def __init__(self, values: list[bytes]) -> None:
        self._values = sorted({value for value in values if len(value) >= SHORTEST}, key=len, reverse=True)
        self._find = re.compile(b"|".join(re.escape(value) for value in self._values)) if self._values else None
        self._kept = b""

    def add(self, piece: bytes, final: bool = False) -> bytes:
        """Return what can be shown after ``piece``; ``final``: nothing follows."""
        if self._find is None:
            return piece
        text = self._kept + piece
        out: list[bytes] = []
        at = 0
        while True:
            match = self._find.search(text, at)
            held = len(text) if final else self._held(text, at)
            if match and match.start() < held:
                out += [text[at : match.start()], MASK]
                at = match.end()
                continue
            out.append(text[at:held])
            self._kept = text[held:]
            return b"".join(out)

    def _held(self, text: bytes, at: int) -> int:
        """Return where the first possible start of an unfinished secret is; the text's length when there is none."""
        longest = len(self._values[0])
        for start in range(max(at, len(text) - longest + 1), len(text)):
            rest = text[start:]
            if any(len(value) > len(rest) and value.startswith(rest) for value in self._values):
                return start
        return len(text)
