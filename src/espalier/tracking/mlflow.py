"""The Tracker that shows versions and trials as MLflow runs. Never imports mlflow, never decides what is true.

A server is spoken to by REST, a database through the service process (``child``). Every effect may be repeated:
runs are found by their key before they are made, metrics carry the time at which they were first seen, and what
was sent is noted below ``.espalier/tracking/`` only to save work.

- ``open`` makes a reused trial's run whole (params, last metrics, FINISHED); closing it again does no harm.
- A run that a person deleted stays deleted: ``log`` and ``close`` leave it alone, and ``close`` returns what the
  trial's own file of metrics says. A run that MLflow never heard of (another database) is made again by ``close``.
- The log of attempt 1 is the artifact ``espalier/log.txt``, of later ones ``espalier/log-2.txt``, and so on; the
  output folder lies at the top of the run's artifacts, a later attempt's file over an earlier one's.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from espalier.core.errors import EspalierError, RejectedError, UnavailableError
from espalier.core.masking import without_credentials
from espalier.core.model import FINAL, Artifacts, State, VersionState
from espalier.core.names import run_key
from espalier.core.ports import Report, Subject
from espalier.tracking import artifact, page
from espalier.tracking.child import ChildStore
from espalier.tracking.keys import decode_key, encode_key, from_stored, to_stored
from espalier.tracking.location import (
    absolute_uri,
    artifact_root,
    experiment_location,
    is_http,
    local_path,
    locked,
    probe_file,
    sqlite_file,
)
from espalier.tracking.outbox import Outbox, Sent, last_values
from espalier.tracking.sending import Sender
from espalier.tracking.store import Experiment, LostAnswer, Metric, Run, Store
from espalier.tracking.ui import ui

__all__ = ["MLflowTracker", "ui"]

NOTE = "mlflow.note.content"
FINISHED = ("FINISHED", "FAILED", "KILLED")
_CLIENT_PATIENCE = {  # of a trial's own client, which otherwise waits four minutes for a server that is away
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",  # half a minute where the connection is refused
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
_FEW = 3  # up to so many trials are looked for one by one
_ALL = 50_000
_STRAYS = 10


class MLflowTracker:
    """Runs in the MLflow at ``uri``; ``root`` is ``.espalier``, ``artifacts`` overrides where a database's lie."""

    def __init__(
        self, uri: str, root: Path, repository: Path, artifacts: str | None, environ: Mapping[str, str]
    ) -> None:
        self._full_uri = absolute_uri(uri, repository)
        self.uri = without_credentials(self._full_uri)
        self._given_by_environment = environ.get("MLFLOW_TRACKING_URI") == uri
        self._environ = environ
        self._folder = root.absolute() / "tracking"
        self._outbox = Outbox(self._folder)
        self._send = Sender(self._store, self._put, self._outbox, environ)
        place = artifacts or str(artifact_root(self._full_uri, repository.absolute()))
        self._artifacts = place if "://" in place else str(repository.absolute() / place)
        self._child = ChildStore(self._full_uri, self.uri, self._folder, environ)
        self._reached: Store | None = None
        self._experiments: dict[str, Experiment] = {}
        self._experiment_of: dict[str, str] = {}

    def start(self) -> None:
        """Begin what takes seconds, where anything does; returns at once. To be called before planning."""
        with suppress(EspalierError, OSError):  # the first real call says what is wrong
            if self._store() is self._child:
                self._child.start()

    def release(self) -> None:
        """Let go of connections; the next call makes them anew."""
        self._child.close()
        if self._reached:
            self._reached.close()
            self._reached = None

    def probe(self) -> None:
        """Raise UnavailableError, within seconds, when no run can be made."""
        file = sqlite_file(self._full_uri)
        if file is None:
            self._store().probe()
        else:
            probe_file(file, self.uri)

    def open(self, subjects: Sequence[Subject]) -> Mapping[str, str]:
        """Return the run of each key, found or made, with all that is known before it ends."""
        groups: dict[tuple[str, str, str | None, int], list[Subject]] = {}
        for subject in subjects:
            version = subject.version
            groups.setdefault((subject.experiment, version.job, version.line, version.version), []).append(subject)
        opened: dict[str, str] = {}
        with _disk(), locked(f"open\n{self.uri}"):
            for group in groups.values():
                opened |= {key: run.id for key, run in self._open_version(group).items()}
        return opened

    def variables(self, run_id: str) -> Mapping[str, str]:
        """Return what makes a program's MLflow client go on with the run. Credentials stay in the environment."""
        experiment_id = self._experiment_of.get(run_id)
        if experiment_id is None:
            run = self._store().run(run_id)
            if run is None:
                raise RejectedError(f"MLflow at {self.uri} has no run {run_id}", hint="was it deleted? apply again")
            experiment_id = self._experiment_of[run_id] = run.experiment_id
        found = {"MLFLOW_EXPERIMENT_ID": experiment_id, "MLFLOW_RUN_ID": run_id, **_CLIENT_PATIENCE}
        if not (self.uri != self._full_uri and self._given_by_environment):  # there it is with its password
            found["MLFLOW_TRACKING_URI"] = self.uri
        return found

    def log(self, run_id: str, report: Report, attempt: int) -> None:
        """Send what is new of a trial that runs. MLflow being away is no error: the next pass sends it."""
        sent = self._outbox.read(run_id)
        begins = report.state == "running" and sent.running < attempt
        if sent.gone or not (begins or self._send.has_news(report, sent)):
            return
        over = report.state in FINAL  # of an attempt that another one follows, and that nobody closes
        try:
            with _disk():
                self._log(run_id, report, attempt, sent, begins=begins, over=over)
        except UnavailableError:
            if over:
                self._send.owe(run_id, report, attempt)
        except RejectedError:
            run = self._store().run(run_id)
            if run is not None and not run.deleted:
                raise
            if run is not None:
                self._outbox.write(run_id, replace(sent, gone=True))

    def close(
        self, subject: Subject, run_id: str, report: Report | None, state: State, artifacts: Artifacts
    ) -> Mapping[str, float]:
        """Bring everything of an ended run to MLflow, its status last; return its last metrics by name."""
        with _disk():
            return self._close(subject, run_id, report, state, artifacts)

    def _log(self, run_id: str, report: Report, attempt: int, sent: Sent, *, begins: bool, over: bool) -> None:
        if begins:
            self._store().write(run_id, (), {}, {"espalier.attempt": str(attempt)})
            self._store().update(run_id, "RUNNING", None, None)
            sent = replace(sent, running=attempt)
            self._outbox.write(run_id, sent)
        run = self._store().run(run_id) if over or sent.owed else None
        if run is not None and not run.deleted:
            sent = self._send.settle(run, sent)
        sent = self._send.metrics(run_id, report, sent, ended=over)
        if over and run is not None and not run.deleted:
            self._send.log(run, report, attempt, sent.secrets)

    def _close(
        self, subject: Subject, run_id: str, report: Report | None, state: State, artifacts: Artifacts
    ) -> Mapping[str, float]:
        run = self._store().run(run_id)
        if run is None:
            run = self._store().run(self.open([subject])[subject.key])
        if run is None or run.deleted:
            self._outbox.write(run_id, replace(self._outbox.read(run_id), gone=True))
            return _told_by(subject, report)
        sent = self._send.settle(run, self._outbox.read(run.id))
        if report is not None:
            sent = self._send.metrics(run.id, report, sent, ended=True)
            if subject.trial is not None and not subject.trial.reused_from:
                self._send.artifacts(run, subject, report, sent, artifacts)
        self._fill(run, subject, state, subject.version.run_id, self._strays(run, subject))
        ended = (report.ended_at if report else None) or _ended_at(subject)
        status = page.status_of(state)
        end_ms = (milliseconds(ended) if ended else _now_ms()) if status in FINISHED else None
        name = page.run_name(subject)
        self._store().update(run.id, status, end_ms, name if run.name != name else None)
        after = self._store().run(run.id)
        return {decode_key(key): from_stored(value) for key, value in (after.metrics if after else {}).items()}

    # Which way

    def _store(self) -> Store:
        if self._reached is None:
            self._reached = self._child
            if is_http(self._full_uri):
                from espalier.tracking import rest  # httpx: a database never needs it

                if not rest.needs_client(self._environ):
                    self._reached = rest.RestStore(self._full_uri, self.uri, self._environ)
        return self._reached

    def _put(self, run: Run, path: str, file: Path) -> None:
        folder = local_path(run.artifact_uri)
        if folder is not None:
            artifact.copy_in(folder, path, file)
        elif run.artifact_uri.startswith("mlflow-artifacts:"):
            self._store().put(run.artifact_uri, path, file)
        else:
            self._child.put(run.artifact_uri, path, file)

    # Finding and making runs

    def _experiment(self, name: str) -> Experiment:
        if name not in self._experiments:
            location = None if is_http(self._full_uri) else experiment_location(self._artifacts, name)
            found = self._store().experiment(name, location)
            if location and found.location.startswith("mlflow-artifacts:"):
                raise RejectedError(
                    f"the experiment {name!r} in {self.uri} keeps its artifacts at a server",
                    hint="set tracking.uri to that server, or tracking.experiment to another name",
                )
            self._experiments[name] = found
        return self._experiments[name]

    def _open_version(self, subjects: Sequence[Subject]) -> dict[str, Run]:
        experiment = self._experiment(subjects[0].experiment)
        opened: dict[str, Run] = {}
        whole = [subject for subject in subjects if not page.is_child(subject)]
        for subject in whole:
            opened |= self._open_runs(experiment, [subject], None)
        children = [subject for subject in subjects if page.is_child(subject)]
        if children:
            version_run = opened[whole[0].key].id if whole else self._run_of_version(experiment, children[0])
            opened |= self._open_runs(experiment, children, version_run)
        return opened

    def _run_of_version(self, experiment: Experiment, subject: Subject) -> str | None:
        version = subject.version
        if version.run_id and version.tracking_uri in (None, self.uri):
            return version.run_id
        key = run_key(subject.ledger_id, version.job, version.line, version.version, None)
        found = self._by_key(experiment, key)
        return found[0].id if found else None

    def _open_runs(
        self, experiment: Experiment, subjects: Sequence[Subject], version_run: str | None
    ) -> dict[str, Run]:
        found = self._find(experiment, subjects, version_run)
        made: list[Subject] = []
        for subject in subjects:
            if subject.key not in found:
                found[subject.key] = self._make(experiment, subject, version_run)
                made.append(subject)
        if made and sqlite_file(self._full_uri) is None:  # others, or a lost answer, may have made the same
            found |= self._settle(self._candidates(experiment, made, version_run))
        fresh = {subject.key for subject in made}
        for subject in subjects:
            run = found[subject.key]
            self._experiment_of[run.id] = run.experiment_id
            self._complete(run, subject, version_run, is_fresh=subject.key in fresh)
        return found

    def _find(self, experiment: Experiment, subjects: Sequence[Subject], version_run: str | None) -> dict[str, Run]:
        found: dict[str, Run] = {}
        for key, runs in self._candidates(experiment, subjects, version_run).items():
            recorded = {_recorded(subject) for subject in subjects if subject.key == key}
            found[key] = next((run for run in runs if run.id in recorded), runs[0])  # never another one than given out
        return found

    def _candidates(
        self, experiment: Experiment, subjects: Sequence[Subject], version_run: str | None
    ) -> dict[str, list[Run]]:
        """Return the runs of each key that has any, by start time and id."""
        found: dict[str, list[Run]] = {}
        if version_run and len(subjects) > _FEW:
            keys = {subject.key for subject in subjects}
            for run in self._store().search(experiment.id, f"tags.`mlflow.parentRunId` = '{version_run}'", _ALL):
                key = run.tags.get("espalier.key", "")
                if key in keys:
                    found.setdefault(key, []).append(run)
            return {key: sorted(runs, key=_age) for key, runs in found.items()}
        for subject in subjects:
            runs = self._by_key(experiment, subject.key)
            if runs:
                found[subject.key] = runs
        return found

    def _by_key(self, experiment: Experiment, key: str) -> list[Run]:
        return sorted(self._store().search(experiment.id, f"tags.`espalier.key` = '{key}'", 100), key=_age)

    def _make(self, experiment: Experiment, subject: Subject, version_run: str | None) -> Run:
        parent = subject.parent
        known = parent is not None and parent.tracking_uri in (None, self.uri)
        tags = page.tags(
            subject, version_run=version_run, parent_version_run=parent.run_id if parent and known else None
        )
        tags[NOTE] = page.note(subject, _state(subject))
        started = subject.trial.started_at if subject.trial else None
        start_ms = milliseconds(started or subject.version.created_at)
        for left in (2, 1, 0):
            try:
                return self._store().create(experiment.id, page.run_name(subject), start_ms, tags)
            except LostAnswer:
                found = self._by_key(experiment, subject.key)
                if found:
                    return found[0]
                if not left:
                    raise
        raise AssertionError("the last try returns or raises")

    def _settle(self, candidates: Mapping[str, Sequence[Run]]) -> dict[str, Run]:
        """Return the oldest run of each key; put the others, which nobody was given, into MLflow's bin."""
        for runs in candidates.values():
            for other in runs[1:]:
                if not other.metrics and not other.params:
                    self._store().delete(other.id)
        return {key: runs[0] for key, runs in candidates.items()}

    def _complete(self, run: Run, subject: Subject, version_run: str | None, *, is_fresh: bool) -> None:
        """Give a run what it lacks of what is known before the end."""
        state = _state(subject)
        reused = state == "reused"
        if is_fresh:
            self._write_params(run, page.params(subject))
            if subject.spec.secrets and subject.trial is not None:  # ``log`` knows the run alone
                sent = replace(self._outbox.read(run.id), secrets=tuple(subject.spec.secrets))
                self._outbox.write(run.id, sent)
        else:
            self._fill(run, subject, state, version_run)
        if not page.is_child(subject):
            self._send.pages(run, subject)
        wanted = page.status_of(state)
        if reused and subject.trial is not None:
            at = milliseconds(subject.trial.ended_at or subject.version.created_at)
            points = [
                Metric(encode_key(key), to_stored(value), at, 0) for key, value in sorted(subject.trial.metrics.items())
            ]
            self._store().write(run.id, points, {}, {})
            self._store().update(run.id, wanted, at, None)
        elif wanted not in FINISHED and ((is_fresh and wanted != "RUNNING") or run.status in FINISHED):
            self._store().update(run.id, wanted, None, None)

    def _fill(
        self,
        run: Run,
        subject: Subject,
        state: State | VersionState,
        version_run: str | None,
        strays: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Write the params that are missing, and the tags and the note that are not as they should be."""
        wanted = page.tags(
            subject,
            version_run=run.tags.get("mlflow.parentRunId") or version_run,
            parent_version_run=run.tags.get("espalier.parent_run_id")
            or (subject.parent.run_id if subject.parent else None),
        )
        wanted[NOTE] = page.note(subject, state, strays)
        changed = {key: value for key, value in wanted.items() if run.tags.get(key) != value}
        points: list[Metric] = []
        best = subject.version.best
        if best is not None and subject.trial is None:
            at = milliseconds(subject.version.ended_at or subject.version.created_at)
            points = [Metric(encode_key(best.metric), to_stored(best.value), at, 0)]
        if changed or points:
            self._store().write(run.id, points, {}, changed)
        self._write_params(run, page.params(subject))

    def _write_params(self, run: Run, params: Mapping[str, str]) -> None:
        """Write the params that the run lacks; one that the program set to something else stays as it did."""
        missing = {key: value for key, value in params.items() if key not in run.params}
        if not missing:
            return
        try:
            self._store().write(run.id, (), missing, {})
        except RejectedError:  # a race: one that was set meanwhile refuses the whole batch
            for key, value in missing.items():
                with suppress(RejectedError):
                    self._store().write(run.id, (), {key: value}, {})

    def _strays(self, run: Run, subject: Subject) -> Sequence[tuple[str, str]]:
        """Return name and id of the runs that programs opened beside theirs while a version ran."""
        if page.is_child(subject):
            return ()
        query = (
            f"attributes.start_time >= {run.start_ms} AND tags.`espalier.key` IS NULL "
            "AND tags.`mlflow.parentRunId` IS NULL"
        )
        found = self._store().search(run.experiment_id, query, _STRAYS)
        return [(other.name, other.id) for other in sorted(found, key=_age)]


@contextmanager
def _disk() -> Iterator[None]:
    """A disk that is full or closed to us is something that may work later."""
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"{error.filename or 'a file'} cannot be used: {error.strerror or error}",
            hint="make room, and give yourself the rights below .espalier/",
        ) from error


def milliseconds(time_: str) -> int:
    """Return an RFC 3339 time as milliseconds since 1970."""
    return int(datetime.fromisoformat(time_).timestamp() * 1000)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _state(subject: Subject) -> State | VersionState:
    return subject.trial.state if subject.trial else subject.version.state


def _recorded(subject: Subject) -> str | None:
    return subject.trial.run_id if subject.trial and subject.trial.run_id else subject.version.run_id


def _ended_at(subject: Subject) -> str | None:
    return (subject.trial.ended_at if subject.trial else None) or subject.version.ended_at


def _age(run: Run) -> tuple[int, str]:
    return run.start_ms, run.id


def _told_by(subject: Subject, report: Report | None) -> dict[str, float]:
    """Return the last metrics of a trial whose run is gone."""
    known = dict(subject.trial.metrics) if subject.trial else {}
    return known | (last_values(Path(report.metrics)) if report and report.metrics else {})
