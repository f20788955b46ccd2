"""What the tracker asks of MLflow, whichever way it is reached. Never decides what a run shows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from espalier.core.errors import EspalierError, RejectedError, UnavailableError
from espalier.tracking.keys import RunStatus

METRICS_MAX = 1000  # of one log-batch, and of all its items together
PARAMS_MAX = 100
TAGS_MAX = 100


class Metric(NamedTuple):
    """A point of a curve; ``timestamp`` in milliseconds."""

    key: str
    value: float
    timestamp: int
    step: int


@dataclass(frozen=True, slots=True)
class Experiment:
    """An MLflow experiment; ``location`` is where its artifacts lie."""

    id: str
    location: str


@dataclass(frozen=True, slots=True)
class Run:
    """A run as MLflow has it; ``metrics`` are the last values."""

    id: str
    experiment_id: str
    name: str
    status: str
    start_ms: int
    artifact_uri: str
    deleted: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


class LostAnswer(UnavailableError):
    """What was asked may have been done: look before asking again."""


class Store(Protocol):
    """MLflow's tracking API, the part of it that we use.

    UnavailableError: later; RejectedError: never. All but ``create`` may be repeated.
    """

    def probe(self) -> None: ...
    def experiment(self, name: str, location: str | None) -> Experiment: ...  # found or made
    def search(self, experiment_id: str, query: str, limit: int) -> Sequence[Run]: ...
    def create(self, experiment_id: str, name: str, start_ms: int, tags: Mapping[str, str]) -> Run: ...
    def run(self, run_id: str) -> Run | None: ...  # deleted ones too
    def write(
        self, run_id: str, metrics: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None: ...
    def update(self, run_id: str, status: RunStatus | None, end_ms: int | None, name: str | None) -> None: ...
    def delete(self, run_id: str) -> None: ...  # to MLflow's bin
    def put(self, artifact_uri: str, path: str, file: Path) -> None: ...
    def close(self) -> None: ...


def batches(
    metrics: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]
) -> Iterable[tuple[Sequence[Metric], Mapping[str, str], Mapping[str, str]]]:
    """Yield what one call may carry each: tags and params first, in fewest calls."""
    left_params, left_tags = list(params.items()), list(tags.items())
    at = 0
    while at < len(metrics) or left_params or left_tags:
        some_params, left_params = left_params[:PARAMS_MAX], left_params[PARAMS_MAX:]
        some_tags, left_tags = left_tags[:TAGS_MAX], left_tags[TAGS_MAX:]
        room = METRICS_MAX - len(some_params) - len(some_tags)
        yield metrics[at : at + room], dict(some_params), dict(some_tags)
        at += room


def deleted_experiment(name: str) -> RejectedError:
    """Return the refusal for an experiment that lies in MLflow's bin."""
    return RejectedError(
        f"the MLflow experiment {name!r} was deleted",
        hint="restore it (mlflow experiments restore), or delete it for good (mlflow gc), or name another one "
        "in tracking.experiment",
    )


def refused(message: str, uri: str) -> EspalierError:
    """Return the error for an answer that no repetition changes."""
    return RejectedError(f"MLflow at {uri} refused: {message}", hint="read what it says; espalier doctor checks more")


def run_from_json(found: Mapping[str, Any]) -> Run:
    """Return the run that MLflow's REST API describes."""
    info, content = found["info"], found.get("data", {})
    tags = {tag["key"]: tag.get("value", "") for tag in content.get("tags", ())}
    return Run(
        id=info.get("run_id") or info["run_uuid"],
        experiment_id=str(info["experiment_id"]),
        name=info.get("run_name") or tags.get("mlflow.runName", ""),
        status=info.get("status", "RUNNING"),
        start_ms=int(info.get("start_time", 0)),
        artifact_uri=info.get("artifact_uri", ""),
        deleted=info.get("lifecycle_stage") == "deleted",
        tags=tags,
        params={param["key"]: param.get("value", "") for param in content.get("params", ())},
        metrics={metric["key"]: float(metric.get("value", 0.0)) for metric in content.get("metrics", ())},
    )
