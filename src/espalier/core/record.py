"""What a ledger holds, and what a version says about its trials. Never decides and never folds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from espalier.core.model import Best, Counts, Objective, Policy, Spec, Trial, Version, VersionState


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
    """Return whether ``policy`` allows a further attempt of an ended trial.

    A failure without a handle is a definite refusal, which no repetition mends.
    """
    if trial.cancel_requested_at or trial.attempt == 0:
        return False
    if trial.state == "failed":
        return trial.handle is not None and trial.retried < policy.retries
    return trial.state == "lost" and trial.recovered < policy.recoveries


def _is_number(value: float | None) -> bool:
    return value is not None and value == value and value not in (float("inf"), float("-inf"))
