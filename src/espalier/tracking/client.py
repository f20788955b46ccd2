"""MLflow through its own client, for the service process alone. Never imported by a command: it costs seconds."""

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import mlflow.exceptions
from mlflow import MlflowClient
from mlflow.entities import Metric as ClientMetric
from mlflow.entities import Param, RunStatus, RunTag
from mlflow.entities import Run as ClientRun
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from espalier.core.errors import EspalierError, RejectedError, UnavailableError
from espalier.tracking import keys
from espalier.tracking.location import locked, sqlite_file
from espalier.tracking.store import Experiment, Metric, Run, batches, deleted_experiment, refused

_LATER = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
_LATER_TEXT = ("OperationalError", "database is locked", "could not connect", "timed out", "Max retries exceeded")
_LOCAL_FILE_SYSTEMS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs", "apfs"}
_PAGE = 1000


class ClientStore:
    """A Store over the mlflow client; ``shown`` is the URI without credentials."""

    def __init__(self, uri: str, shown: str) -> None:
        self._shown = shown
        with _translated(shown):
            prepare(uri)
            mlflow.set_tracking_uri(uri)  # where proxied artifacts go
            self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            self._client.search_experiments(max_results=1)

    def probe(self) -> None:
        with _translated(self._shown):
            self._client.search_experiments(max_results=1)

    def experiment(self, name: str, location: str | None) -> Experiment:
        with _translated(self._shown):
            found = self._client.get_experiment_by_name(name)
            if found is None:
                with contextlib.suppress(mlflow.exceptions.MlflowException):  # somebody else made it: find it
                    self._client.create_experiment(name, artifact_location=location)
                found = self._client.get_experiment_by_name(name)
            if found is None:
                self._client.create_experiment(name, artifact_location=location)  # raises what is wrong
                raise UnavailableError(f"MLflow at {self._shown} lost experiment {name!r}", hint="try again")
        if found.lifecycle_stage == "deleted":
            raise deleted_experiment(name)
        return Experiment(str(found.experiment_id), found.artifact_location)

    def search(self, experiment_id: str, query: str, limit: int) -> Sequence[Run]:
        runs: list[Run] = []
        token: str | None = None
        with _translated(self._shown):
            while len(runs) < limit:
                page = self._client.search_runs(
                    [experiment_id], query, max_results=min(_PAGE, limit - len(runs)), page_token=token
                )
                runs += [_run(found) for found in page]
                token = page.token
                if not token:
                    break
        return runs

    def create(self, experiment_id: str, name: str, start_ms: int, tags: Mapping[str, str]) -> Run:
        with _translated(self._shown):
            return _run(self._client.create_run(experiment_id, start_time=start_ms, tags=dict(tags), run_name=name))

    def run(self, run_id: str) -> Run | None:
        with _translated(self._shown):
            try:
                return _run(self._client.get_run(run_id))
            except mlflow.exceptions.MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise

    def write(self, run_id: str, metrics: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        with _translated(self._shown):
            for some, some_params, some_tags in batches(metrics, params, tags):
                self._client.log_batch(
                    run_id,
                    metrics=[ClientMetric(point.key, point.value, point.timestamp, point.step) for point in some],
                    params=[Param(key, value) for key, value in some_params.items()],
                    tags=[RunTag(key, value) for key, value in some_tags.items()],
                )

    def update(self, run_id: str, status: keys.RunStatus | None, end_ms: int | None, name: str | None) -> None:
        told = RunStatus.from_string(status) if status else None
        with _translated(self._shown):  # the client's own methods take three transactions for it
            self._client._tracking_client.store.update_run_info(run_id, told, end_ms, name)

    def delete(self, run_id: str) -> None:
        with _translated(self._shown):
            self._client.delete_run(run_id)

    def put(self, artifact_uri: str, path: str, file: Path) -> None:
        folder, _, name = path.rpartition("/")
        with _translated(self._shown), tempfile.TemporaryDirectory(prefix="espalier-") as staged:
            named = Path(staged) / name  # MLflow takes the name from the file
            named.symlink_to(file.absolute())
            get_artifact_repository(artifact_uri).log_artifact(str(named), folder or None)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        return None


def prepare(uri: str) -> None:
    """Give a fresh SQLite file its tables, once whoever else starts too, and a journal that lets people read it.

    They are made in a file beside it: MLflow's migrations cannot go on where a death or a full disk stopped them.
    """
    file = sqlite_file(uri)
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(f"database\n{file}"):
        if not file.exists() or file.stat().st_size == 0:
            fresh = file.with_name(f"{file.name}-fresh")
            _remove(fresh)  # of one that died
            try:
                _make(fresh)
                os.replace(fresh, file)
            finally:
                _remove(fresh)
        MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)


def _make(file: Path) -> None:
    """Make a database with MLflow's tables in ``file``, which nobody has open afterwards."""
    uri = f"sqlite:///{file}"
    wal = _file_system(file) in _LOCAL_FILE_SYSTEMS
    if wal:
        with contextlib.closing(sqlite3.connect(file, timeout=20)) as database:
            database.execute("PRAGMA journal_mode=WAL")
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.search_experiments(max_results=1)
    client._tracking_client.store.engine.dispose()
    if wal:
        with contextlib.closing(sqlite3.connect(file, timeout=20)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _remove(database: Path) -> None:
    for ending in ("", "-wal", "-shm", "-journal"):
        database.with_name(database.name + ending).unlink(missing_ok=True)


def _file_system(file: Path) -> str:
    """Return the type of the file system that holds ``file``; empty where that cannot be told."""
    best, kind = "", ""
    try:
        mounts = Path("/proc/mounts").read_text("utf-8")
    except OSError:
        return ""
    where = os.path.realpath(file)
    for line in mounts.splitlines():
        _, mount, type_, *_ = line.split(" ")
        inside = where == mount or where.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, type_
    return kind


def _run(found: ClientRun) -> Run:
    info, content = found.info, found.data
    return Run(
        id=info.run_id,
        experiment_id=str(info.experiment_id),
        name=info.run_name or "",
        status=info.status,
        start_ms=int(info.start_time or 0),
        artifact_uri=info.artifact_uri or "",
        deleted=info.lifecycle_stage == "deleted",
        tags=dict(content.tags),
        params=dict(content.params),
        metrics=dict(content.metrics),
    )


@contextlib.contextmanager
def _translated(shown: str) -> Iterator[None]:
    try:
        yield
    except EspalierError:
        raise
    except Exception as error:
        raise _error(error, shown) from error


def _error(error: Exception, shown: str) -> EspalierError:
    code: Any = getattr(error, "error_code", "")
    text = str(error) if isinstance(error, mlflow.exceptions.MlflowException) else f"{type(error).__name__}: {error}"
    text = " ".join(text.split())[:1000]
    if "out-of-date database schema" in text or "Detected out-of-date" in text:
        return RejectedError(
            f"the database {shown} was made by another release of MLflow",
            hint=f"back it up, then: mlflow db upgrade {shown}",
        )
    if code in _LATER or any(mark in text for mark in _LATER_TEXT) or isinstance(error, ConnectionError | TimeoutError):
        return UnavailableError(f"MLflow at {shown} does not answer: {text}", hint="is its database reachable?")
    return refused(text, shown)
