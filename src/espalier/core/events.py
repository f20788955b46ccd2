"""What the ledger is told, and what a record is after it. Never writes: ``fold`` is a function."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias, assert_never

from espalier.core.content import SCHEME
from espalier.core.errors import StaleError
from espalier.core.model import (
    FINAL,
    Artifacts,
    Best,
    Counts,
    Lease,
    Objective,
    Policy,
    Spec,
    State,
    Trial,
    Version,
    VersionState,
)
from espalier.core.names import line_name, trial_name, version_name

# What a ledger holds


@dataclass(frozen=True, slots=True)
class Record:
    """One version whole."""

    version: Version
    spec: Spec
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class Earlier:
    """A superseded version; the ledger fills in the ids of the blobs that hold its spec and trials."""

    version: Version
    spec_blob: str = ""
    trial_blobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """A line of versions: the last one, those before it (oldest first), and which of these still run."""

    last: Record
    earlier: tuple[Earlier, ...] = ()
    open: Mapping[int, Record] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reusable:
    """A succeeded trial whose result may be taken over; ``trial`` is its whole name."""

    content: str
    strict: str
    scheme: int
    trial: str
    run_id: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The ledger at one commit (``tip``; None: there is none yet).

    ``heads`` has the last version of every line by its name (``job`` or ``job+line``); ``lines`` and
    ``reuse`` (by job, then strict content digest) only what was asked for. ``cursor`` maps a branch to the
    source commit that was last reconciled.
    """

    tip: str | None = None
    ledger_id: str | None = None
    project: str | None = None
    heads: Mapping[str, Version] = field(default_factory=dict)
    lines: Mapping[str, Line] = field(default_factory=dict)
    reuse: Mapping[str, Mapping[str, Reusable]] = field(default_factory=dict)
    cursor: Mapping[str, str] = field(default_factory=dict)


# What it is told. ``line`` is a line's name; an event of a version that nobody knows is ignored.


@dataclass(frozen=True, slots=True)
class Created:
    """A new version, with its trials and their first intents."""

    record: Record

    @property
    def line(self) -> str:
        return line_name(self.record.version.job, self.record.version.line)


@dataclass(frozen=True, slots=True)
class Intent:
    """One attempt that will be sent, under ``key``, at ``place``.

    ``because``: ``first``, ``retry`` and ``recover`` (both allowed by policy), ``person``.
    """

    trial: str
    attempt: int
    key: str
    place: str
    because: str = "first"


@dataclass(frozen=True, slots=True)
class Intended:
    """Further attempts of a version's trials, or first ones of trials that waited."""

    line: str
    version: int
    intents: tuple[Intent, ...]
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """MLflow runs of a version and of trials (by id)."""

    line: str
    version: int
    run_id: str
    tracking_uri: str
    trials: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Submitted:
    """Handles by trial, each with its attempt."""

    line: str
    version: int
    handles: Mapping[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Observed:
    """How an attempt stands. A final state of it is never left."""

    line: str
    version: int
    trial: str
    attempt: int
    state: State
    started_at: str | None = None
    ended_at: str | None = None
    exit_code: int | None = None
    message: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    reused_from: str | None = None
    run_id: str | None = None
    tracked: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tracked:
    """MLflow now shows the end of these trials (with their last metrics), and of the version if said."""

    line: str
    version: int
    trials: Mapping[str, Mapping[str, float]]
    whole_version: bool = False


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """A person, a retirement or a newer version wants these trials to end."""

    line: str
    version: int
    trials: tuple[str, ...]
    at: str


@dataclass(frozen=True, slots=True)
class Retired:
    """The job is gone from the config; its history stays."""

    line: str
    version: int


@dataclass(frozen=True, slots=True)
class Treated:
    """Policy, parallel and artifacts of the last applied commit."""

    line: str
    version: int
    policy: Policy
    parallel: int | None
    artifacts: Artifacts


@dataclass(frozen=True, slots=True)
class CursorMoved:
    """The branch was reconciled up to ``commit``."""

    branch: str
    commit: str


Event: TypeAlias = (
    Created | Intended | Opened | Submitted | Observed | Tracked | CancelRequested | Retired | Treated | CursorMoved
)


def touched(events: Iterable[Event]) -> tuple[str, ...]:
    """Return the names of the lines that ``events`` are about, sorted."""
    return tuple(sorted({event.line for event in events if not isinstance(event, CursorMoved)}))


def fold(snapshot: Snapshot, events: Iterable[Event]) -> Snapshot:
    """Return ``snapshot`` after ``events``; the lines they touch must be loaded in it.

    A decision (created, intended, retired) that was made on a record which has moved since raises
    StaleError; an observation that says nothing new moves nothing.
    """
    heads, lines, cursor = dict(snapshot.heads), dict(snapshot.lines), dict(snapshot.cursor)
    reuse = {job: dict(index) for job, index in snapshot.reuse.items()}
    told = list(events)
    for name in touched(told):
        if name in lines:
            lines[name] = _forget_ended(lines[name])
    for event in told:
        if isinstance(event, CursorMoved):
            cursor[event.branch] = event.commit
            continue
        line = _fold_line(lines.get(event.line), event)
        if line is None:
            continue
        lines[event.line] = line
        heads[event.line] = line.last.version
        if isinstance(event, Observed | Tracked):
            _index(reuse, line, event)
    return replace(snapshot, heads=heads, lines=lines, cursor=cursor, reuse=reuse)


def settle(record: Record) -> Record:
    """Return ``record`` with what its version says about its trials counted again."""
    version, trials = record.version, record.trials
    counts = count(trials)
    state = version_state(counts)
    failed = next((trial for trial in trials if trial.state in ("failed", "lost")), None)
    ended = [trial.ended_at for trial in trials if trial.ended_at]
    return replace(
        record,
        version=replace(
            version,
            counts=counts,
            state=state,
            ended_at=None if state == "running" else max(ended, default=version.created_at),
            best=best(trials, version.objective),
            unanswered=sum(trial.state == "queued" and not trial.handle and not trial.waits_for for trial in trials),
            retryable=sum(may_retry(trial, version.policy) for trial in trials),
            waiting=sum(trial.state == "queued" and trial.waits_for is not None for trial in trials),
            tracked=version.tracked and state != "running",
            exit_code=failed.exit_code if failed else None,
            message=failed.message if failed else None,
        ),
    )


def count(trials: Iterable[Trial]) -> Counts:
    """Return how many trials are in each state."""
    states = [trial.state for trial in trials]
    return Counts(
        total=len(states),
        queued=states.count("queued"),
        running=states.count("running"),
        succeeded=states.count("succeeded"),
        failed=states.count("failed"),
        cancelled=states.count("cancelled"),
        lost=states.count("lost"),
        reused=states.count("reused"),
    )


def version_state(counts: Counts) -> VersionState:
    """Return the state of a version whose trials are counted in ``counts``."""
    if counts.queued or counts.running:
        return "running"
    if counts.failed or counts.lost:
        return "failed"
    return "cancelled" if counts.cancelled else "succeeded"


def best(trials: Iterable[Trial], objective: Objective | None) -> Best | None:
    """Return the best succeeded or reused trial by ``objective``; None without one or without values."""
    if objective is None:
        return None
    found = [
        (trial.metrics[objective.metric], trial.id)
        for trial in trials
        if trial.state in ("succeeded", "reused") and _is_number(trial.metrics.get(objective.metric))
    ]
    if not found:
        return None
    pick = min if objective.goal == "minimize" else max
    value, trial = pick(found, key=lambda pair: pair[0])
    return Best(trial, objective.metric, value)


def may_retry(trial: Trial, policy: Policy) -> bool:
    """Return whether ``policy`` allows a further attempt of an ended trial."""
    if trial.cancel_requested_at or trial.attempt == 0:
        return False
    if trial.state == "failed":
        return trial.retried < policy.retries
    return trial.state == "lost" and trial.recovered < policy.recoveries


def _fold_line(line: Line | None, event: Event) -> Line | None:
    if isinstance(event, Created):
        return _create(line, event.record)
    if line is None or isinstance(event, CursorMoved):
        return None
    last = line.last.version.version
    record = line.last if event.version == last else line.open.get(event.version)
    if record is None:
        return None
    after = _fold_record(record, event)
    if after is record:
        return line
    after = settle(after)
    if event.version == last:
        return replace(line, last=after)
    earlier = tuple(
        replace(old, version=after.version) if old.version.version == event.version else old for old in line.earlier
    )
    return replace(line, earlier=earlier, open={**line.open, event.version: after})


def _fold_record(record: Record, event: Event) -> Record:
    version = record.version
    match event:
        case Intended():
            if event.lease:
                record = replace(record, version=replace(version, lease=event.lease))
            for intent in event.intents:
                record = _each(record, intent.trial, lambda trial, intent=intent: _intend(trial, intent, event))  # type: ignore[misc]
            return record
        case Opened():
            record = replace(record, version=replace(version, run_id=event.run_id, tracking_uri=event.tracking_uri))
            return replace(
                record,
                trials=tuple(
                    replace(trial, run_id=event.trials[trial.id], tracking_uri=event.tracking_uri)
                    if trial.id in event.trials
                    else trial
                    for trial in record.trials
                ),
            )
        case Submitted():
            return replace(record, trials=tuple(_submit(trial, event) for trial in record.trials))
        case Observed():
            return _each(record, event.trial, lambda trial: _observe(trial, event))
        case Tracked():
            if event.whole_version:
                record = replace(record, version=replace(version, tracked=True))
            return replace(
                record,
                trials=tuple(
                    replace(trial, tracked=True, metrics={**trial.metrics, **event.trials[trial.id]})
                    if trial.id in event.trials
                    else trial
                    for trial in record.trials
                ),
            )
        case CancelRequested():
            return replace(record, trials=tuple(_request(trial, event) for trial in record.trials))
        case Retired():
            if version.retired:
                raise _moved(event.line, version.version)
            return replace(record, version=replace(version, retired=True))
        case Treated():
            return replace(
                record,
                version=replace(version, policy=event.policy, parallel=event.parallel, artifacts=event.artifacts),
            )
        case Created() | CursorMoved():
            return record
        case _:
            assert_never(event)


def _create(line: Line | None, record: Record) -> Line:
    version = record.version
    last = line.last.version.version if line else 0
    if version.version != last + 1:
        raise _moved(line_name(version.job, version.line), last)
    record = settle(record)
    if line is None:
        return Line(record)
    still = line.last.version.state == "running" or not _all_tracked(line.last)
    return Line(
        last=record,
        earlier=(*line.earlier, Earlier(line.last.version)),
        open={**line.open, last: line.last} if still else line.open,
    )


def _forget_ended(line: Line) -> Line:
    """Drop superseded versions that had already ended at the commit before."""
    kept = {
        n: record for n, record in line.open.items() if record.version.state == "running" or not _all_tracked(record)
    }
    return line if len(kept) == len(line.open) else replace(line, open=kept)


def _all_tracked(record: Record) -> bool:
    return record.version.tracked and all(trial.tracked for trial in record.trials)


def _each(record: Record, trial_id: str, change: Callable[[Trial], Trial]) -> Record:
    trials = tuple(change(trial) if trial.id == trial_id else trial for trial in record.trials)
    same = all(a is b for a, b in zip(trials, record.trials, strict=True))
    return record if same else replace(record, trials=trials)


def _intend(trial: Trial, intent: Intent, event: Intended) -> Trial:
    if intent.attempt == trial.attempt and intent.key == trial.key and trial.state == "queued":
        return trial  # the same intent, told twice
    ended = trial.state in FINAL or trial.attempt == 0
    if intent.attempt != trial.attempt + 1 or not ended:
        raise _moved(event.line, event.version)
    return replace(
        trial,
        state="queued",
        attempt=intent.attempt,
        key=intent.key,
        place=intent.place,
        handle=None,
        exit_code=None,
        message=None,
        started_at=None,
        ended_at=None,
        waits_for=None,
        tracked=False,
        cancel_requested_at=None if intent.because == "person" else trial.cancel_requested_at,
        forced=intent.because == "person",
        retried=trial.retried + (intent.because == "retry"),
        recovered=trial.recovered + (intent.because == "recover"),
    )


def _submit(trial: Trial, event: Submitted) -> Trial:
    attempt, handle = event.handles.get(trial.id, (0, ""))
    if attempt != trial.attempt or attempt == 0 or trial.handle == handle:
        return trial
    return replace(trial, handle=handle)


def _observe(trial: Trial, event: Observed) -> Trial:
    if event.attempt != trial.attempt or trial.state in FINAL:
        return trial
    after = replace(
        trial,
        state=event.state,
        started_at=event.started_at or trial.started_at,
        ended_at=event.ended_at or trial.ended_at,
        exit_code=event.exit_code,
        message=event.message,
        metrics={**trial.metrics, **event.metrics},
        reused_from=event.reused_from or trial.reused_from,
        run_id=event.run_id or trial.run_id,
        waits_for=None if event.state != "queued" else trial.waits_for,
        tracked=event.tracked,
        environment=event.environment or trial.environment,
    )
    return trial if after == trial else after


def _request(trial: Trial, event: CancelRequested) -> Trial:
    if trial.id not in event.trials or trial.state in FINAL or trial.cancel_requested_at:
        return trial
    asked = replace(trial, cancel_requested_at=event.at)
    if trial.attempt == 0:  # nothing was sent: the wish is the end
        return replace(
            asked, state="cancelled", ended_at=event.at, message="cancelled before it was sent", waits_for=None
        )
    return asked


def _index(reuse: dict[str, dict[str, Reusable]], line: Line, event: Observed | Tracked) -> None:
    last = line.last.version.version
    record = line.last if event.version == last else line.open.get(event.version, None)
    if record is None:
        return
    ids = {event.trial} if isinstance(event, Observed) else event.trials.keys()
    version = record.version
    index = reuse.setdefault(version.job, {})
    for trial in record.trials:
        if trial.id in ids and trial.state == "succeeded":
            name = trial_name(version.job, version.line, version.version, trial.id)
            index[trial.strict] = Reusable(trial.content, trial.strict, SCHEME, name, trial.run_id, trial.metrics)


def _moved(line: str, version: int) -> StaleError:
    job, _, side = line.partition("+")
    return StaleError(
        f"{version_name(job, side or None, version)} has moved since this was planned",
        hint="plan again: espalier plan",
    )


def _is_number(value: float | None) -> bool:
    return value is not None and value == value and value not in (float("inf"), float("-inf"))
