"""A whole World in memory: commits, clock and ports made by hand. Never touches the machine."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from espalier.core.errors import InputError
from espalier.core.model import Commit, Declared, Settings
from espalier.core.plan import matches
from espalier.core.ports import Backend, Ledger, Tracker, World


@dataclass
class FixedClock:
    """Time that passes only in ``sleep``, which then calls ``asleep``: what the world does meanwhile."""

    moment: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    asleep: Callable[[], None] = lambda: None

    def now(self) -> str:
        return self.after(0)

    def after(self, seconds: float) -> str:
        return (self.moment + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def monotonic(self) -> float:
        return self.moment.timestamp()

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)
        self.asleep()


@dataclass
class MemorySource:
    """Commits in the order in which they were made; the last one is HEAD."""

    commits: dict[str, Declared] = field(default_factory=dict)

    def commit(self, declared: Declared) -> Commit:
        """Make ``declared`` the next commit and return it."""
        made = replace(declared.commit, id=f"{len(self.commits) + 1:040x}")
        self.commits[made.id] = replace(declared, commit=made)
        return made

    def resolve(self, rev: str) -> Commit:
        ids = list(self.commits)
        found = ids[-1] if rev == "HEAD" and ids else rev
        if found not in self.commits:
            raise InputError(f"{rev!r} names no commit", hint="make one")
        return self.commits[found].commit

    def specs(self, commit: Commit, globs: Collection[str] = ()) -> Declared:
        whole = self.commits[commit.id]
        return replace(whole, jobs=tuple(job for job in whole.jobs if matches(job.name, globs)))

    def settings(self, commit: Commit) -> Settings:
        return self.commits[commit.id].settings

    def contains(self, descendant: str, ancestor: str) -> bool:
        ids = list(self.commits)
        return ancestor in ids and descendant in ids and ids.index(ancestor) <= ids.index(descendant)


def world_of(
    source: MemorySource,
    ledger: Ledger,
    backend: Backend,
    tracker: Tracker,
    clock: FixedClock,
    environ: Mapping[str, str] | None = None,
) -> World:
    """Return a world of these parts, in which every backend is ``backend``."""

    @contextmanager
    def turn() -> Iterator[None]:
        yield

    return World(
        source=source,
        ledger=ledger,
        backends=lambda _kind: backend,
        tracker=tracker,
        clock=clock,
        settings=source.settings(source.resolve("HEAD")),
        actor="Grace <grace@example.org>",
        owner="host:1",
        branch="main",
        turn=turn,
        present=lambda name: name in (environ or {}),
    )
