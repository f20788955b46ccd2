"""A Tracker in memory, held to the same contract as MLflow's. Keeps nothing when its process ends."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from espalier.core.errors import UnavailableError
from espalier.core.model import FINAL, Artifacts, State, VersionState
from espalier.core.names import version_name
from espalier.core.ports import Report, Subject

STATUS: Mapping[State | VersionState, str] = {
    "queued": "SCHEDULED",
    "running": "RUNNING",
    "succeeded": "FINISHED",
    "reused": "FINISHED",
    "failed": "FAILED",
    "lost": "FAILED",
    "cancelled": "KILLED",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A run as people see it; ``points`` are (metric, step, value), ``artifacts`` paths."""

    name: str
    status: str
    parent: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    points: Sequence[tuple[str, int, float]] = ()
    artifacts: Mapping[str, str] = field(default_factory=dict)


class MemoryTracker:
    """Runs in a dictionary; ``down`` makes every call fail as when MLflow is away."""

    def __init__(self, uri: str = "memory:") -> None:
        self.uri = uri
        self.down = False
        self.runs: dict[str, Shown] = {}
        self._ids: dict[str, str] = {}

    def probe(self) -> None:
        self._reach()

    def open(self, subjects: Sequence[Subject]) -> Mapping[str, str]:
        self._reach()
        return {subject.key: self._open(subject) for subject in subjects}

    def variables(self, run_id: str) -> Mapping[str, str]:
        return {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_EXPERIMENT_ID": "1", "MLFLOW_RUN_ID": run_id}

    def log(self, run_id: str, report: Report, attempt: int) -> None:
        if self.down or run_id not in self.runs:
            return
        run = self._with_points(self.runs[run_id], report)
        if report.state == "running":
            run = replace(run, status="RUNNING", tags={**run.tags, "espalier.attempt": str(attempt)})
        self.runs[run_id] = run

    def close(
        self, subject: Subject, run_id: str, report: Report | None, state: State, artifacts: Artifacts
    ) -> Mapping[str, float]:
        self._reach()
        if run_id not in self.runs:
            run_id = self._open(subject)
        run = self.runs[run_id]
        if report:
            run = self._with_points(run, report)
            if report.log and Path(report.log).exists():
                log = Path(report.log).read_text("utf-8", "replace")
                run = replace(run, artifacts={**run.artifacts, "espalier/log.txt": log})
        self.runs[run_id] = replace(run, name=_name(subject), status=STATUS[state])
        return dict(self.runs[run_id].metrics)

    def _reach(self) -> None:
        if self.down:
            raise UnavailableError(f"{self.uri} does not answer", hint="make it answer")

    def _open(self, subject: Subject) -> str:
        run_id = self._ids.setdefault(subject.key, uuid.uuid4().hex)
        state = subject.trial.state if subject.trial else subject.version.state
        run = self.runs.get(run_id)
        if run is None:
            run = Shown(_name(subject), STATUS[state])
        elif state not in FINAL and run.status not in ("SCHEDULED", "RUNNING"):
            run = replace(run, status=STATUS[state])
        trial = subject.trial
        if trial is not None:
            run = replace(run, params={key: str(value) for key, value in trial.params.items()})
            if trial.state == "reused":
                run = replace(run, metrics=dict(trial.metrics))
        parent = None
        if trial is not None and subject.spec.sweep is not None:
            parent = next((self._ids[key] for key in self._ids if self._is_parent(key, subject)), None)
        self.runs[run_id] = replace(run, parent=parent or run.parent, tags={**run.tags, **_tags(subject)})
        return run_id

    def _is_parent(self, key: str, subject: Subject) -> bool:
        tags = self.runs[self._ids[key]].tags if self._ids[key] in self.runs else {}
        wanted = _tags(replace(subject, trial=None, key=key))
        return "espalier.trial" not in tags and all(tags.get(name) == value for name, value in wanted.items())

    def _with_points(self, run: Shown, report: Report) -> Shown:
        """Return ``run`` with the points of the report's file that it lacks."""
        if not report.metrics or not Path(report.metrics).exists():
            return run
        points, metrics = list(run.points), dict(run.metrics)
        last = {key: step for key, step, _ in points}
        for line in Path(report.metrics).read_text("utf-8").splitlines():
            told = json.loads(line)
            point = (str(told["key"]), int(told["step"]), float(told["value"]))
            if point not in points:
                points.append(point)
            if point[1] >= last.get(point[0], point[1]):
                last[point[0]] = point[1]
                metrics[point[0]] = point[2]
        return replace(run, points=points, metrics=metrics)


def _name(subject: Subject) -> str:
    version = subject.version
    if subject.trial is None or subject.spec.sweep is None:
        return version_name(version.job, version.line, version.version)
    prefix = f"{version.line}@v{version.version}" if version.line else f"v{version.version}"
    return " ".join([prefix, *(f"{name}={subject.trial.params[name]}" for name in subject.swept)])


def _tags(subject: Subject) -> dict[str, str]:
    version, trial = subject.version, subject.trial
    found = {
        "espalier.key": subject.key,
        "espalier.ledger": subject.ledger_id,
        "espalier.job": version.job,
        "espalier.line": version.line,
        "espalier.version": str(version.version),
        "espalier.digest": version.digest,
        "espalier.commit": version.commit,
        "espalier.trial": trial.id if trial else None,
        "espalier.attempt": str(trial.attempt) if trial and trial.attempt else None,
        "espalier.reused_from": trial.reused_from if trial else None,
    }
    return {key: value for key, value in found.items() if value}
