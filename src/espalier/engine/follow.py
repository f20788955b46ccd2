"""Look after what was applied: ask, show, record, and start what the recorded policy still allows. Makes no version."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from espalier.core.errors import RejectedError, UnavailableError
from espalier.core.events import Event, Observed, Opened, Record, Snapshot, Tracked, fold, may_retry
from espalier.core.model import FINAL, State, Trial, Version
from espalier.core.names import line_name, parse_target
from espalier.core.plan import to_send
from espalier.core.ports import Answer, Backend, Report, World
from espalier.engine.apply import intend
from espalier.engine.launch import backend_of, launch, merged, record_of
from espalier.engine.show import Showing, showing

POLL_S, POLL_MAX_S = 0.2, 1.0
"""Pauses between passes grow from the one to the other while nothing moves."""

ENDS: Mapping[Answer, State] = {"succeeded": "succeeded", "failed": "failed", "cancelled": "cancelled", "lost": "lost"}


@dataclass(slots=True)
class Pass:
    """What one pass works on. ``trouble`` is why MLflow could not be told; then it is not asked again."""

    world: World
    snapshot: Snapshot
    events: list[Event] = field(default_factory=list)
    trouble: str = ""
    asked: dict[tuple[str, int], Record | None] = field(default_factory=dict)
    shown: dict[tuple[str, int], Showing] = field(default_factory=dict)

    def tell(self, event: Event) -> None:
        """Fold ``event`` at once, so that what follows in this pass sees it."""
        after = fold(self.snapshot, [event])
        self.snapshot = replace(after, tip=self.snapshot.tip)
        self.events.append(event)

    def record(self, line: str, version: int) -> Record | None:
        return record_of(self.snapshot, line, version)

    def showing(self, record: Record) -> Showing:
        """Return what the runs of ``record`` show as it stands now; its parent is read once."""
        name = line_name(record.version.job, record.version.line)
        at = (name, record.version.version)
        if at not in self.shown:
            self.shown[at] = showing(self.world, record, self.snapshot.ledger_id or "")
        return replace(self.shown[at], record=record)


@dataclass(frozen=True, slots=True)
class Followed:
    """The snapshot after a pass; ``moved`` when it recorded anything; ``trouble`` as in Pass.

    ``unsent`` is why something that is due could not be sent.
    """

    snapshot: Snapshot
    moved: bool
    trouble: str = ""
    unsent: RejectedError | UnavailableError | None = None


def unsettled(heads: Mapping[str, Version], uri: str) -> tuple[str, ...]:
    """Return the names of the lines in which something runs, or has an end that MLflow at ``uri`` does not show."""
    return tuple(
        name
        for name, head in heads.items()
        if head.state == "running" or head.open or (not head.tracked and head.tracking_uri in (None, uri))
    )


def follow(
    world: World,
    awaited: Collection[tuple[str, int]],
    *,
    once: bool = False,
    watch: Callable[[Followed], None] = lambda _: None,
) -> Snapshot:
    """Follow everything here until ``awaited`` versions (line, number) are final; return the last snapshot.

    ``once``: one pass, whatever it leaves. Trials of another place are not waited for. MLflow that
    cannot be told holds nobody up: the next command tells it. What cannot be sent is raised once
    nothing else that is awaited runs.
    """
    pause = POLL_S
    while True:
        done = one_pass(world)
        watch(done)
        waiting = [at for at in awaited if still_waited_for(world, done.snapshot, at)]
        if once or not waiting:
            return done.snapshot
        if done.unsent and not any(_runs(world, done.snapshot, at) for at in waiting):
            raise done.unsent
        pause = POLL_S if done.moved else min(pause * 1.5, POLL_MAX_S)
        world.clock.sleep(pause)


def still_waited_for(world: World, snapshot: Snapshot, at: tuple[str, int]) -> bool:
    """Return whether a version has a trial without an end that can be asked about here."""
    return any(_unfinished_here(world, snapshot, at))


def _runs(world: World, snapshot: Snapshot, at: tuple[str, int]) -> bool:
    """Return whether a version has a trial that was sent here and has no end yet."""
    return any(trial.handle and trial.place for trial in _unfinished_here(world, snapshot, at))


def _unfinished_here(world: World, snapshot: Snapshot, at: tuple[str, int]) -> Iterator[Trial]:
    """Yield the trials of a version that have no end and no other place than this one."""
    record = record_of(snapshot, *at)
    if record is not None:
        place = backend_of(world, record.version).place
        yield from (trial for trial in record.trials if trial.state not in FINAL and trial.place in (None, place))


def one_pass(world: World) -> Followed:
    """Ask the backends once about everything unfinished, show and record what moved, start what is due."""
    with world.turn():
        snapshot = world.ledger.read()
        names = unsettled(snapshot.heads, world.tracker.uri)
        if not names or snapshot.ledger_id is None:
            return Followed(snapshot, moved=False)
        base = world.ledger.read(names)
        work = Pass(world, base)
        versions = [
            (name, record.version.version)
            for name in names
            if name in base.lines
            for record in (base.lines[name].last, *base.lines[name].open.values())
        ]
        reports = _ask(work, versions)
        for at in versions:
            _observe(work, at, reports)
        for at in versions:
            _wake_waiting(work, at)
        for at in versions:
            _start_further(work, at)
        for at in versions:
            _finish_showing(work, at, reports)
        snapshot = base
        if work.events:
            snapshot = world.ledger.append(base, merged(work.events), "observed", world.actor)
        due = [at for at in versions if (record := record_of(snapshot, *at)) and to_send(record)]
        unsent: RejectedError | UnavailableError | None = None
        if due:
            try:
                snapshot = launch(world, snapshot, due, fresh=False)
            except (RejectedError, UnavailableError) as error:
                unsent, snapshot = error, world.ledger.read(names)
        moved = bool(work.events or (due and not unsent))
        return Followed(snapshot, moved, work.trouble, unsent)


def _records(work: Pass, versions: Iterable[tuple[str, int]]) -> Iterator[Record]:
    for at in versions:
        record = work.record(*at)
        if record:
            yield record


def _ask(work: Pass, versions: Collection[tuple[str, int]]) -> dict[str, Report]:
    """Return the reports of all handles of this place, with one call for each backend."""
    asked: dict[str, tuple[Backend, list[str]]] = {}
    for record in _records(work, versions):
        backend = backend_of(work.world, record.version)
        handles = [
            trial.handle
            for trial in record.trials
            if trial.handle and trial.place == backend.place and (trial.state not in FINAL or not trial.tracked)
        ]
        if handles:
            asked.setdefault(record.version.backend, (backend, []))[1].extend(handles)
    return {handle: report for backend, handles in asked.values() for handle, report in backend.status(handles).items()}


def _observe(work: Pass, at: tuple[str, int], reports: Mapping[str, Report]) -> None:
    record = work.record(*at)
    if record is None:
        return
    for trial in record.trials:
        report = reports.get(trial.handle or "")
        if report is None or trial.state in FINAL:
            continue
        if trial.cancel_requested_at and trial.handle and report.state in ("queued", "running"):
            backend_of(work.world, record.version).cancel(trial.handle)
        if report.state == "running":
            _observe_running(work, at, trial, report)
        elif report.state in ENDS:
            _observe_end(work, at, trial, report, ENDS[report.state])


def _observe_running(work: Pass, at: tuple[str, int], trial: Trial, report: Report) -> None:
    if trial.state != "running":
        work.tell(
            Observed(
                *at, trial.id, trial.attempt, "running", started_at=report.started_at, environment=report.environment
            )
        )
    _log(work, trial, report)


def _observe_end(work: Pass, at: tuple[str, int], trial: Trial, report: Report, state: State) -> None:
    ended = replace(
        trial,
        state=state,
        started_at=report.started_at or trial.started_at,
        ended_at=report.ended_at or work.world.clock.now(),
        exit_code=report.exit_code,
        message=report.message,
    )
    seen = Observed(
        *at,
        trial.id,
        trial.attempt,
        state,
        started_at=report.started_at,
        ended_at=ended.ended_at,
        exit_code=report.exit_code,
        message=report.message,
        environment=report.environment,
    )
    record = work.record(*at)
    if record and may_retry(ended, record.version.policy):
        _log(work, trial, report)  # the run goes on: it gets its end after the last attempt
        work.tell(seen)
        return
    metrics = _close_trial(work, at, ended, report)
    work.tell(replace(seen, metrics=metrics or {}, tracked=metrics is not None))


def _log(work: Pass, trial: Trial, report: Report) -> None:
    if trial.run_id and _ours(work, trial.tracking_uri) and not work.trouble:
        work.world.tracker.log(trial.run_id, report, trial.attempt)


def _close_trial(work: Pass, at: tuple[str, int], trial: Trial, report: Report | None) -> Mapping[str, float] | None:
    """Give the run of ``trial`` its end; return its last metrics, None when MLflow could not be told."""
    record = work.record(*at)
    if record is None or work.trouble or not _ours(work, trial.tracking_uri):
        return None
    shown = work.showing(record)
    subject, whole = shown.part(trial), shown.whole()
    try:
        run_id = trial.run_id
        if run_id is None:
            runs = work.world.tracker.open([whole, subject] if whole.key != subject.key else [whole])
            run_id = runs[subject.key]
            work.tell(Opened(*at, runs[whole.key], work.world.tracker.uri, {trial.id: run_id}))
        return work.world.tracker.close(subject, run_id, report, trial.state, record.version.artifacts)
    except UnavailableError as error:
        work.trouble = error.message
        return None
    except RejectedError:
        return {}  # nothing can be shown there any more (deleted by hand): the record stays complete without it


def _wake_waiting(work: Pass, at: tuple[str, int]) -> None:
    """Take over the result that a trial waited for, or send the trial when that ended otherwise."""
    record = work.record(*at)
    if record is None:
        return
    now = work.world.clock.now()
    send = []
    for trial in record.trials:
        if not trial.waits_for or trial.state in FINAL:
            continue
        other = _trial(work, trial.waits_for)
        if other is None or (other.state in FINAL and other.state not in ("succeeded", "reused")):
            send.append(trial)
        elif other.state in ("succeeded", "reused"):
            origin = other.reused_from or trial.waits_for
            work.tell(
                Observed(
                    *at, trial.id, trial.attempt, "reused", ended_at=now, metrics=other.metrics, reused_from=origin
                )
            )
    if send:
        work.tell(intend(work.world, work.snapshot.ledger_id or "", record, send))


def _trial(work: Pass, name: str) -> Trial | None:
    """Return the trial that ``name`` means, as it stands in this pass."""
    target = parse_target(name)
    at = (line_name(target.job, target.line), target.version or 1)
    record = work.record(*at)
    if record is None:
        if at not in work.asked:
            work.asked[at] = work.world.ledger.version(*at)
        record = work.asked[at]
    return next((trial for trial in record.trials if trial.id == target.trial), None) if record else None


def _start_further(work: Pass, at: tuple[str, int]) -> None:
    """Intend what the recorded policy still allows: further attempts, and trials never sent."""
    record = work.record(*at)
    if record is None or record.version.retired:
        return
    place = backend_of(work.world, record.version).place
    further = [trial for trial in record.trials if trial.place == place and may_retry(trial, record.version.policy)]
    unsent = [trial for trial in to_send(record) if trial.attempt == 0]
    if further or unsent:
        work.tell(intend(work.world, work.snapshot.ledger_id or "", record, [*further, *unsent]))


def _finish_showing(work: Pass, at: tuple[str, int], reports: Mapping[str, Report]) -> None:
    """Tell MLflow the ends that it does not know yet: of trials, then of the version."""
    record = work.record(*at)
    if record is None or not _ours(work, record.version.tracking_uri):
        return
    told: dict[str, Mapping[str, float]] = {}
    for trial in record.trials:
        if trial.state in FINAL and not trial.tracked and not work.trouble:
            metrics = _close_trial(work, at, trial, reports.get(trial.handle or ""))
            if metrics is not None:
                told[trial.id] = metrics
    if told:
        work.tell(Tracked(*at, told))
    record = work.record(*at)
    if record is None or work.trouble or record.version.state == "running" or record.version.tracked:
        return
    alone = record.spec.sweep is None  # then its run was its trial's, and has its end
    if all(trial.tracked for trial in record.trials) and (alone or _close_version(work, at, record)):
        work.tell(Tracked(*at, {}, whole_version=True))


def _close_version(work: Pass, at: tuple[str, int], record: Record) -> bool:
    whole = work.showing(record).whole()
    try:
        run_id = record.version.run_id
        if run_id is None:
            run_id = work.world.tracker.open([whole])[whole.key]
            work.tell(Opened(*at, run_id, work.world.tracker.uri, {}))
        work.world.tracker.close(whole, run_id, None, record.version.state, record.version.artifacts)
    except UnavailableError as error:
        work.trouble = error.message
        return False
    except RejectedError:
        return True  # as for a trial: deleted by hand
    return True


def _ours(work: Pass, uri: str | None) -> bool:
    return uri in (None, work.world.tracker.uri)
