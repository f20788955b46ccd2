"""Send what is intended: runs first, then the attempts, then their handles in batches. Never makes an intent."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from espalier.core.content import program
from espalier.core.errors import RejectedError
from espalier.core.events import Event, Observed, Opened, Record, Snapshot, Submitted
from espalier.core.model import Point, Trial, Version
from espalier.core.names import line_name
from espalier.core.plan import to_send
from espalier.core.ports import Backend, Launch, World
from espalier.engine.show import Showing, showing

BATCH, BATCH_S = 200, 60.0
"""Handles are appended after so many launches or seconds (design: launching once)."""

RUNS_AT_ONCE = 8  # small, so that the first trial starts while later runs are still being made


def record_of(snapshot: Snapshot, line: str, version: int) -> Record | None:
    """Return a version that is the last of its line or still runs; its line must be loaded."""
    found = snapshot.lines.get(line)
    if found is None:
        return None
    return found.last if found.last.version.version == version else found.open.get(version)


def backend_of(world: World, version: Version) -> Backend:
    """Return the backend that the trials of ``version`` run on."""
    return world.backends(version.backend)


def launch(world: World, snapshot: Snapshot, versions: Collection[tuple[str, int]], *, fresh: bool) -> Snapshot:
    """Send every intended attempt of ``versions`` that has no handle; return the snapshot after it.

    ``fresh``: the intents were recorded by this very call, so nothing can have been sent before.
    A definite refusal is recorded as ``failed``. Where a place cannot be reached, what was sent is
    recorded and UnavailableError raised: the attempts stay intended. Where MLflow refuses the runs
    of a version, the others are sent, and then RejectedError is raised.
    """
    pending: list[Event] = []
    since = world.clock.monotonic()
    try:
        for event in _send_all(world, snapshot, versions, fresh=fresh):
            pending.append(event)
            if len(pending) >= BATCH or world.clock.monotonic() - since > BATCH_S:
                told, pending = pending, []
                snapshot = world.ledger.append(snapshot, merged(told), "submitted", world.actor)
                since = world.clock.monotonic()
    finally:
        if pending:
            snapshot = world.ledger.append(snapshot, merged(pending), "submitted", world.actor)
    return snapshot


def merged(events: Collection[Event]) -> list[Event]:
    """Return ``events`` with the handles and runs of each version told at once."""
    out: list[Event] = []
    handles: dict[tuple[str, int], dict[str, tuple[int, str]]] = {}
    runs: dict[tuple[str, int], Opened] = {}
    for event in events:
        if isinstance(event, Submitted):
            handles.setdefault((event.line, event.version), {}).update(event.handles)
        elif isinstance(event, Opened):
            before = runs.get((event.line, event.version))
            trials = {**(before.trials if before else {}), **event.trials}
            runs[event.line, event.version] = replace(event, trials=trials)
        else:
            out.append(event)
    told: list[Event] = [*runs.values()]
    told += [Submitted(line, version, found) for (line, version), found in handles.items()]
    return [*told, *out]


def _send_all(
    world: World, snapshot: Snapshot, versions: Collection[tuple[str, int]], *, fresh: bool
) -> Iterator[Event]:
    refused: RejectedError | None = None
    for line, number in versions:
        record = record_of(snapshot, line, number)
        if record is None or snapshot.ledger_id is None:
            continue
        backend = backend_of(world, record.version)
        trials = [t for t in to_send(record) if t.attempt and t.key and t.place == backend.place]
        if not trials:
            continue
        try:
            yield from _send(world, backend, showing(world, record, snapshot.ledger_id), trials, fresh=fresh)
        except RejectedError as error:  # of this version alone, such as an experiment that was deleted
            refused = refused or error
    if refused:
        raise refused


def _send(world: World, backend: Backend, shown: Showing, trials: Sequence[Trial], *, fresh: bool) -> Iterator[Event]:
    record = shown.record
    version = record.version
    name = line_name(version.job, version.line)
    found = {} if fresh else backend.find([trial.key for trial in trials if trial.key])
    for trial in trials:  # needs no run: what can get none can still be cancelled
        if trial.cancel_requested_at:
            sent = next(iter(found.get(trial.key or "", ())), None)
            yield from _cancel_unsent(world, backend, name, version, trial, sent)
    trials = [trial for trial in trials if not trial.cancel_requested_at]
    for few in (trials[n : n + RUNS_AT_ONCE] for n in range(0, len(trials), RUNS_AT_ONCE)):
        whole = shown.whole()
        parts = {trial.id: shown.part(trial) for trial in few}
        runs = world.tracker.open([whole, *(part for part in parts.values() if part.key != whole.key)])
        opened = {trial: runs[part.key] for trial, part in parts.items()}
        yield Opened(name, version.version, runs[whole.key], world.tracker.uri, opened)
        for trial in few:
            sent = next(iter(found.get(trial.key or "", ())), None)
            try:
                handle = sent or backend.submit(trial.key or "", _launch(world, shown, trial, opened[trial.id]))
            except RejectedError as error:
                yield Observed(
                    name,
                    version.version,
                    trial.id,
                    trial.attempt,
                    "failed",
                    ended_at=world.clock.now(),
                    message=f"{error.message} ({error.hint})" if error.hint else error.message,
                )
                continue
            yield Submitted(name, version.version, {trial.id: (trial.attempt, handle)})


def _cancel_unsent(
    world: World, backend: Backend, name: str, version: Version, trial: Trial, sent: str | None
) -> Iterator[Event]:
    if sent:
        backend.cancel(sent)
        yield Submitted(name, version.version, {trial.id: (trial.attempt, sent)})
    else:
        now = world.clock.now()
        message = "cancelled before it was sent"
        yield Observed(name, version.version, trial.id, trial.attempt, "cancelled", ended_at=now, message=message)


def _launch(world: World, shown: Showing, trial: Trial, run_id: str) -> Launch:
    version, spec = shown.record.version, shown.record.spec
    policy = version.policy
    return Launch(
        ledger_id=shown.ledger_id,
        project=world.settings.project,
        job=version.job,
        line=version.line,
        version=version.version,
        trial=trial.id,
        attempt=trial.attempt,
        commit=version.commit,
        spec=spec,
        params=trial.params,
        program=program(spec, Point(trial.params, trial.program)),
        variables=world.tracker.variables(run_id),
        parallel=version.parallel,
        max_failures=policy.max_failures,
        counts_as_failure=trial.retried >= policy.retries,
        forced=trial.forced,
    )
