"""The process that holds the mlflow client: one for each store, found by every command through a socket.

``python -m espalier.tracking.service``, started by ``child.ChildStore`` with its order as JSON in the variable
``ESPALIER_TRACKING_SERVICE`` (never in its arguments: an address may hold a password). It listens before it
imports mlflow, says so by closing its standard output, and ends when nobody was connected for a minute or when
its socket is gone. It serves one user through a socket that only he can open, and decides nothing.
"""

import contextlib
import fcntl
import json
import os
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWorking
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from espalier.core.errors import EspalierError, RejectedError, UnavailableError
from espalier.tracking.child import ORDER
from espalier.tracking.location import sqlite_file
from espalier.tracking.store import Metric, Store

IDLE_S = 60.0
BEAT_S = 1.0  # while an answer is being worked on, a line says so at this interval


@dataclass(frozen=True, slots=True)
class Order:
    """What a service is started with; ``shown`` is the URI without credentials."""

    uri: str
    shown: str
    socket: str
    lock: str
    idle_s: float = IDLE_S


def main() -> int:
    """Serve until nobody needs it; 0 also when another one already does."""
    if os.fork():
        os._exit(0)  # whoever started us waits for this process only
    os.setsid()
    os.chdir("/")
    order = Order(**json.loads(os.environ.pop(ORDER)))
    lock = os.open(order.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return 0
    with contextlib.suppress(FileNotFoundError):
        os.unlink(order.socket)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        listener.bind(order.socket)
    finally:
        os.umask(old)
    listener.listen(64)
    _close_stdout()
    Service(order, listener).serve()
    _tidy(order.uri)
    os._exit(0)  # no exit handler of a library may delay or write anything


class Service:
    """Answers the requests of all connections, in threads over one Store."""

    def __init__(self, order: Order, listener: socket.socket) -> None:
        self._order = order
        self._listener = listener
        self._inode = os.stat(order.socket).st_ino
        self._file = sqlite_file(order.uri)
        self._database: tuple[int, int] | None = None
        self._pool = ThreadPoolExecutor(max_workers=8)
        self._store: Future[Store] = self._pool.submit(self._load)
        self._count = threading.Lock()
        self._connected = 0
        self._alone_since = time.monotonic()

    def serve(self) -> None:
        """Accept until idle; a store that could not be opened ends the service soon, so that the next tries anew."""
        self._listener.settimeout(BEAT_S)
        while not self._over():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            with self._count:
                self._connected += 1
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()
        if self._still_ours():
            os.unlink(self._order.socket)

    def _load(self) -> Store:
        from espalier.tracking.client import ClientStore  # seconds of CPU: clients already wait in the queue

        store = ClientStore(self._order.uri, self._order.shown)
        self._database = _identity(self._file)
        return store

    def _over(self) -> bool:
        if not self._still_ours():
            return True
        with self._count:
            if self._connected:
                return False
            failed = self._store.done() and self._store.exception() is not None
            return failed or time.monotonic() - self._alone_since > self._order.idle_s

    def _still_ours(self) -> bool:
        try:
            return os.stat(self._order.socket).st_ino == self._inode
        except OSError:
            return False

    def _converse(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rwb") as stream:
            for line in stream:
                work = self._pool.submit(self._answer, json.loads(line))
                while True:
                    try:
                        answer = work.result(timeout=BEAT_S)
                        break
                    except StillWorking:
                        stream.write(b'{"working": true}\n')
                        stream.flush()
                stream.write(json.dumps(answer).encode() + b"\n")
                stream.flush()
        with self._count:
            self._connected -= 1
            self._alone_since = time.monotonic()

    def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            store = self._store.result()
            if _identity(self._file) != self._database:
                os._exit(0)  # our file is gone or another one: who asked starts a service on what is there now
            return {"ok": call(store, request["op"], request["args"])}
        except EspalierError as error:
            kind = "unavailable" if isinstance(error, UnavailableError) else "rejected"
            return {"error": kind, "message": error.message, "hint": error.hint}
        except Exception as error:
            refusal = RejectedError(f"{type(error).__name__}: {error}", hint="")
            hint = f"see {sys.executable} -c 'import mlflow'" if isinstance(error, ImportError) else "try again"
            return {"error": "rejected", "message": f"the mlflow client failed: {refusal.message}", "hint": hint}


def call(store: Store, op: str, args: Mapping[str, Any]) -> Any:
    """Do one request on ``store``; return its answer as JSON values."""
    match op:
        case "probe":
            return store.probe()
        case "experiment":
            return asdict(store.experiment(args["name"], args["location"]))
        case "search":
            return [asdict(run) for run in store.search(args["experiment_id"], args["query"], args["limit"])]
        case "create":
            return asdict(store.create(args["experiment_id"], args["name"], args["start_ms"], args["tags"]))
        case "run":
            found = store.run(args["run_id"])
            return asdict(found) if found else None
        case "write":
            metrics = [Metric(*point) for point in args["metrics"]]
            return store.write(args["run_id"], metrics, args["params"], args["tags"])
        case "update":
            return store.update(args["run_id"], args["status"], args["end_ms"], args["name"])
        case "delete":
            return store.delete(args["run_id"])
        case "put":
            return store.put(args["artifact_uri"], args["path"], Path(args["file"]))
    raise RejectedError(f"{op!r} is nothing that the tracking service does", hint="end it: it is of another release")


def _identity(file: Path | None) -> tuple[int, int] | None:
    """Return what tells a file from another one in its place; None where there is none."""
    try:
        found = os.stat(file) if file else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found else None


def _tidy(uri: str) -> None:
    """Fold SQLite's journal into its file, so that the file alone is whole."""
    file = sqlite_file(uri)
    if file is not None and file.exists():
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(file, timeout=2)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _close_stdout() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
