"""The world of the engine's tests: everything in memory, and a hand on each part."""

from collections.abc import Callable
from pathlib import Path

from espalier.core.model import Job, JobError
from espalier.core.ports import Launch, World
from espalier.core.record import Record, Snapshot
from espalier.engine.apply import Applied, Options, apply_plan, plan_at
from espalier.engine.follow import follow
from espalier.testing.fakes import Ending, FakeBackend, by_command
from espalier.testing.memory import MemoryTracker
from espalier.testing.memory_ledger import MemoryLedger
from espalier.testing.world import FixedClock, MemorySource, world_of
from tests.builders import declared


class Bench:
    """A source, a ledger, a backend, a tracker and a clock; trials run to their end while anybody sleeps."""

    def __init__(self, folder: Path | None = None, ending: Callable[[Launch], Ending] = by_command) -> None:
        self.source = MemorySource()
        self.ledger = MemoryLedger("digits")
        self.backend = FakeBackend(folder=folder, ending=ending)
        self.tracker = MemoryTracker()
        self.clock = FixedClock(asleep=self.backend.run)
        self.environ: dict[str, str] = {}

    @property
    def world(self) -> World:
        return world_of(self.source, self.ledger, self.backend, self.tracker, self.clock, self.environ)

    def commit(self, *jobs: Job, errors: tuple[JobError, ...] = ()) -> None:
        self.source.commit(declared(*jobs, errors=errors))

    def apply(self, rev: str = "HEAD", **options: object) -> Applied:
        given = Options(**options)  # type: ignore[arg-type]
        found, plan, snapshot = plan_at(self.world, rev, given.globs)
        return apply_plan(self.world, found, plan, snapshot, given)

    def follow(self) -> Snapshot:
        """Follow until all is final."""
        heads = self.ledger.read().heads
        return follow(self.world, [(name, n) for name, head in heads.items() for n in (*head.open, head.version)])

    def finish(self, *jobs: Job, **options: object) -> Snapshot:
        """Commit, apply and follow."""
        self.commit(*jobs)
        self.apply(**options)
        return self.follow()

    def actions(self) -> list[str]:
        _, plan, _ = plan_at(self.world, "HEAD")
        return [action.action for action in plan.actions]

    def last(self, name: str = "digits/mlp") -> Record:
        return self.ledger.read([name]).lines[name].last
