"""VERSION and TRIAL of the contract (design: commands) as JSON values. Never more than one version."""

from espalier.core.content import plain
from espalier.core.events import Record
from espalier.core.model import Artifacts, Counts, Json, Policy, Trial, Version
from espalier.core.names import line_name, version_name


def version_tree(version: Version) -> dict[str, Json]:
    """Return VERSION."""
    best = version.best
    return {
        "job": version.job,
        "line": version.line,
        "version": version.version,
        "parent": version.parent,
        "base": version.base,
        "digest": version.digest,
        "commit": version.commit,
        "subject": version.subject,
        "state": version.state,
        "retired": version.retired,
        "official": version.official,
        "reason": version.reason,
        "author": version.author,
        "actor": version.actor,
        "created_at": version.created_at,
        "ended_at": version.ended_at,
        "backend": version.backend,
        "run_id": version.run_id,
        "trials": counts_tree(version.counts),
        "best": {"trial": best.trial, "metric": best.metric, "value": best.value} if best else None,
    }


def trial_tree(trial: Trial) -> dict[str, Json]:
    """Return TRIAL."""
    return {
        "id": trial.id,
        "params": dict(trial.params),
        "state": trial.state,
        "attempt": trial.attempt,
        "exit_code": trial.exit_code,
        "message": trial.message,
        "handle": trial.handle,
        "run_id": trial.run_id,
        "started_at": trial.started_at,
        "ended_at": trial.ended_at,
        "metrics": dict(trial.metrics),
        "reused_from": trial.reused_from,
    }


def counts_tree(counts: Counts) -> dict[str, Json]:
    """Return how many trials are in each state."""
    return {
        "total": counts.total,
        "queued": counts.queued,
        "running": counts.running,
        "succeeded": counts.succeeded,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
        "lost": counts.lost,
        "reused": counts.reused,
    }


def policy_tree(policy: Policy) -> dict[str, Json]:
    """Return a policy as it is declared."""
    return {
        "retries": policy.retries,
        "recoveries": policy.recoveries,
        "max_failures": policy.max_failures,
        "on_supersede": policy.on_supersede,
        "reuse": policy.reuse if policy.reuse == "strict" else policy.reuse == "true",
    }


def artifacts_tree(artifacts: Artifacts) -> dict[str, Json]:
    """Return artifacts as they are declared."""
    return {"include": list(artifacts.include), "exclude": list(artifacts.exclude), "max_mb": artifacts.max_mb}


def spec_tree(record: Record) -> dict[str, Json]:
    """Return a recorded spec with its defaults written out, and what is treated beside it."""
    return {
        **plain(record.spec),
        "policy": policy_tree(record.version.policy),
        "artifacts": artifacts_tree(record.version.artifacts),
    }


def name_of(version: Version) -> str:
    """Return ``digits/mlp@v3``."""
    return version_name(version.job, version.line, version.version)


def line_of(version: Version) -> str:
    """Return ``digits/mlp`` or ``digits/mlp+lr-scan``."""
    return line_name(version.job, version.line)
