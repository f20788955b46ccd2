"""Values for tests, whole by default: a test names only what it is about."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from espalier.core.content import SCHEME, digest, trial_content, trial_id
from espalier.core.events import Created, Record, Snapshot, fold
from espalier.core.model import Commit, Declared, Job, JobError, Json, Point, Settings, Spec, Sweep, Trial, Version
from espalier.core.plan import draft_trials

NOW = "2026-01-02T03:04:05.000Z"
COMMIT = Commit("c" * 40, "Try a wider net", "Ada <ada@example.org>")
LEDGER_ID = "11111111-2222-3333-4444-555555555555"


def a_spec(**fields: Any) -> Spec:
    return Spec(**{"command": ("python", "train.py"), "code": {"train.py": "a" * 40}, **fields})


def a_job(name: str = "digits/mlp", params: Mapping[str, Json] | None = None, **fields: Any) -> Job:
    """A job with one trial, or with a grid: ``grid={"lr": (0.1, 0.01)}``."""
    grid: Mapping[str, Sequence[Json]] = fields.pop("grid", {})
    treatment = {key: fields.pop(key) for key in ("policy", "artifacts") if key in fields}
    values = dict(params or {"hidden": 64})
    sweep = Sweep(params={key: tuple(choices) for key, choices in grid.items()}) if grid else None
    points = [values]
    for key, choices in grid.items():
        points = [{**point, key: choice} for point in points for choice in choices]
    spec = a_spec(params=values, sweep=sweep, **fields)
    return Job(name, spec, tuple(Point(point) for point in points), **treatment)


def declared(*jobs: Job, errors: Sequence[JobError] = ()) -> Declared:
    return Declared(COMMIT, Settings(project="digits"), tuple(sorted(jobs, key=lambda job: job.name)), tuple(errors))


def a_version(job: Job, number: int = 1, **fields: Any) -> Version:
    whole: dict[str, Any] = {
        "job": job.name,
        "line": None,
        "version": number,
        "parent": number - 1 or None,
        "base": None,
        "digest": digest(job.spec),
        "scheme": SCHEME,
        "commit": COMMIT.id,
        "subject": COMMIT.subject,
        "author": COMMIT.author,
        "actor": "Grace <grace@example.org>",
        "reason": "new job",
        "created_at": NOW,
        "backend": "local",
        "policy": job.policy,
        "artifacts": job.artifacts,
        "objective": job.spec.sweep.objective if job.spec.sweep else None,
    }
    return Version(**{**whole, **fields})


def a_trial(job: Job, params: Mapping[str, Json] | None = None, **fields: Any) -> Trial:
    point = Point(params if params is not None else job.points[0].params)
    identity = (trial_id(point.params), point.params, trial_content(job.spec, point))
    return replace(Trial(*identity, trial_content(job.spec, point, strict=True)), **fields)


def recorded(job: Job, snapshot: Snapshot | None = None, **trial_fields: Any) -> Snapshot:
    """The snapshot after one more version of ``job``, whose sent trials have ``trial_fields``."""
    before = snapshot or Snapshot(tip="t" * 40, ledger_id=LEDGER_ID, project="digits")
    number = before.heads[job.name].version + 1 if job.name in before.heads else 1
    trials = tuple(
        replace(trial, **{"attempt": 1, "handle": "h", **trial_fields})
        if trial.state == "queued" and not trial.waits_for
        else trial
        for trial in draft_trials(job, before)
    )
    return fold(before, [Created(Record(a_version(job, number), job.spec, trials))])
