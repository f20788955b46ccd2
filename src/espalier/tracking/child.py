"""A Store in another process: starts the service, finds it again, asks it. Never imports mlflow."""

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import espalier
from espalier.core.errors import RejectedError, UnavailableError
from espalier.tracking.keys import RunStatus
from espalier.tracking.location import runtime_folder, sqlite_file
from espalier.tracking.store import Experiment, LostAnswer, Metric, Run

ORDER = "ESPALIER_TRACKING_SERVICE"  # the variable that holds what a service is started with
ANSWER_S = 10.0  # silence after which a service counts as hung: it gives a sign every second
CALL_S = 120.0  # one call, the service's start with a fresh database included
PUT_S = 1800.0
_RELEVANT = ("MLFLOW_", "AWS_", "GOOGLE_", "AZURE_", "PG", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_OF_A_RUN = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI")
_STARTS = 4


class ChildStore:
    """A Store over the one service of this repository, URI and credentials; starts it where there is none."""

    def __init__(self, uri: str, shown: str, folder: Path, environ: Mapping[str, str], idle_s: float = 60.0) -> None:
        self._connection: socket.socket | None = None
        self._uri, self._shown, self._folder, self._idle_s = uri, shown, folder, idle_s
        self._environ = {name: value for name, value in environ.items() if name not in _OF_A_RUN}
        name = _fingerprint(uri, folder, self._environ)
        place = runtime_folder()
        self._socket, self._lock = place / f"{name}.sock", place / f"{name}.lock"
        self._starting: tuple[int, int] | None = None  # pid and readable end of what says that it listens
        self._lines = b""
        self._pid = os.getpid()

    def start(self) -> None:
        """Start the service where none listens; returns at once."""
        if self._connection or self._starting or self._reach():
            return
        self._starting = self._spawn()

    def probe(self) -> None:
        parts = urlsplit(self._uri)
        if parts.hostname and not sqlite_file(self._uri):  # quicker than the client's own patience
            port = parts.port or {"http": 80, "https": 443, "mysql": 3306}.get(parts.scheme.split("+")[0], 5432)
            try:
                socket.create_connection((parts.hostname, port), timeout=3).close()
            except OSError as error:
                raise self._unavailable(str(error)) from error
        self._ask("probe")

    def experiment(self, name: str, location: str | None) -> Experiment:
        return Experiment(**self._ask("experiment", name=name, location=location))

    def search(self, experiment_id: str, query: str, limit: int) -> Sequence[Run]:
        return [Run(**found) for found in self._ask("search", experiment_id=experiment_id, query=query, limit=limit)]

    def create(self, experiment_id: str, name: str, start_ms: int, tags: Mapping[str, str]) -> Run:
        found = self._ask("create", experiment_id=experiment_id, name=name, start_ms=start_ms, tags=dict(tags))
        return Run(**found)

    def run(self, run_id: str) -> Run | None:
        found = self._ask("run", run_id=run_id)
        return Run(**found) if found else None

    def write(self, run_id: str, metrics: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        if metrics or params or tags:
            self._ask("write", run_id=run_id, metrics=list(metrics), params=dict(params), tags=dict(tags))

    def update(self, run_id: str, status: RunStatus | None, end_ms: int | None, name: str | None) -> None:
        self._ask("update", run_id=run_id, status=status, end_ms=end_ms, name=name)

    def delete(self, run_id: str) -> None:
        self._ask("delete", run_id=run_id)

    def put(self, artifact_uri: str, path: str, file: Path) -> None:
        self._ask("put", artifact_uri=artifact_uri, path=path, file=str(file.absolute()))

    def close(self) -> None:
        """Let go of the service, which ends when nobody holds it."""
        if self._starting:
            self._wait_for_start()
        if self._connection:
            self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        if self._connection:
            self._connection.close()

    def _ask(self, op: str, **args: Any) -> Any:
        request = json.dumps({"op": op, "args": args}).encode() + b"\n"
        for pause in (0.1, 0.5, None):
            connection = self._connect()
            try:
                connection.sendall(request)
                answer = self._answer(connection, PUT_S if op == "put" else CALL_S)
                break
            except (OSError, EOFError, ValueError) as error:  # it was killed, or hangs
                self._drop()
                if op == "create":
                    raise LostAnswer(f"no answer about a new run at {self._shown}", hint="try again") from error
                if pause is None or isinstance(error, TimeoutError):
                    raise self._unavailable(f"the tracking service gave no answer ({error})") from error
                time.sleep(pause)  # the socket of a killed process takes connections until the kernel has it all
        if "error" not in answer:
            return answer["ok"]
        kind = UnavailableError if answer["error"] == "unavailable" else RejectedError
        raise kind(answer["message"], hint=answer["hint"])

    def _answer(self, connection: socket.socket, within_s: float) -> Any:
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            while b"\n" not in self._lines:
                more = connection.recv(1 << 16)
                if not more:
                    raise EOFError("it ended")
                self._lines += more
            line, _, self._lines = self._lines.partition(b"\n")
            answer = json.loads(line)
            if "working" not in answer:
                return answer
        raise TimeoutError(f"{within_s:.0f} s have passed")

    def _connect(self) -> socket.socket:
        if self._pid != os.getpid():  # after a fork the connection is our parent's
            self._pid, self._connection, self._starting, self._lines = os.getpid(), None, None, b""
        if self._connection:
            return self._connection
        for _ in range(_STARTS):
            if self._starting:
                self._wait_for_start()
            deadline = time.monotonic() + 2
            while True:  # whoever holds the lock is about to listen, or about to end
                if self._reach():
                    assert self._connection is not None
                    return self._connection
                if time.monotonic() > deadline or not self._held():
                    break
                time.sleep(0.02)
            self._starting = self._spawn()
        raise self._unavailable(f"the tracking service does not start, see {self._folder / 'service.log'}")

    def _reach(self) -> bool:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(ANSWER_S)
        try:
            connection.connect(str(self._socket))
        except OSError:
            connection.close()
            return False
        self._connection, self._lines = connection, b""
        return True

    def _held(self) -> bool:
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except OSError:
            return True
        finally:
            os.close(descriptor)

    def _spawn(self) -> tuple[int, int]:
        self._folder.mkdir(parents=True, exist_ok=True)
        order = {"uri": self._uri, "shown": self._shown, "socket": str(self._socket), "lock": str(self._lock)}
        package = str(Path(espalier.__file__).parent.parent)
        paths = [package, *self._environ.get("PYTHONPATH", "").split(os.pathsep)]
        environ = {
            **self._environ,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # it would repeat a create
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            ORDER: json.dumps({**order, "idle_s": self._idle_s}),
        }
        readable, writable = os.pipe()
        null = os.open(os.devnull, os.O_RDONLY)
        log = os.open(self._folder / "service.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", "espalier.tracking.service"],
                environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, null, 0),
                    (os.POSIX_SPAWN_DUP2, writable, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
            )
        finally:
            for descriptor in (writable, null, log):
                os.close(descriptor)
        return pid, readable

    def _wait_for_start(self) -> None:
        assert self._starting is not None
        pid, readable = self._starting
        self._starting = None
        try:
            while os.read(readable, 1):
                pass
        finally:
            os.close(readable)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)

    def _drop(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection, self._lines = None, b""

    def _unavailable(self, why: str) -> UnavailableError:
        return UnavailableError(f"MLflow at {self._shown} cannot be reached: {why}", hint="try again; espalier doctor")


def _fingerprint(uri: str, folder: Path, environ: Mapping[str, str]) -> str:
    """Return what tells apart services that may not answer for each other."""
    relevant = sorted((name, value) for name, value in environ.items() if name.upper().startswith(_RELEVANT))
    parts = [espalier.__version__, espalier.__file__, sys.executable, uri, str(folder), *map(repr, relevant)]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]
