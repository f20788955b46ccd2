"""Versions, trials and specs as the JSON and YAML that commands print and the ledger stores. Never reads a file."""

import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from espalier.core.content import canonical, data_from, drop_none, plain_data
from espalier.core.model import (
    Accepted,
    Artifacts,
    Best,
    Counts,
    Json,
    Lease,
    Objective,
    Policy,
    Program,
    Reuse,
    Spec,
    Trial,
    Version,
)

_COUNTS = ("total", "queued", "running", "succeeded", "failed", "cancelled", "lost", "reused")
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*\Z")
_WORDS = frozenset(["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf"])
"""What YAML 1.1 or a reader of it takes for something else than a string."""


# VERSION


def version_json(version: Version) -> dict[str, Json]:
    """Return VERSION of the contract, then what else the record holds; every key always, in this order."""
    counts, best, lease = version.counts, version.best, version.lease
    objective, accepted, artifacts, policy = version.objective, version.accepted, version.artifacts, version.policy
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
        "trials": {name: getattr(counts, name) for name in _COUNTS},
        "best": {"trial": best.trial, "metric": best.metric, "value": best.value} if best else None,
        "scheme": version.scheme,
        "tracking_uri": version.tracking_uri,
        "tracked": version.tracked,
        "objective": {"metric": objective.metric, "goal": objective.goal} if objective else None,
        "policy": {
            "retries": policy.retries,
            "recoveries": policy.recoveries,
            "max_failures": policy.max_failures,
            "on_supersede": policy.on_supersede,
            "reuse": policy.reuse,
        },
        "parallel": version.parallel,
        "artifacts": {
            "include": list(artifacts.include),
            "exclude": list(artifacts.exclude),
            "max_mb": artifacts.max_mb,
        },
        "lease": {"owner": lease.owner, "epoch": lease.epoch, "until": lease.until} if lease else None,
        "accepted": {
            "digest": accepted.digest,
            "scheme": accepted.scheme,
            "commit": accepted.commit,
            "actor": accepted.actor,
            "reason": accepted.reason,
        }
        if accepted
        else None,
        "unanswered": version.unanswered,
        "retryable": version.retryable,
        "waiting": version.waiting,
        "exit_code": version.exit_code,
        "message": version.message,
        "open": list(version.open),
        "description": version.description,
        "origins": dict(version.origins),
    }


def version_from(row: Mapping[str, Any]) -> Version:
    """Return the version that ``version_json`` made ``row`` of; keys of a later release are passed over."""
    get = row.get
    policy, artifacts, counts = get("policy") or {}, get("artifacts") or {}, get("trials") or {}
    best, lease, objective, accepted = get("best"), get("lease"), get("objective"), get("accepted")
    return Version(
        job=row["job"],
        line=row["line"],
        version=row["version"],
        parent=row["parent"],
        base=row["base"],
        digest=row["digest"],
        scheme=get("scheme", 1),
        commit=row["commit"],
        subject=row["subject"],
        author=row["author"],
        actor=row["actor"],
        reason=row["reason"],
        created_at=row["created_at"],
        backend=row["backend"],
        state=row["state"],
        retired=row["retired"],
        official=row["official"],
        ended_at=row["ended_at"],
        run_id=row["run_id"],
        tracking_uri=get("tracking_uri"),
        tracked=get("tracked", False),
        counts=Counts(*[counts.get(name, 0) for name in _COUNTS]),
        best=Best(best["trial"], best["metric"], best["value"]) if best else None,
        objective=Objective(objective["metric"], objective["goal"]) if objective else None,
        policy=_policy(
            policy.get("retries", 0),
            policy.get("recoveries", 3),
            policy.get("max_failures", 3),
            policy.get("on_supersede", "finish"),
            policy.get("reuse", "true"),
        ),
        parallel=get("parallel"),
        artifacts=_artifacts(
            tuple(artifacts.get("include", ("**",))),
            tuple(artifacts.get("exclude", ())),
            float(artifacts.get("max_mb", 500.0)),
        ),
        lease=Lease(lease["owner"], lease["epoch"], lease["until"]) if lease else None,
        accepted=Accepted(*[accepted[name] for name in ("digest", "scheme", "commit", "actor", "reason")])
        if accepted
        else None,
        unanswered=get("unanswered", 0),
        retryable=get("retryable", 0),
        waiting=get("waiting", 0),
        exit_code=get("exit_code"),
        message=get("message"),
        open=tuple(get("open") or ()),
        description=get("description", ""),
        origins=get("origins") or {},
    )


@lru_cache(256)  # ten thousand heads share a handful of these
def _policy(retries: int, recoveries: int, max_failures: int, on_supersede: Any, reuse: Reuse) -> Policy:
    return Policy(retries, recoveries, max_failures, on_supersede, reuse)


@lru_cache(256)
def _artifacts(include: tuple[str, ...], exclude: tuple[str, ...], max_mb: float) -> Artifacts:
    return Artifacts(include, exclude, max_mb)


# TRIAL


def trial_json(trial: Trial) -> dict[str, Json]:
    """Return TRIAL of the contract, then what else the record holds; every key always, in this order."""
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
        "metrics": metrics_json(trial.metrics),
        "reused_from": trial.reused_from,
        "content": trial.content,
        "strict": trial.strict,
        "key": trial.key,
        "place": trial.place,
        "retried": trial.retried,
        "recovered": trial.recovered,
        "waits_for": trial.waits_for,
        "cancel_requested_at": trial.cancel_requested_at,
        "tracked": trial.tracked,
        "tracking_uri": trial.tracking_uri,
        "program": _program_json(trial.program) if trial.program else None,
        "environment": dict(trial.environment),
        "forced": trial.forced,
    }


def trial_from(row: Mapping[str, Any]) -> Trial:
    """Return the trial that ``trial_json`` made ``row`` of; keys of a later release are passed over."""
    get = row.get
    program = get("program")
    return Trial(
        id=row["id"],
        params=row["params"],
        content=row["content"],
        strict=row["strict"],
        state=row["state"],
        attempt=row["attempt"],
        exit_code=row["exit_code"],
        message=row["message"],
        handle=row["handle"],
        run_id=row["run_id"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        metrics=metrics_from(row["metrics"]),
        reused_from=row["reused_from"],
        program=_program_from(program) if program else None,
        key=get("key"),
        place=get("place"),
        retried=get("retried", 0),
        recovered=get("recovered", 0),
        waits_for=get("waits_for"),
        cancel_requested_at=get("cancel_requested_at"),
        tracked=get("tracked", False),
        tracking_uri=get("tracking_uri"),
        environment=get("environment") or {},
        forced=get("forced", False),
    )


def metrics_json(metrics: Mapping[str, float]) -> dict[str, Json]:
    """Return ``metrics`` as JSON can hold them: what is not finite is "NaN", "Infinity" or "-Infinity"."""
    return {name: value if math.isfinite(value) else _word(value) for name, value in metrics.items()}


def metrics_from(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that ``metrics_json`` made ``row`` of."""
    return {name: float(value) for name, value in row.items()}


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _program_json(program: Program) -> dict[str, Json]:
    return {
        "command": list(program.command),
        "env": dict(program.env),
        "data": {name: drop_none(plain_data(data)) for name, data in program.data.items()},
    }


def _program_from(row: Mapping[str, Any]) -> Program:
    data = {name: data_from(tree) for name, tree in row["data"].items()}
    return Program(tuple(row["command"]), dict(row["env"]), data)


# Specs as YAML


def spec_yaml(spec: Spec) -> str:
    """Return the canonical form of ``spec`` as block YAML with sorted keys."""
    return to_yaml(canonical(spec))


def to_yaml(value: Mapping[str, Json]) -> str:
    """Return ``value`` as block YAML that every YAML 1.1 and 1.2 reader takes for exactly these values.

    Strings are bare only where no reader can take them for something else; keys are sorted.
    """
    return "".join(f"{line}\n" for line in _map_lines(value, "")) if value else "{}\n"


def _map_lines(value: Mapping[str, Json], indent: str) -> Iterator[str]:
    for name in sorted(value):
        inner = value[name]
        head = f"{indent}{_string(name)}:"
        if isinstance(inner, dict) and inner:
            yield head
            yield from _map_lines(inner, f"{indent}  ")
        elif isinstance(inner, list) and inner:
            yield head
            yield from _list_lines(inner, indent)
        else:
            yield f"{head} {yaml_scalar(inner)}"


def _list_lines(value: list[Json], indent: str) -> Iterator[str]:
    for inner in value:
        if isinstance(inner, dict | list) and inner:
            below = f"{indent}  "
            lines = _map_lines(inner, below) if isinstance(inner, dict) else _list_lines(inner, below)
            first = next(lines)
            yield f"{indent}- {first[len(below) :]}"
            yield from lines
        else:
            yield f"{indent}- {yaml_scalar(inner)}"


def yaml_scalar(value: Json) -> str:
    """Return ``value``, no list or map but an empty one, as YAML on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        text = repr(value + 0.0)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text  # YAML 1.1 wants the point
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return str(value)
    return "{}" if isinstance(value, dict) else "[]"


def _string(text: str) -> str:
    if _PLAIN.match(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    if char in "\n\t\r":
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}[char]
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
