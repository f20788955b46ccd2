"""What the ledger is told, and what a record is after it. Never writes: ``fold`` is a function."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias, assert_never, get_args

from espalier.core.errors import StaleError
from espalier.core.model import FINAL, Artifacts, Lease, Policy, Spec, State, Trial, Version
from espalier.core.names import line_name, trial_name, version_name
from espalier.core.record import Earlier as Earlier
from espalier.core.record import Line as Line
from espalier.core.record import Record as Record
from espalier.core.record import Reusable as Reusable
from espalier.core.record import Snapshot as Snapshot
from espalier.core.record import best as best
from espalier.core.record import count as count
from espalier.core.record import may_retry as may_retry
from espalier.core.record import settle as settle
from espalier.core.record import version_state as version_state

STATES: tuple[State, ...] = get_args(State)

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
    StaleError; an observation that says nothing new moves nothing. A superseded version that was
    over before is dropped from ``open`` when its line moves again.
    """
    heads, lines, cursor = dict(snapshot.heads), dict(snapshot.lines), dict(snapshot.cursor)
    reuse = {job: dict(index) for job, index in snapshot.reuse.items()}
    drafts: dict[str, _LineDraft] = {}
    for event in events:
        if isinstance(event, CursorMoved):
            cursor[event.branch] = event.commit
            continue
        draft = drafts.get(event.line)
        if draft is None:
            draft = drafts[event.line] = _LineDraft(event.line, lines.get(event.line))
        draft.tell(event)
    for name, draft in drafts.items():
        if draft.last is None or not draft.moved():
            continue
        line = lines[name] = draft.line()
        heads[name] = line.last.version
        for found in draft.results():
            reuse.setdefault(line.last.version.job, {})[found.strict] = found
    return replace(snapshot, heads=heads, lines=lines, cursor=cursor, reuse=reuse)


def asleep(snapshot: Snapshot, events: Iterable[Event]) -> tuple[tuple[str, int], ...]:
    """Return the line and number of each version that is over and gets a further attempt by ``events``.

    A ledger reads these records and wakes them before it folds.
    """
    found = {(event.line, event.version) for event in events if isinstance(event, Intended)}
    return tuple(
        (name, number)
        for name, number in sorted(found)
        if name in snapshot.lines
        and number < snapshot.lines[name].last.version.version
        and number not in snapshot.lines[name].open
    )


def wake(snapshot: Snapshot, records: Iterable[Record]) -> Snapshot:
    """Return ``snapshot`` with ``records`` of superseded versions open again."""
    lines = dict(snapshot.lines)
    for record in records:
        name = line_name(record.version.job, record.version.line)
        lines[name] = replace(lines[name], open={**lines[name].open, record.version.version: record})
    return replace(snapshot, lines=lines)


class _RecordDraft:
    """A version while events are folded into it; counted again once, at the end."""

    def __init__(self, record: Record, *, new: bool = False) -> None:
        self.version, self.spec = record.version, record.spec
        self.trials = list(record.trials)
        self.at = {trial.id: index for index, trial in enumerate(record.trials)}
        self.unfinished = sum(trial.state not in FINAL for trial in record.trials)
        self.before = None if new else record
        self.moved = new
        self.touched: set[str] = set()  # ids of trials that moved

    def put(self, trial: Trial) -> None:
        index = self.at[trial.id]
        old = self.trials[index]
        if trial == old:
            return
        self.unfinished += (trial.state not in FINAL) - (old.state not in FINAL)
        self.trials[index] = trial
        self.touched.add(trial.id)
        self.moved = True

    def put_version(self, version: Version) -> None:
        if version != self.version:
            self.version = version
            self.moved = True

    def some(self, ids: Iterable[str]) -> Iterator[Trial]:
        """Yield the trials with these ids; ids that the version does not have are passed over."""
        for trial_id in ids:
            if trial_id in self.at:
                yield self.trials[self.at[trial_id]]

    def over(self) -> bool:
        """Return whether nothing of it is left to do: every trial ended, and MLflow shows all of it."""
        return self.unfinished == 0 and self.version.tracked and all(trial.tracked for trial in self.trials)

    def be_superseded(self) -> None:
        """Only a line's last version lists the open ones."""
        self.version = replace(self.version, open=())
        if self.before is not None:
            self.before = replace(self.before, version=replace(self.before.version, open=()))

    def record(self) -> Record:
        if self.before is not None and not self.moved:
            return self.before
        return settle(Record(self.version, self.spec, tuple(self.trials)))

    def tell(self, event: Event) -> None:
        match event:
            case Intended():
                self._intend(event)
            case Opened():
                run_id, uri = event.run_id or self.version.run_id, event.tracking_uri
                self.put_version(replace(self.version, run_id=run_id, tracking_uri=uri))
                for trial in self.some(event.trials):
                    self.put(replace(trial, run_id=event.trials[trial.id], tracking_uri=uri))
            case Submitted():
                for trial in self.some(event.handles):
                    self.put(_submit(trial, *event.handles[trial.id]))
            case Observed():
                for trial in self.some((event.trial,)):
                    self.put(_observe(trial, event))
            case Tracked():
                for trial in self.some(event.trials):
                    if trial.state in FINAL:
                        metrics = _merged(trial.metrics, event.trials[trial.id])
                        self.put(replace(trial, tracked=True, metrics=metrics))
                if event.whole_version and self.unfinished == 0:
                    self.put_version(replace(self.version, tracked=True))
            case CancelRequested():
                for trial in self.some(event.trials):
                    self.put(_request(trial, event.at))
            case Retired():
                if self.version.retired:
                    raise _moved(event.line, event.version)
                self.put_version(replace(self.version, retired=True))
            case Treated():
                self.put_version(
                    replace(self.version, policy=event.policy, parallel=event.parallel, artifacts=event.artifacts)
                )
                self.spec = _with_parallel(self.spec, event.parallel)
            case Created() | CursorMoved():
                pass  # of a line, and of none
            case _:
                assert_never(event)

    def _intend(self, event: Intended) -> None:
        held = self.version.lease
        if event.lease and held and event.lease.epoch < held.epoch:
            raise _moved(event.line, event.version)  # somebody took over
        if event.lease:
            self.put_version(replace(self.version, lease=event.lease))
        for intent in event.intents:
            for trial in self.some((intent.trial,)):
                if self.version.retired and intent.because in ("retry", "recover"):
                    raise _moved(event.line, event.version)
                self.put(_intend(trial, intent, event))
        if self.unfinished:
            self.put_version(replace(self.version, tracked=False))


class _LineDraft:
    """A line while events are folded into it."""

    def __init__(self, name: str, line: Line | None) -> None:
        self.name = name
        self.before = line
        self.last = _RecordDraft(line.last) if line else None
        self.earlier = list(line.earlier) if line else []
        self.open = {number: _RecordDraft(record) for number, record in line.open.items()} if line else {}
        self.was_over = {number for number, draft in self.open.items() if draft.over()}

    def tell(self, event: Event) -> None:
        if isinstance(event, Created):
            self._create(event.record)
            return
        if isinstance(event, CursorMoved):
            return
        last = self.last.version.version if self.last else 0
        draft = self.last if event.version == last else self.open.get(event.version)
        decides = isinstance(event, Intended | Retired)
        if draft is None or (isinstance(event, Retired) and event.version != last):
            if decides:  # whoever decided must not go on as if it were recorded
                raise _moved(event.line, event.version)
            return
        if event.version != last and not decides and draft.over():
            return  # as it will be once it has left ``open``
        draft.tell(event)

    def moved(self) -> bool:
        return any(draft.moved for draft in self._drafts())

    def line(self) -> Line:
        if self.last is None:
            raise ValueError("a line has a version")
        now = {number: draft.record() for number, draft in sorted(self.open.items())}
        kept = {
            number: record for number, record in now.items() if number not in self.was_over or self.open[number].moved
        }
        last = self.last.record()
        if last.version.open != tuple(kept):
            last = replace(last, version=replace(last.version, open=tuple(kept)))
        earlier = tuple(
            replace(old, version=now[old.version.version].version) if old.version.version in now else old
            for old in self.earlier
        )
        return Line(last, earlier, kept)

    def results(self) -> Iterator[Reusable]:
        """Yield what became reusable: trials that moved and have succeeded."""
        for draft in self._drafts():
            version = draft.version
            for trial in draft.some(sorted(draft.touched)):
                if trial.state == "succeeded":
                    name = trial_name(version.job, version.line, version.version, trial.id)
                    yield Reusable(trial.content, trial.strict, version.scheme, name, trial.run_id, trial.metrics)

    def _create(self, record: Record) -> None:
        version = record.version
        last = self.last.version.version if self.last else None
        if version.version != (last or 0) + 1 or version.parent != last:
            raise _moved(self.name, last or 0)
        if self.last is not None and last is not None:
            self.last.be_superseded()
            if self.last.moved or not self.last.over():
                self.open[last] = self.last
            self.earlier.append(Earlier(self.last.record().version))
        parallel = version.parallel
        if parallel is None and record.spec.sweep:
            parallel = record.spec.sweep.parallel
        first = replace(record, version=replace(version, parallel=parallel, open=()))
        self.last = _RecordDraft(replace(first, spec=_with_parallel(record.spec, parallel)), new=True)

    def _drafts(self) -> Iterator[_RecordDraft]:
        yield from self.open.values()
        if self.last is not None:
            yield self.last


def _with_parallel(spec: Spec, parallel: int | None) -> Spec:
    """Return ``spec`` with the ``parallel`` of its version, the one value of a sweep that is no identity."""
    if spec.sweep is None or spec.sweep.parallel == parallel:
        return spec
    return replace(spec, sweep=replace(spec.sweep, parallel=parallel))


def _intend(trial: Trial, intent: Intent, event: Intended) -> Trial:
    same = intent.attempt == trial.attempt and intent.key == trial.key and intent.place == trial.place
    if same and trial.state not in FINAL:
        return trial  # the same intent, told twice
    if intent.attempt != trial.attempt + 1 or not _may_follow(trial, intent.because):
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
        reused_from=None,
        tracked=False,
        cancel_requested_at=None if intent.because == "person" else trial.cancel_requested_at,
        forced=intent.because == "person",
        retried=trial.retried + (intent.because == "retry"),
        recovered=trial.recovered + (intent.because == "recover"),
    )


def _may_follow(trial: Trial, because: str) -> bool:
    """Return whether an attempt for this cause can follow what ``trial`` is now."""
    if because == "person":
        return trial.state in ("failed", "lost", "cancelled") or (trial.state == "queued" and trial.attempt == 0)
    if trial.cancel_requested_at:
        return False
    if because == "first":
        return trial.state == "queued" and trial.attempt == 0
    return trial.state in ("failed", "lost")


def _submit(trial: Trial, attempt: int, handle: str) -> Trial:
    if attempt != trial.attempt or attempt == 0 or trial.handle:
        return trial  # of another attempt, or the first one told stays
    return replace(trial, handle=handle)


def _observe(trial: Trial, event: Observed) -> Trial:
    if event.attempt != trial.attempt or trial.state in FINAL or event.state not in STATES:
        return trial
    # ``queued`` means not yet seen running, so nothing goes back to it
    state = "running" if trial.state == "running" and event.state == "queued" else event.state
    return replace(
        trial,
        state=state,
        started_at=event.started_at or trial.started_at,
        ended_at=event.ended_at or trial.ended_at,
        exit_code=event.exit_code,
        message=event.message,
        metrics=_merged(trial.metrics, event.metrics),
        reused_from=event.reused_from or trial.reused_from,
        run_id=event.run_id or trial.run_id,
        waits_for=None if state != "queued" else trial.waits_for,
        tracked=event.tracked and state in FINAL,
        environment=event.environment or trial.environment,
    )


def _merged(old: Mapping[str, float], new: Mapping[str, float]) -> Mapping[str, float]:
    """Return ``old`` with what differs in ``new``; NaN is no news where NaN was."""
    fresh = {
        name: value
        for name, value in new.items()
        if name not in old or (old[name] != value and (old[name] == old[name] or value == value))
    }
    return {**old, **fresh} if fresh else old


def _request(trial: Trial, at: str) -> Trial:
    if trial.state in FINAL or trial.cancel_requested_at:
        return trial
    asked = replace(trial, cancel_requested_at=at)
    if trial.attempt == 0:  # nothing was sent: the wish is the end
        return replace(asked, state="cancelled", ended_at=at, message="cancelled before it was sent", waits_for=None)
    return asked


def _moved(line: str, version: int) -> StaleError:
    job, _, side = line.partition("+")
    return StaleError(
        f"{version_name(job, side or None, version)} has moved since this was planned",
        hint="plan again: espalier plan",
    )
