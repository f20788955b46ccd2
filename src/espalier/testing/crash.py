"""kill -9 at a named point: before or after a call of a port. The product has no hook for it."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from espalier.core.ports import World

PORTS = ("ledger", "tracker", "backend")
EFFECTS = ("append", "found", "open", "log", "close", "submit", "cancel")
"""Methods that change the world; a death around any other loses nothing."""


@dataclass(frozen=True, slots=True)
class Point:
    """The ``nth`` call (from 1) of a port's method, before or after it: ``ledger.append:after:2``."""

    port: str
    method: str
    moment: str
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.port}.{self.method}:{self.moment}:{self.nth}"


def parse_point(text: str) -> Point:
    """Return the point that ``text`` names."""
    call, moment, nth = text.split(":")
    port, method = call.split(".")
    return Point(port, method, moment, int(nth))


def kill_at(world: World, point: Point | None, journal: Path | None = None) -> World:
    """Return ``world`` that SIGKILLs this process at ``point``; every effect is noted in ``journal``."""
    ledger, tracker = (
        _Watched(world.ledger, "ledger", point, journal),
        _Watched(world.tracker, "tracker", point, journal),
    )
    watched: dict[str, _Watched] = {}

    def backends(kind: str) -> Any:
        if kind not in watched:
            watched[kind] = _Watched(world.backends(kind), "backend", point, journal)
        return watched[kind]

    return replace(world, ledger=ledger, tracker=tracker, backends=backends)


def points_of(journal: Path) -> list[Point]:
    """Return the points before and after each effect that ``journal`` saw."""
    counts: dict[str, int] = {}
    points = []
    for call in journal.read_text("utf-8").split():
        counts[call] = counts.get(call, 0) + 1
        port, method = call.split(".")
        points += [Point(port, method, moment, counts[call]) for moment in ("before", "after")]
    return points


class _Watched:
    """A port whose effects are counted, noted and, at the point, survived by nobody."""

    def __init__(self, port: object, name: str, point: Point | None, journal: Path | None) -> None:
        self._port, self._name, self._point, self._journal = port, name, point, journal
        self._calls: dict[str, int] = {}

    def __getattr__(self, method: str) -> Any:
        real = getattr(self._port, method)
        return self._call(real, method) if method in EFFECTS else real

    def _call(self, real: Callable[..., Any], method: str) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            self._calls[method] = self._calls.get(method, 0) + 1
            if self._journal:
                with self._journal.open("a", encoding="utf-8") as lines:
                    lines.write(f"{self._name}.{method}\n")
            self._die(method, "before")
            result = real(*args, **named)
            self._die(method, "after")
            return result

        return call

    def _die(self, method: str, moment: str) -> None:
        if self._point == Point(self._name, method, moment, self._calls[method]):
            os.kill(os.getpid(), signal.SIGKILL)
