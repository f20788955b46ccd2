"""The durable queue of one clone: what was submitted, how it stands. Never starts anything, never holds a secret.

Every change is one SQLite transaction; a change that is already made changes nothing.
"""

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from espalier.backends.local.slots import Outcome
from espalier.core.content import canonical_json, data_from, from_plain, plain, plain_data, sha256
from espalier.core.errors import UnavailableError
from espalier.core.masking import secret_shape, without_credentials
from espalier.core.model import Program, Resources
from espalier.core.names import run_key
from espalier.core.ports import Launch

FORMAT = 1
FILE = "queue.sqlite"
BUSY_S = 30.0
_IN = 500  # SQLite takes at least 999 variables
_AT_ONCE = 256  # a guess: more than a machine has slots; the rest is looked at when these have started

_SCHEMA = """
CREATE TABLE specs (id TEXT PRIMARY KEY, spec TEXT NOT NULL);
CREATE TABLE trials (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  key TEXT NOT NULL UNIQUE,
  version TEXT NOT NULL,
  trial TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  spec TEXT NOT NULL,
  launch TEXT NOT NULL,
  prepared TEXT NOT NULL,
  cpus REAL NOT NULL, memory_gib REAL, gpus REAL NOT NULL,
  parallel INTEGER, max_failures INTEGER NOT NULL,
  counts_as_failure INTEGER NOT NULL, forced INTEGER NOT NULL,
  state TEXT NOT NULL,
  round INTEGER NOT NULL DEFAULT 1,
  cancel INTEGER NOT NULL DEFAULT 0,
  assigned TEXT NOT NULL DEFAULT '[]',
  environment TEXT NOT NULL DEFAULT '{}',
  submitted_at TEXT NOT NULL, started_at TEXT, ended_at TEXT,
  exit_code INTEGER, message TEXT
);
CREATE INDEX trials_by_state ON trials (state, number);
CREATE INDEX trials_by_version ON trials (version, trial, attempt);
"""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What submitting found out, so that starting needs no git and no look around.

    ``layout`` is the digest of the files laid out; ``links`` maps a place in the working directory to what
    it links to; ``shadowed`` are import paths of the repository (relative) that the copy stands in for.
    """

    layout: str
    links: Mapping[str, str] = field(default_factory=dict)
    shadowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One attempt in the queue, without its launch."""

    number: int
    key: str
    version: str
    trial: str
    attempt: int
    resources: Resources
    parallel: int | None
    max_failures: int
    counts_as_failure: bool
    forced: bool
    state: str
    round: int
    cancel: bool
    gpus: tuple[str, ...]
    environment: Mapping[str, str]
    started_at: str | None
    ended_at: str | None
    exit_code: int | None
    message: str | None


_COLUMNS = (
    "number, key, version, trial, attempt, cpus, memory_gib, gpus, parallel, max_failures, counts_as_failure, forced,"
    " state, round, cancel, assigned, environment, started_at, ended_at, exit_code, message"
)


def version_key(launch: Launch) -> str:
    """Return the name under which the queue counts ``parallel`` and ``max_failures``."""
    return run_key(launch.ledger_id, launch.job, launch.line, launch.version, None)


def now() -> str:
    """Return the time as RFC 3339 in UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Queue:
    """The queue below a root.

    Every call opens it, so that it can be used from any thread and after a fork; ``kept`` holds it open, for a
    process that uses it all the time from one thread.
    """

    def __init__(self, root: Path, *, kept: bool = False) -> None:
        self.path = root / FILE
        self._kept = self._connect() if kept else None

    def exists(self) -> bool:
        return self.path.exists()

    def make(self) -> None:
        """Make the queue unless it is there; others see it whole or not at all."""
        folder = self.path.with_name(f".making-{os.getpid()}-{threading.get_ident()}")
        folder.mkdir(mode=0o700)
        try:
            made = Queue(folder)
            os.close(os.open(made.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            with made._open() as db:
                db.execute("PRAGMA journal_mode=WAL")
            with made._transaction(lasting=True) as db:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version={FORMAT}")
            with suppress(FileExistsError):
                os.link(made.path, self.path)
        finally:
            shutil.rmtree(folder)

    def add(self, key: str, launch: Launch, prepared: Prepared, environment: Mapping[str, str]) -> bool:
        """Add one attempt; return whether it was new."""
        want = launch.spec.resources
        spec = canonical_json(plain(launch.spec))
        with self._transaction(lasting=True) as db:
            db.execute("INSERT OR IGNORE INTO specs VALUES (?, ?)", (sha256(spec), spec))
            done = db.execute(
                "INSERT OR IGNORE INTO trials (key, version, trial, attempt, spec, launch, prepared, cpus, memory_gib,"
                " gpus, parallel, max_failures, counts_as_failure, forced, state, environment, submitted_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?)",
                (
                    key, version_key(launch), launch.trial, launch.attempt, sha256(spec),
                    json.dumps(_encode(launch)), json.dumps(_encode_prepared(prepared)),
                    want.cpus, want.memory_gib, want.gpus,
                    launch.parallel, launch.max_failures, launch.counts_as_failure, launch.forced,
                    json.dumps(dict(environment)), now(),
                ),
            )  # fmt: skip
            return done.rowcount > 0

    def read(self, keys: Collection[str]) -> dict[str, Row]:
        """Return the rows of those ``keys`` that are known."""
        found: dict[str, Row] = {}
        wanted = list(dict.fromkeys(keys))
        with self._open() as db:
            for start in range(0, len(wanted), _IN):
                part = wanted[start : start + _IN]
                marks = ",".join("?" * len(part))
                for line in db.execute(f"SELECT {_COLUMNS} FROM trials WHERE key IN ({marks})", part):
                    row = _row(line)
                    found[row.key] = row
        return found

    def unfinished(self) -> bool:
        """Return whether anything is queued or running."""
        with self._open() as db:
            return db.execute("SELECT 1 FROM trials WHERE state IN ('queued','running') LIMIT 1").fetchone() is not None

    def running(self) -> list[Row]:
        """Return what is running, oldest first."""
        with self._open() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM trials WHERE state='running' ORDER BY number")
            return [_row(line) for line in rows]

    def queued(self) -> list[Row]:
        """Return what is queued, oldest first: of each version no more than can start at once."""
        with self._open() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY version ORDER BY number) AS place"
                f" FROM trials WHERE state='queued') WHERE place <= {_AT_ONCE} ORDER BY number"
            )
            return [_row(line) for line in rows]

    def launch(self, key: str) -> tuple[Launch, Prepared]:
        """Return what was submitted under ``key``."""
        with self._open() as db:
            line = db.execute(
                "SELECT launch, prepared, specs.spec FROM trials JOIN specs ON specs.id = trials.spec WHERE key = ?",
                (key,),
            ).fetchone()
        return _decode(json.loads(line[0]), json.loads(line[2])), _decode_prepared(json.loads(line[1]))

    def outcomes(self, versions: Collection[str]) -> dict[str, list[Outcome]]:
        """Return how the latest attempt of each trial of ``versions`` stands."""
        found: dict[str, list[Outcome]] = {version: [] for version in versions}
        with self._open() as db:
            for version in found:
                rows = db.execute(
                    "SELECT state, counts_as_failure, MAX(attempt) FROM trials WHERE version = ? GROUP BY trial",
                    (version,),
                )
                found[version] = [Outcome(state, bool(counts)) for state, counts, _ in rows]
        return found

    def start(self, chosen: Mapping[str, tuple[str, ...]]) -> set[str]:
        """Mark queued trials as running, with their GPUs; return those that still were queued."""
        started = set()
        with self._transaction(lasting=True) as db:
            for key, gpus in chosen.items():
                done = db.execute(
                    "UPDATE trials SET state='running', started_at=?, assigned=?, message=NULL"
                    " WHERE key=? AND state='queued'",
                    (now(), json.dumps(gpus), key),
                )
                if done.rowcount:
                    started.add(key)
        return started

    def back(self, key: str) -> None:
        """Queue a running trial again whose program was not started; its round ends."""
        with self._transaction() as db:
            db.execute(
                "UPDATE trials SET state='queued', round=round+1, started_at=NULL, assigned='[]'"
                " WHERE key=? AND state='running'",
                (key,),
            )

    def end(self, key: str, state: str, *, exit_code: int | None, message: str | None, ended_at: str = "") -> None:
        """Record the final state of a trial that has none; after a power cut it is found again in its folder."""
        with self._transaction() as db:
            db.execute(
                "UPDATE trials SET state=?, exit_code=?, message=?, ended_at=?"
                " WHERE key=? AND state IN ('queued','running')",
                (state, exit_code, message, ended_at or now(), key),
            )

    def stop(self, version: str, message: str) -> int:
        """Cancel what is queued of ``version`` and not forced; return how many."""
        with self._transaction() as db:
            return db.execute(
                "UPDATE trials SET state='cancelled', message=?, ended_at=?"
                " WHERE version=? AND state='queued' AND forced=0",
                (message, now(), version),
            ).rowcount

    def cancel_queued(self, keys: Iterable[str], message: str) -> None:
        """Cancel those of ``keys`` that are queued."""
        with self._transaction() as db:
            for key in keys:
                db.execute(
                    "UPDATE trials SET state='cancelled', message=?, ended_at=? WHERE key=? AND state='queued'",
                    (message, now(), key),
                )

    def wish_cancel(self, key: str) -> bool:
        """Cancel ``key`` if it is queued, else leave the wish; return whether it runs."""
        self.cancel_queued([key], "cancelled before it was started")
        with self._transaction() as db:
            return db.execute("UPDATE trials SET cancel=1 WHERE key=? AND state='running'", (key,)).rowcount > 0

    def say(self, messages: Mapping[str, str | None]) -> None:
        """Set the message of queued trials."""
        with self._transaction() as db:
            for key, message in messages.items():
                db.execute("UPDATE trials SET message=? WHERE key=? AND state='queued'", (message, key))

    def describe(self, key: str, environment: Mapping[str, str]) -> None:
        """Set what is recorded of a trial's interpreter and packages."""
        with self._transaction() as db:
            db.execute("UPDATE trials SET environment=? WHERE key=?", (json.dumps(dict(environment)), key))

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
        if db.execute("PRAGMA user_version").fetchone()[0] > FORMAT:
            db.close()
            raise UnavailableError(f"{self.path} is of a newer espalier", hint="upgrade espalier")
        return db

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._kept:
                yield self._kept
            else:
                with closing(self._connect()) as db:
                    yield db
        except sqlite3.Error as error:
            raise UnavailableError(
                f"the queue {self.path} cannot be used: {error}", hint="see whether the disk is full or read-only"
            ) from error

    @contextmanager
    def _transaction(self, *, lasting: bool = False) -> Iterator[sqlite3.Connection]:
        """Change the queue, all or nothing; ``lasting``: what is said here outlives a power cut."""
        with self._open() as db:
            db.execute(f"PRAGMA synchronous={'FULL' if lasting else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise


def _row(line: tuple[Any, ...]) -> Row:
    number, key, version, trial, attempt, cpus, memory_gib, gpus, parallel, most, counts, forced = line[:12]
    state, round_, cancel, assigned, environment, started_at, ended_at, exit_code, message = line[12:]
    return Row(
        number=number,
        key=key,
        version=version,
        trial=trial,
        attempt=attempt,
        resources=Resources(cpus=cpus, memory_gib=memory_gib, gpus=gpus),
        parallel=parallel,
        max_failures=most,
        counts_as_failure=bool(counts),
        forced=bool(forced),
        state=state,
        round=round_,
        cancel=bool(cancel),
        gpus=tuple(json.loads(assigned)),
        environment=json.loads(environment),
        started_at=started_at,
        ended_at=ended_at,
        exit_code=exit_code,
        message=message,
    )


def _encode(launch: Launch) -> dict[str, Any]:
    """Return ``launch`` without its spec and without what may be a credential."""
    program = launch.program
    kept = {name: without_credentials(value) for name, value in launch.variables.items() if not secret_shape(value)}
    return {
        "format": FORMAT,
        "ledger_id": launch.ledger_id,
        "project": launch.project,
        "job": launch.job,
        "line": launch.line,
        "version": launch.version,
        "trial": launch.trial,
        "attempt": launch.attempt,
        "commit": launch.commit,
        "params": dict(launch.params),
        "program": {
            "command": list(program.command),
            "env": dict(program.env),
            "data": {name: plain_data(data) for name, data in program.data.items()},
        },
        "variables": kept,
        "parallel": launch.parallel,
        "max_failures": launch.max_failures,
        "counts_as_failure": launch.counts_as_failure,
        "forced": launch.forced,
    }


def _decode(tree: Mapping[str, Any], spec: Mapping[str, Any]) -> Launch:
    program = tree["program"]
    return Launch(
        ledger_id=tree["ledger_id"],
        project=tree["project"],
        job=tree["job"],
        line=tree["line"],
        version=tree["version"],
        trial=tree["trial"],
        attempt=tree["attempt"],
        commit=tree["commit"],
        spec=from_plain(spec),
        params=tree["params"],
        program=Program(
            tuple(program["command"]),
            program["env"],
            {name: data_from(data) for name, data in program["data"].items()},
        ),
        variables=tree["variables"],
        parallel=tree["parallel"],
        max_failures=tree["max_failures"],
        counts_as_failure=tree["counts_as_failure"],
        forced=tree["forced"],
    )


def _encode_prepared(prepared: Prepared) -> dict[str, Any]:
    return {"layout": prepared.layout, "links": dict(prepared.links), "shadowed": list(prepared.shadowed)}


def _decode_prepared(tree: Mapping[str, Any]) -> Prepared:
    return Prepared(tree["layout"], tree["links"], tuple(tree["shadowed"]))
