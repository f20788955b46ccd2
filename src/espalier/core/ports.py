"""What the engine needs of the world, as protocols. Never an implementation."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from espalier.core.content import Change
from espalier.core.events import Event, Record, Snapshot
from espalier.core.model import Artifacts, Commit, Declared, Json, Program, Settings, Spec, State, Trial, Version

Answer = Literal["queued", "running", "succeeded", "failed", "cancelled", "lost", "unknown"]
"""What a backend says of a handle; ``unknown`` is never recorded."""


class Source(Protocol):
    """A repository's commits, read from git objects alone."""

    def resolve(self, rev: str) -> Commit: ...  # InputError when there is none
    def specs(
        self, commit: Commit, globs: Collection[str] = ()
    ) -> Declared: ...  # only jobs that match a glob, all without
    def settings(self, commit: Commit) -> Settings: ...
    def contains(self, descendant: str, ancestor: str) -> bool: ...  # is the commit reachable from the other?


class Ledger(Protocol):
    """The append-only record. A snapshot is of one tip."""

    def read(self, lines: Collection[str] | None = ()) -> Snapshot: ...

    # every head; the whole records of the lines named (``job`` or ``job+line``), of all for None

    def found(self) -> Snapshot: ...  # makes the ledger and its id where there is none; attempt keys need the id

    def append(self, base: Snapshot, events: Sequence[Event], kind: str, actor: str) -> Snapshot: ...

    # one commit; folded again on a newer tip when the touched records have not moved, else StaleError

    def version(self, name: str, number: int) -> Record | None: ...  # a version of the line, an ended one too


@dataclass(frozen=True, slots=True)
class Launch:
    """All that a backend needs to start one attempt. ``variables`` continue its MLflow run."""

    ledger_id: str
    project: str
    job: str
    line: str | None
    version: int
    trial: str
    attempt: int
    commit: str
    spec: Spec
    params: Mapping[str, Json]
    program: Program
    variables: Mapping[str, str] = field(default_factory=dict)
    parallel: int | None = None
    max_failures: int = 3
    counts_as_failure: bool = True  # no further attempt would follow its failing
    forced: bool = False  # a person asked: start it whatever max_failures says


@dataclass(frozen=True, slots=True)
class Report:
    """A backend's answer for one handle. Paths are readable here, or None; times RFC 3339 in UTC.

    ``metrics`` is a file of JSON lines ``{"key", "value", "step", "timestamp"}`` (milliseconds), each
    fixed when it was first seen; ``output`` the output folder, ``log`` the program's output.
    """

    state: Answer
    started_at: str | None = None
    ended_at: str | None = None
    exit_code: int | None = None
    message: str | None = None
    output: str | None = None
    log: str | None = None
    metrics: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


class Backend(Protocol):
    """A place that runs trials."""

    place: str  # who can ask about its handles

    def submit(self, key: str, launch: Launch) -> str: ...  # the handle; idempotent in key
    def status(self, handles: Collection[str]) -> Mapping[str, Report]: ...  # one call for all
    def cancel(self, handle: str) -> None: ...  # nothing when over or unknown
    def logs(self, handle: str) -> Iterator[str]: ...  # lines so far
    def find(self, keys: Collection[str]) -> Mapping[str, Sequence[str]]: ...  # oldest first


@dataclass(frozen=True, slots=True)
class Subject:
    """What one MLflow run shows: a version (``trial`` None), one of its trials, or both (no sweep).

    ``parent`` is the version that ``changes`` are against (a first side-line version: its base);
    ``trials`` are all of the version's, for its note.
    """

    key: str
    ledger_id: str
    experiment: str
    version: Version
    spec: Spec
    trial: Trial | None = None
    trials: Sequence[Trial] = ()
    parent: Version | None = None
    changes: Sequence[Change] = ()
    description: str = ""
    repository: str = ""  # URL without credentials, or empty
    swept: Sequence[str] = ()


class Tracker(Protocol):
    """Where people look at runs. Everything may be repeated; nothing is lost when it fails."""

    uri: str  # without credentials

    def probe(self) -> None: ...  # UnavailableError when no run can be made
    def open(
        self, subjects: Sequence[Subject]
    ) -> Mapping[str, str]: ...  # key → run id; found or made; a version before its trials
    def variables(self, run_id: str) -> Mapping[str, str]: ...  # what a program needs to continue it
    def log(self, run_id: str, report: Report, attempt: int) -> None: ...  # what is new: metrics, RUNNING
    def close(
        self, subject: Subject, run_id: str, report: Report | None, state: State, artifacts: Artifacts
    ) -> Mapping[str, float]: ...

    # log, artifacts, then the final status; the run's last metrics


class Searcher(Protocol):
    """Suggests the next points from history."""

    def suggest(self, spec: Spec, trials: Sequence[Trial], count: int) -> Sequence[Mapping[str, Json]]: ...


class Clock(Protocol):
    """Time, and waiting."""

    def now(self) -> str: ...  # RFC 3339, UTC
    def after(self, seconds: float) -> str: ...  # the same, so many seconds from now
    def monotonic(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class World:
    """One of each port.

    ``turn`` is held while this process launches or follows: one at a time at this place, and free
    again when its holder dies. ``present`` says whether a variable is set in this environment;
    ``branch`` is the one that is checked out.
    """

    source: Source
    ledger: Ledger
    backends: Callable[[str], Backend]
    tracker: Tracker
    clock: Clock
    settings: Settings
    actor: str
    owner: str
    branch: str
    turn: Callable[[], AbstractContextManager[None]]
    present: Callable[[str], bool]
    repository: str = ""
