"""Carry out a plan: guards, one append of all intents, then the launches. Never a stale plan."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

from espalier.core.content import SCHEME, digest
from espalier.core.errors import InputError, RejectedError, StaleError
from espalier.core.events import (
    CancelRequested,
    Created,
    CursorMoved,
    Event,
    Intended,
    Intent,
    Record,
    Retired,
    Snapshot,
    Treated,
)
from espalier.core.model import FINAL, Declared, Job, Lease, Spec, Trial, Version
from espalier.core.names import attempt_key, line_name
from espalier.core.plan import (
    Action,
    Plan,
    draft_trials,
    guard_retirement,
    leave_alone,
    make_plan,
    needed_lines,
    superseded,
    to_retry,
    to_send,
)
from espalier.core.ports import World
from espalier.core.program import needed_names
from espalier.engine.launch import backend_of, launch

LEASE_S = 600.0
"""How long an applier may launch what it intended (design: launching once)."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a person allows beyond the plan."""

    globs: tuple[str, ...] = ()
    skip_errors: bool = False
    allow_retire: bool = False
    cancel_running: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """The versions of a plan by line and number, ``keep`` included; ``started`` when anything was intended."""

    versions: tuple[tuple[str, int], ...]
    snapshot: Snapshot
    started: bool


def plan_at(world: World, rev: str, globs: Collection[str] = ()) -> tuple[Declared, Plan, Snapshot]:
    """Return what ``rev`` declares, the plan for it, and the snapshot that it was made on."""
    declared = world.source.specs(world.source.resolve(rev), globs)
    snapshot = world.ledger.read()
    while missing := set(needed_lines(declared, snapshot.heads, globs)) - snapshot.lines.keys():
        snapshot = world.ledger.read([*snapshot.lines, *missing])
    plan = make_plan(declared, snapshot, globs)
    if _is_behind(world, declared.commit.id, snapshot):
        return declared, replace(plan, behind=True), snapshot
    return declared, _without_later(world, declared, plan, snapshot), snapshot


def check_saved(world: World, saved: Plan, globs: Collection[str] = ()) -> tuple[Declared, Plan, Snapshot]:
    """Plan again at the commit of ``saved``; raise StaleError, or RejectedError when it is not of this repository."""
    try:
        declared, plan, snapshot = plan_at(world, saved.commit, globs)
    except InputError as error:
        raise RejectedError(
            f"the plan is of commit {saved.commit[:12]}, which is unknown here",
            hint="apply it in the repository that it was made in, or plan again",
        ) from error
    if saved.ledger_id is not None and saved.ledger_id != snapshot.ledger_id:
        raise RejectedError(
            f"the plan is of ledger {saved.ledger_id}, this repository has {snapshot.ledger_id or 'none'}",
            hint="apply it where it was made, or plan again",
        )
    before = {action.identity for action in saved.actions if action.action != "keep"}
    after = {action.identity for action in plan.actions if action.action != "keep"}
    if before != after:
        moved = sorted({identity[1] for identity in before ^ after})
        raise StaleError(
            f"the plan is stale: {', '.join(moved[:5])} moved since it was made",
            hint="plan again: espalier plan --out FILE",
        )
    return declared, plan, snapshot


def apply_plan(world: World, declared: Declared, plan: Plan, snapshot: Snapshot, options: Options) -> Applied:
    """Record every intent of ``plan`` in one append, then send them; return what there is to wait for.

    Raises before any intent when the plan is refused: errors in it, a mass retirement, a variable
    that is not set, a tracker where no run can be made. StaleError when a record moved meanwhile.
    """
    world = replace(world, settings=declared.settings)  # a saved plan's commit may name other experiments
    if plan.behind:
        return Applied((), snapshot, started=False)
    if plan.errors and not options.skip_errors:
        wrong = sorted({error.job or "the settings" for error in plan.errors})
        raise InputError(
            f"{len(wrong)} not composed: {', '.join(wrong[:5])}{', …' if len(wrong) > 5 else ''}",
            hint="mend them, or carry out the others: espalier apply --skip-errors",
        )
    if not options.allow_retire:
        guard_retirement(plan, snapshot.heads)
    jobs = {job.name: job for job in declared.jobs}
    sends = [action for action in plan.actions if action.trials.run or action.action in ("create", "revise")]
    for action in sends:
        if action.trials.run:
            check_variables(world, action.job, jobs[action.job].spec, "and apply again; nothing was recorded")
    if sends:
        world.tracker.probe()
    with world.turn():
        if snapshot.ledger_id is None and plan.actions:
            snapshot = world.ledger.found()  # all of it: another first apply may have been faster
        snapshot = _loaded(world, snapshot, plan)
        events = list(_events(world, declared, plan, snapshot, jobs, options))
        branch = _branch(world, snapshot)
        if not plan.errors and not options.globs and snapshot.cursor.get(branch) != declared.commit.id:
            events.append(CursorMoved(branch, declared.commit.id))
        if events and snapshot.ledger_id:
            snapshot = world.ledger.append(snapshot, events, "intent", world.actor)
        versions = tuple((action.job, action.version) for action in plan.actions if action.action != "retire")
        again = tuple((a.job, a.version) for a in plan.actions if a.action == "resume")
        new = tuple((a.job, a.version) for a in plan.actions if a.action in ("create", "revise", "retry"))
        snapshot = launch(world, snapshot, new, fresh=True)
        snapshot = launch(world, snapshot, again, fresh=False)
    return Applied(versions, snapshot, started=bool(new or again))


def intend(world: World, ledger_id: str, record: Record, trials: Collection[Trial], because: str = "") -> Intended:
    """Return the intent of the next attempt of ``trials``; ``because`` empty: what policy says of each."""
    version = record.version
    place = backend_of(world, version).place
    intents = []
    for trial in trials:
        attempt = trial.attempt + 1
        key = attempt_key(ledger_id, version.job, version.line, version.version, trial.id, attempt)
        why = {"failed": "retry", "lost": "recover"}.get(trial.state, "first")
        intents.append(Intent(trial.id, attempt, key, place, because or why))
    return Intended(line_name(version.job, version.line), version.version, tuple(intents), lease(world))


def lease(world: World) -> Lease:
    """Return the right to launch for the next ten minutes."""
    return Lease(world.owner, 1, world.clock.after(LEASE_S))


def _branch(world: World, snapshot: Snapshot) -> str:
    """Return the branch that main lines follow: as set, else that of the first apply."""
    return world.settings.ledger_follow or next(iter(snapshot.cursor), None) or world.branch


def _is_behind(world: World, commit: str, snapshot: Snapshot) -> bool:
    """Return whether ``commit`` is a proper ancestor of the one that was last reconciled."""
    at = snapshot.cursor.get(_branch(world, snapshot))
    return at is not None and at != commit and world.source.contains(at, commit)


def _without_later(world: World, declared: Declared, plan: Plan, snapshot: Snapshot) -> Plan:
    """Leave those jobs alone whose last version is of a descendant of the commit: it was applied for them alone."""
    commit, jobs = declared.commit.id, {job.name: job for job in declared.jobs}

    @cache
    def is_later(other: str) -> bool:
        return other != commit and world.source.contains(other, commit)

    actions = []
    for action in plan.actions:
        head = snapshot.heads.get(action.job)
        moves = head and (action.action != "keep" or any(_treat(head, jobs[action.job])))
        actions.append(leave_alone(head) if head and moves and is_later(head.commit) else action)
    return replace(plan, actions=tuple(actions))


def _loaded(world: World, snapshot: Snapshot, plan: Plan) -> Snapshot:
    """Load the lines that the events of ``plan`` touch; refuse when their heads moved since the plan."""
    touched = [a.job for a in plan.actions if a.job in snapshot.heads]
    kept = [a.job for a in plan.actions if a.action == "keep"]
    missing = set(touched) - set(kept) - snapshot.lines.keys()
    if not missing:
        return snapshot
    fresh = world.ledger.read([*snapshot.lines, *missing])
    for name in touched:
        if fresh.heads[name].version != snapshot.heads[name].version:
            raise StaleError(f"{name} has moved since this was planned", hint="plan again: espalier plan")
    return fresh


def check_variables(world: World, name: str, spec: Spec, then: str = "") -> None:
    """Raise InputError where a variable that trials of ``spec`` need is not set; ``then`` ends the hint."""
    for variable in needed_names(spec):
        if not world.present(variable):
            raise InputError(
                f"{name} needs the environment variable {variable}, which is not set",
                hint=f"set {variable} {then}".rstrip(),
            )


def _events(
    world: World, declared: Declared, plan: Plan, snapshot: Snapshot, jobs: Mapping[str, Job], options: Options
) -> Iterator[Event]:
    for action in plan.actions:
        match action.action:
            case "create" | "revise":
                yield from _create(world, declared, action, jobs[action.job], snapshot)
            case "retry" | "resume":
                yield from _again(world, action, jobs[action.job], snapshot)
            case "keep" if not action.behind:
                yield from _treat(snapshot.heads[action.job], jobs[action.job])
            case "retire":
                yield from _retire(world, snapshot, action, options)


def _create(world: World, declared: Declared, action: Action, job: Job, snapshot: Snapshot) -> Iterator[Event]:
    now, commit, spec = world.clock.now(), declared.commit, job.spec
    kind = str(spec.backend["kind"])
    drafts = draft_trials(job, snapshot)
    place = world.backends(kind).place
    trials = tuple(_first(snapshot, action, trial, place, now) for trial in drafts)
    version = Version(
        job=job.name,
        line=None,
        version=action.version,
        parent=action.parent,
        base=None,
        digest=digest(spec),
        scheme=SCHEME,
        commit=commit.id,
        subject=commit.subject,
        author=commit.author,
        actor=world.actor,
        reason=action.reason,
        created_at=now,
        backend=kind,
        objective=spec.sweep.objective if spec.sweep else None,
        policy=job.policy,
        parallel=spec.sweep.parallel if spec.sweep else None,
        artifacts=job.artifacts,
        lease=lease(world),
        description=job.description,
        origins={change.path: change.origin for change in action.changes if change.origin},
    )
    yield Created(Record(version, spec, trials))
    for number, ids in superseded(job, snapshot.lines.get(job.name), drafts).items():
        yield CancelRequested(job.name, number, ids, now)


def _first(snapshot: Snapshot, action: Action, trial: Trial, place: str, now: str) -> Trial:
    if trial.state == "reused":
        return replace(trial, ended_at=now)
    if trial.waits_for:
        return trial
    key = attempt_key(snapshot.ledger_id or "", action.job, None, action.version, trial.id, 1)
    return replace(trial, attempt=1, key=key, place=place)


def _again(world: World, action: Action, job: Job, snapshot: Snapshot) -> Iterator[Event]:
    head = snapshot.heads[action.job]
    yield from _treat(head, job)
    line = snapshot.lines[action.job]
    record = replace(line.last, version=replace(line.last.version, policy=job.policy))
    trials = to_retry(record) if action.action == "retry" else [t for t in to_send(record) if not t.attempt]
    if trials:
        yield intend(world, snapshot.ledger_id or "", record, trials)


def _treat(head: Version, job: Job) -> Iterator[Event]:
    parallel = job.spec.sweep.parallel if job.spec.sweep else None
    if (head.policy, head.parallel, head.artifacts) != (job.policy, parallel, job.artifacts):
        yield Treated(job.name, head.version, job.policy, parallel, job.artifacts)


def _running(world: World, version: Version, trials: Collection[Trial]) -> set[str]:
    """Return the ids of those trials that run by now, recorded as such or not: the ledger lags behind the backend."""
    backend = backend_of(world, version)
    handles = {trial.handle: trial.id for trial in trials if trial.handle and trial.place == backend.place}
    reports = backend.status(handles) if handles else {}
    seen = {handles[handle] for handle, report in reports.items() if report.state not in ("queued", "unknown")}
    return seen | {trial.id for trial in trials if trial.state == "running"}


def _retire(world: World, snapshot: Snapshot, action: Action, options: Options) -> Iterator[Event]:
    yield Retired(action.job, action.version)
    line = snapshot.lines[action.job]
    now = world.clock.now()
    for record in (line.last, *line.open.values()):
        unfinished = [trial for trial in record.trials if trial.state not in FINAL]
        going = () if options.cancel_running else _running(world, record.version, unfinished)
        ends = tuple(trial.id for trial in unfinished if trial.id not in going)
        if ends:
            yield CancelRequested(action.job, record.version.version, ends, now)
