"""A Backend in memory, held to the same contract as the real ones. Never starts a process.

Time passes by hand: ``start``, ``finish`` and ``lose`` move one trial, ``run`` moves all of them to the end that
their command says. ``launches`` has what was submitted, ``cancelled`` the wishes.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from espalier.core.errors import RejectedError, UnavailableError
from espalier.core.model import FINAL, Json
from espalier.core.ports import Answer, Launch, Report


@dataclass(frozen=True, slots=True)
class Ending:
    """How a fake program ends; ``metrics`` are its last values."""

    state: Answer = "succeeded"
    exit_code: int | None = 0
    message: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


def by_command(launch: Launch) -> Ending:
    """Return how a launch ends: with the number in a ``sys.exit(N)`` of its command, else well."""
    text = " ".join(launch.program.command)
    if "sys.exit(" not in text:
        return Ending()
    code = int(text.rpartition("sys.exit(")[2].partition(")")[0])
    return Ending("failed" if code else "succeeded", code)


class FakeBackend:
    """Trials in a dictionary; ``down`` makes every call fail, ``refuses`` a submit for good.

    ``folder`` is where metrics files are written; without it there are none. ``ending`` says how programs end.
    """

    def __init__(
        self, place: str = "fake", folder: Path | None = None, ending: Callable[[Launch], Ending] = by_command
    ) -> None:
        self.place = place
        self.down = False
        self.refuses: str | None = None
        self.launches: dict[str, Launch] = {}
        self.cancelled: list[str] = []
        self.asked = 0
        self._folder = folder
        self._ending = ending
        self._reports: dict[str, Report] = {}
        self._logs: dict[str, list[str]] = {}
        self._moments = 0

    def submit(self, key: str, launch: Launch) -> str:
        self._reach()
        if key not in self.launches:
            if self.refuses:
                raise RejectedError(self.refuses, hint="ask for less")
            self.launches[key] = launch
            self._reports[key] = Report("queued")
            self._logs[key] = []
        return key

    def status(self, handles: Collection[str]) -> Mapping[str, Report]:
        self._reach()
        self.asked += 1
        return {handle: self._reports.get(handle, Report("unknown")) for handle in handles}

    def cancel(self, handle: str) -> None:
        self._reach()
        self.cancelled.append(handle)
        if self._is_open(handle):
            self._move(handle, replace(self._reports[handle], state="cancelled", ended_at=self._now()))

    def logs(self, handle: str) -> Iterator[str]:
        self._reach()
        yield from list(self._logs.get(handle, ()))

    def find(self, keys: Collection[str]) -> Mapping[str, Sequence[str]]:
        self._reach()
        return {key: [key] for key in keys if key in self.launches}

    # The world's side

    def start(self, key: str) -> None:
        """The program of a queued trial starts."""
        if self._reports[key].state == "queued":
            self._logs[key].append("started")
            self._move(key, Report("running", started_at=self._now()))

    def finish(self, key: str, ending: Ending | None = None) -> None:
        """The program of an unfinished trial ends."""
        if not self._is_open(key):
            return
        self.start(key)
        end = ending or self._ending(self.launches[key])
        report = replace(self._reports[key], state=end.state, exit_code=end.exit_code, message=end.message)
        self._move(key, replace(report, ended_at=self._now(), metrics=self._metrics(key, end.metrics)))

    def lose(self, key: str) -> None:
        """The place lost an unfinished trial."""
        self.finish(key, Ending("lost", None, "its machine is gone"))

    def forget(self, key: str) -> None:
        """The place knows nothing of a trial any more."""
        del self.launches[key], self._reports[key], self._logs[key]

    def run(self) -> None:
        """Every unfinished trial runs to its end."""
        for key in list(self.launches):
            self.finish(key)

    def _is_open(self, key: str) -> bool:
        return key in self._reports and self._reports[key].state not in FINAL

    def _move(self, key: str, report: Report) -> None:
        self._reports[key] = report

    def _metrics(self, key: str, values: Mapping[str, float]) -> str | None:
        if not values or self._folder is None:
            return None
        entries: list[dict[str, Json]] = [
            {"key": name, "value": value, "step": 0, "timestamp": 1000 * self._moments}
            for name, value in values.items()
        ]
        path = self._folder / f"{key}.jsonl"
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), "utf-8")
        return str(path)

    def _now(self) -> str:
        self._moments += 1
        minutes, seconds = divmod(self._moments, 60)
        return f"2026-01-01T00:{minutes % 60:02d}:{seconds:02d}.000Z"

    def _reach(self) -> None:
        if self.down:
            raise UnavailableError("the fake backend is down", hint="try again")
