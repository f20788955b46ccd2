"""What a program writes into metrics.jsonl and metrics.json, as lines of one form. Never talks to a tracker.

Each line of the spool is ``{"key", "value", "step", "timestamp"}``: the timestamp in milliseconds, fixed when
the value was first seen; what JSON has no number for is the string ``NaN``, ``Infinity`` or ``-Infinity``.
Standard library only; runs on Python 3.7.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections import Counter

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself is slow to import
    from collections.abc import Callable, Iterator
    from typing import Any

LINES = "metrics.jsonl"
OBJECT = "metrics.json"
LINE_MAX = 1 << 20
_CHUNK = 1 << 20
_TAIL = 64  # bytes before the place read up to, by which a rewritten file is noticed
_ODD = ("NaN", "Infinity", "-Infinity")


class Metrics:
    """The metrics of one attempt: ``read`` appends what is new to the spool, ``notes`` says what was left out."""

    def __init__(self, output: str, spool: str, clock: Callable[[], float] = time.time) -> None:
        self._lines = os.path.join(output, LINES)
        self._object = os.path.join(output, OBJECT)
        self._spool = spool
        self._clock = clock
        self.notes: list[str] = []
        self._noted: set[str] = set()
        self._file = 0  # inode
        self._at = 0
        self._tail = b""
        self._number = 0
        self._long = False  # inside a line that is too long
        self._objects = 0
        self._object_seen: tuple[int, int, int] | None = None
        self._object_text = b""
        self._known: Counter[tuple[str, str, int]] = self._spooled()

    def read(self, final: bool = False) -> None:
        """Append what is new; ``final``: a last line without its end counts as well."""
        found: list[dict[str, Any]] = []
        found += self._read_lines(final)
        found += self._read_object(final)
        fresh = [entry for entry in found if not self._is_known(entry)]
        if fresh:
            text = "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in fresh)
            fd = os.open(self._spool, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                rest = memoryview(text.encode())
                while rest:
                    rest = rest[os.write(fd, rest) :]
            finally:
                os.close(fd)

    def _read_lines(self, final: bool) -> Iterator[dict[str, Any]]:
        fd = _open(self._lines)
        if fd is None:
            return
        try:
            state = os.fstat(fd)
            tail = os.pread(fd, len(self._tail), self._at - len(self._tail))
            if (self._file and state.st_ino != self._file) or state.st_size < self._at or tail != self._tail:
                self._at, self._number, self._tail, self._long = 0, 0, b"", False
                self._known = self._spooled()  # the file was written anew: what it repeats is not new
            self._file = state.st_ino
            rest = b""
            while True:
                part = os.pread(fd, _CHUNK, self._at + len(rest))
                whole = (rest + part).split(b"\n")
                rest = whole.pop()
                for line in whole:
                    self._pass(line + b"\n")
                    if self._long:
                        self._long = False
                        self._number += 1
                    else:
                        yield from self._parse(line)
                if len(rest) > LINE_MAX:
                    self._note("long", f"{LINES}: a line of more than {LINE_MAX} bytes is left out")
                    self._long = True
                if self._long:
                    self._pass(rest)
                    rest = b""
                if not part:
                    break
            if final and rest:
                self._pass(rest)
                yield from self._parse(rest)
        finally:
            os.close(fd)

    def _pass(self, text: bytes) -> None:
        self._at += len(text)
        self._tail = (self._tail + text)[-_TAIL:]

    def _parse(self, line: bytes) -> Iterator[dict[str, Any]]:
        number = self._number
        self._number += 1
        if not line.strip():
            return
        try:
            values = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            self._note("json", f"{LINES}: line {number + 1} is not a JSON object")
            return
        yield from self._entries(values, number, LINES)

    def _read_object(self, final: bool) -> Iterator[dict[str, Any]]:
        fd = _open(self._object)
        if fd is None:
            return
        try:
            state = os.fstat(fd)
            now = (state.st_ino, state.st_size, state.st_mtime_ns)
            if (now == self._object_seen and not final) or state.st_size > LINE_MAX:
                return
            text = os.pread(fd, LINE_MAX, 0)
        finally:
            os.close(fd)
        if text == self._object_text:
            return
        try:
            values = json.loads(text.decode("utf-8"))
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            if final:
                self._note("object", f"{OBJECT} is not a JSON object")
            return  # being written
        self._object_seen, self._object_text = now, text
        number = self._objects
        self._objects += 1
        yield from self._entries(values, number, OBJECT)

    def _entries(self, values: dict[str, Any], number: int, where: str) -> Iterator[dict[str, Any]]:
        step, when = values.pop("step", None), values.pop("time", None)
        if step is None or not _is_number(step) or step != int(step):
            if step is not None:
                self._note("step", f"{where}: step is not a whole number, the line's number stands for it")
            step = number
        if when is None or not _is_number(when):
            when = self._clock()
        for name, value in _flat(values, ""):
            shown = _shown(value)
            if shown is None:
                if value is not None:
                    self._note("value " + name, f"{where}: {name} is not a number and is left out")
                continue
            yield {"key": name, "value": shown, "step": int(step), "timestamp": int(when * 1000)}

    def _note(self, about: str, text: str) -> None:
        if about not in self._noted and len(self._noted) < 100:
            self._noted.add(about)
            self.notes.append(text)

    def _is_known(self, entry: dict[str, Any]) -> bool:
        one = (entry["key"], json.dumps(entry["value"]), entry["step"])
        if self._known.get(one, 0) > 0:
            self._known[one] -= 1
            return True
        return False

    def _spooled(self) -> Counter[tuple[str, str, int]]:
        known: Counter[tuple[str, str, int]] = Counter()
        try:
            with open(self._spool, encoding="utf-8") as lines:
                for line in lines:
                    entry = json.loads(line)
                    known[(entry["key"], json.dumps(entry["value"]), entry["step"])] += 1
        except (OSError, ValueError, KeyError):
            pass
        return known


def _open(path: str) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def _flat(values: dict[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, above + name + ".")
        else:
            yield above + name, value


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return abs(float(value)) < float("inf")
    except OverflowError:
        return False


def _shown(value: Any) -> Any:
    """Return ``value`` as the spool holds it, None when it is no number."""
    if isinstance(value, str):
        return value if value in _ODD else None
    if _is_number(value):
        return value
    if isinstance(value, float):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return None
