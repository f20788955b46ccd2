"""Decide: what a commit declares and what the ledger records, to one action for each job. Never carries one out."""

import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from espalier.core.content import Change, diff, digest, trial_content, trial_id, unpinned
from espalier.core.errors import InputError, RejectedError
from espalier.core.events import Line, Record, Reusable, Snapshot, may_retry
from espalier.core.model import FINAL, Declared, Job, JobError, Spec, Trial, Version
from espalier.core.names import trial_name, version_name

Kind = Literal["create", "revise", "retry", "resume", "retire", "keep"]
KINDS: tuple[Kind, ...] = ("create", "revise", "retry", "resume", "retire", "keep")

RETIRE_SHARE, RETIRE_FROM = 5, 5
"""More than a fifth of at least five main lines is a mass retirement (design: guards)."""


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """``total`` trials of the version; the other counts are what the action does."""

    total: int = 0
    reused: int = 0
    waiting: int = 0
    run: int = 0
    cancel: int = 0


@dataclass(frozen=True, slots=True)
class Action:
    """What happens to one job. ``reason`` and ``notes`` are for people; apply never reads them."""

    action: Kind
    job: str
    version: int
    parent: int | None
    digest: str
    line: str | None = None
    reason: str = field(default="", compare=False)
    changes: tuple[Change, ...] = field(default=(), compare=False)
    trials: TrialPlan = field(default=TrialPlan(), compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    behind: bool = field(default=False, compare=False)  # its last version is of a later commit: left alone

    @property
    def identity(self) -> tuple[str, str, str | None, int, str]:
        """What has to be the same when a saved plan is applied."""
        return (self.action, self.job, self.line, self.version, self.digest)


@dataclass(frozen=True, slots=True)
class Plan:
    """What an apply would do at ``commit``, seen from the ledger at ``ledger``; actions sorted by job."""

    commit: str
    ledger: str | None
    ledger_id: str | None
    actions: tuple[Action, ...]
    errors: tuple[JobError, ...] = ()
    behind: bool = field(default=False, compare=False)  # a proper ancestor of the cursor's commit: not applied
    globs: tuple[str, ...] = field(default=(), compare=False)  # planned for these jobs only

    @property
    def changes_pending(self) -> bool:
        return any(action.action != "keep" for action in self.actions)


def matches(job: str, globs: Collection[str]) -> bool:
    """Return whether ``job`` is meant by ``globs``; ``*`` crosses ``/``; no glob means every job."""
    return not globs or any(fnmatch.fnmatchcase(job, glob) for glob in globs)


def needed_lines(declared: Declared, heads: Mapping[str, Version], globs: Collection[str] = ()) -> tuple[str, ...]:
    """Return the lines whose whole records ``make_plan`` reads: those of changed specs, or changed attempts."""
    names = []
    for job in declared.jobs:
        head = heads.get(job.name)
        if head is None or not matches(job.name, globs):
            continue
        if head.retired or not _same_spec(digest(job.spec), head) or _attempts_differ(job, head):
            names.append(job.name)
    return tuple(names)


def make_plan(declared: Declared, snapshot: Snapshot, globs: Collection[str] = ()) -> Plan:
    """Return one action for each job that ``globs`` mean; raise InputError for a glob that matches nothing."""
    failed = {error.job for error in declared.errors}
    main = {name: head for name, head in snapshot.heads.items() if head.line is None}
    known = {job.name for job in declared.jobs} | main.keys() | failed
    for glob in globs:
        if not any(matches(name, [glob]) for name in known):
            raise InputError(f"--job {glob} matches no job", hint="see the names: espalier plan, or espalier status")
    actions = [_decide(job, main.get(job.name), snapshot) for job in declared.jobs if matches(job.name, globs)]
    wanted = {job.name for job in declared.jobs} | failed
    actions += [
        _retire(head) for name, head in main.items() if name not in wanted and not head.retired and matches(name, globs)
    ]
    return Plan(
        commit=declared.commit.id,
        ledger=snapshot.tip,
        ledger_id=snapshot.ledger_id,
        actions=tuple(sorted(actions, key=lambda action: action.job)),
        errors=tuple(error for error in declared.errors if matches(error.job, globs)),
        globs=tuple(globs),
    )


def summary(actions: Iterable[Action]) -> dict[Kind, int]:
    """Return how many actions there are of each kind."""
    counts = dict.fromkeys(KINDS, 0)
    for action in actions:
        counts[action.action] += 1
    return counts


def guard_retirement(plan: Plan, heads: Mapping[str, Version]) -> None:
    """Raise RejectedError when ``plan`` retires all there is, or more than a fifth of at least five lines."""
    lines = [head for head in heads.values() if head.line is None and not head.retired]
    going = [action for action in plan.actions if action.action == "retire"]
    if not going:
        return
    vanished = len(going) == len(lines) == len(plan.actions) and not plan.errors
    if vanished or (len(lines) >= RETIRE_FROM and len(going) * RETIRE_SHARE > len(lines)):
        raise RejectedError(
            f"this would retire {len(going)} of {len(lines)} jobs ({', '.join(a.job for a in going[:3])}, …)"
            if len(going) > 3
            else f"this would retire {len(going)} of {len(lines)} jobs ({', '.join(a.job for a in going)})",
            hint="if they are meant to go: espalier apply --allow-retire",
        )


def leave_alone(head: Version) -> Action:
    """Return the action for a job whose last version, ``head``, is of a descendant of the commit."""
    return Action(
        "keep",
        head.job,
        head.version,
        head.parent,
        head.digest,
        reason=f"behind: v{head.version} is of {head.commit[:12]}, which comes after this commit",
        trials=TrialPlan(total=head.counts.total),
        behind=True,
    )


def draft_trials(job: Job, snapshot: Snapshot) -> tuple[Trial, ...]:
    """Return the trials of a new version of ``job``, in the order of its points.

    A trial whose content succeeded before is ``reused``; one that equals an unfinished one waits for
    it; the others are queued with no attempt yet.
    """
    takes_over = job.policy.reuse != "false" and not unpinned(job.spec)
    strict = job.policy.reuse == "strict"
    results = snapshot.reuse.get(job.name, {}) if takes_over else {}
    done: dict[str, Reusable] = results if strict else {result.content: result for result in results.values()}  # type: ignore[assignment]
    unfinished = _unfinished(snapshot, job.name, strict=strict) if takes_over else {}
    trials = []
    for point in job.points:
        trial = Trial(
            id=trial_id(point.params),
            params=point.params,
            content=trial_content(job.spec, point),
            strict=trial_content(job.spec, point, strict=True),
            program=point.program,
        )
        same = trial.strict if strict else trial.content
        if same in done:
            trial = replace(trial, state="reused", reused_from=done[same].trial, metrics=done[same].metrics)
        elif same in unfinished:
            trial = replace(trial, waits_for=unfinished[same])
        trials.append(trial)
    return tuple(trials)


def superseded(job: Job, line: Line | None, trials: Sequence[Trial]) -> dict[int, tuple[str, ...]]:
    """Return, by version, the unfinished trials that ``on_supersede: cancel`` ends; those waited for go on."""
    if line is None or job.policy.on_supersede != "cancel":
        return {}
    waited = {trial.waits_for for trial in trials}
    ends: dict[int, tuple[str, ...]] = {}
    for record in (line.last, *line.open.values()):
        version = record.version
        ids = tuple(
            trial.id
            for trial in record.trials
            if trial.state not in FINAL
            and not trial.cancel_requested_at
            and trial_name(version.job, version.line, version.version, trial.id) not in waited
        )
        if ids:
            ends[version.version] = ids
    return ends


def to_send(record: Record) -> tuple[Trial, ...]:
    """Return the trials that are wanted, wait for nobody and have no handle."""
    return tuple(t for t in record.trials if t.state == "queued" and not t.handle and not t.waits_for)


def to_retry(record: Record) -> tuple[Trial, ...]:
    """Return the ended trials for which the recorded policy allows a further attempt."""
    return tuple(trial for trial in record.trials if may_retry(trial, record.version.policy))


def _decide(job: Job, head: Version | None, snapshot: Snapshot) -> Action:
    wanted = digest(job.spec)
    if head is None:
        return _new_version("create", job, wanted, None, snapshot, "new job")
    if head.retired:
        return _new_version("revise", job, wanted, head, snapshot, "back again")
    if not _same_spec(wanted, head):
        return _new_version("revise", job, wanted, head, snapshot, "")
    total = TrialPlan(total=head.counts.total)
    same = Action("keep", job.name, head.version, head.parent, head.digest, trials=total)
    if head.unanswered:
        holder = f"; {head.lease.owner} may send until {head.lease.until}" if head.lease else ""
        return replace(
            same,
            action="resume",
            reason=f"interrupted: {_trials(head.unanswered)} not sent yet{holder}",
            trials=replace(total, run=head.unanswered),
        )
    retryable = _retryable(head, job, snapshot)
    if retryable:
        return replace(
            same, action="retry", reason=f"{_failure(head)}; attempts left", trials=replace(total, run=retryable)
        )
    return replace(same, reason=_standing(head))


def _retryable(head: Version, job: Job, snapshot: Snapshot) -> int:
    if not _attempts_differ(job, head):
        return head.retryable
    return sum(may_retry(trial, job.policy) for trial in snapshot.lines[job.name].last.trials)


def _attempts_differ(job: Job, head: Version) -> bool:
    """Whether the commit allows other numbers of attempts than recorded, and some trial has use for them."""
    now, then = job.policy, head.policy
    return bool(head.counts.failed and now.retries != then.retries) or bool(
        head.counts.lost and now.recoveries != then.recoveries
    )


def _new_version(kind: Kind, job: Job, wanted: str, head: Version | None, snapshot: Snapshot, reason: str) -> Action:
    line = snapshot.lines.get(job.name)
    trials = draft_trials(job, snapshot)
    changes = diff(line.last.spec, job.spec, job.origins) if line else ()
    ends = superseded(job, line, trials)
    return Action(
        action=kind,
        job=job.name,
        version=head.version + 1 if head else 1,
        parent=head.version if head else None,
        digest=wanted,
        reason=reason or _changed(changes),
        changes=changes,
        trials=TrialPlan(
            total=len(trials),
            reused=sum(trial.state == "reused" for trial in trials),
            waiting=sum(trial.waits_for is not None for trial in trials),
            run=sum(trial.state == "queued" and trial.waits_for is None for trial in trials),
            cancel=sum(map(len, ends.values())),
        ),
        notes=_notes(job.spec, wanted, line),
    )


def _retire(head: Version) -> Action:
    total = TrialPlan(total=head.counts.total, cancel=head.counts.queued)
    return Action(
        "retire", head.job, head.version, head.parent, head.digest, reason="removed from the config", trials=total
    )


def _same_spec(wanted: str, head: Version) -> bool:
    return wanted == head.digest or (head.accepted is not None and wanted == head.accepted.digest)


def _unfinished(snapshot: Snapshot, job: str, *, strict: bool) -> dict[str, str]:
    """Return the names of the job's unfinished trials by content; of several the latest version's."""
    found: dict[str, str] = {}
    line = snapshot.lines.get(job)
    if line is None:
        return found
    records = sorted((line.last, *line.open.values()), key=lambda record: record.version.version)
    for record in records:
        version = record.version
        for trial in record.trials:
            if trial.state not in FINAL and not trial.cancel_requested_at:
                name = trial_name(version.job, version.line, version.version, trial.id)
                found[trial.strict if strict else trial.content] = name
    return found


def _changed(changes: Sequence[Change]) -> str:
    paths = [change.path for change in changes]
    if not paths:
        return "changed"
    if len(paths) > 3:
        return f"{', '.join(paths[:2])} and {len(paths) - 2} more changed"
    return f"{', '.join(paths)} changed"


def _notes(spec: Spec, wanted: str, line: Line | None) -> tuple[str, ...]:
    notes = []
    if line:
        last = line.last.version
        equal = [old.version for old in line.earlier if old.version.digest == wanted]
        if equal:
            notes.append(f"same spec as v{equal[-1].version}")
        if last.state == "running":
            notes.append(f"parent v{last.version} is still running")
        elif last.best:
            notes.append(f"parent v{last.version}: {last.state}, {last.best.metric} {last.best.value:.4g}")
        else:
            notes.append(f"parent v{last.version}: {last.state}")
    for name in unpinned(spec):
        notes.append(f"data.{name} is unpinned (no version): results are never reused")
    return tuple(notes)


def _failure(head: Version) -> str:
    exit_code = f"exit code {head.exit_code}" if head.exit_code is not None else ""
    text = ", ".join(part for part in (exit_code, head.message or "") if part)
    return f"failed ({text})" if text else "failed"


def _standing(head: Version) -> str:
    name = version_name(head.job, head.line, head.version)
    match head.state:
        case "running":
            waits = f", {_trials(head.waiting)} waiting for an equal one" if head.waiting else ""
            return f"running{waits}"
        case "failed":
            return f"{_failure(head)}; espalier retry {name} to try again"
        case "cancelled":
            return f"cancelled; espalier retry {name} to try again"
    return "up to date"


def _trials(number: int) -> str:
    return f"{number} trial" if number == 1 else f"{number} trials"
