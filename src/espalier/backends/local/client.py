"""The Backend of this machine. Remembers nothing: the queue does; never runs a program itself."""

import os
import re
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import espalier
from espalier.backends.local import channel, interpreter, layout, order, supervisor
from espalier.backends.local.process import machine_id
from espalier.backends.local.queue import FILE, Prepared, Queue, Row, version_key
from espalier.backends.local.slots import Machine, refusal
from espalier.core.errors import RejectedError, UnavailableError
from espalier.core.masking import mask
from espalier.core.ports import Answer, Launch, Report
from espalier.core.program import late_values, missing_names

WAKE_AGAIN_S = 5.0
_CHUNK = 1 << 20
_KEY = re.compile(r"[0-9a-f]{40}\Z")


def _absent(handle: str) -> Report:
    if not _KEY.match(handle):
        return Report("unknown")
    return Report("lost", message="the queue does not know it any more: was .espalier removed?")


def place_of(root: Path) -> str:
    """Return the place of the queue below ``root``: machine id and absolute path."""
    return f"{machine_id()}:{os.path.realpath(root / FILE)}"


def root_of(place: str) -> Path | None:
    """Return the root of the queue at ``place``, None when it is not on this machine or is gone."""
    machine, _, path = place.partition(":")
    return Path(path).parent if machine == machine_id() and os.path.isfile(path) else None


class LocalBackend:
    """Runs trials as processes of this machine, from a queue below ``root``.

    ``environ`` is the environment that trials of this command get; ``follower`` is started beside them.
    With ``start_runner`` False nothing is started and nothing is made: for commands that only read.
    """

    def __init__(
        self,
        root: Path,
        repository: Path,
        environ: Mapping[str, str],
        follower: Sequence[str] = (),
        start_runner: bool = True,
    ) -> None:
        self.root = Path(os.path.realpath(root))
        self.repository = Path(os.path.realpath(repository))
        self.environ = dict(environ)
        self.follower = tuple(follower)
        self.start_runner = start_runner
        self.place = place_of(self.root)
        self._queue = Queue(self.root)
        self._lock = threading.Lock()
        self._machine: Machine | None = None
        self._prepared: dict[str, Prepared] = {}
        self._woken_at = float("-inf")

    def submit(self, key: str, launch: Launch) -> str:
        """Queue one attempt and return its handle, which is ``key``. What is there already is adopted.

        Raises RejectedError for what this machine can never run: too large, files or data not there.
        """
        if self._queue.exists() and self._queue.read([key]):
            self._tell([])
            return key
        with self._lock:
            self._make()
            why = refusal(launch.spec.resources, self._find_machine())
            if why:
                raise RejectedError(f"this machine cannot run it: {why}", hint="change resources in the job's config")
            found = interpreter.inspect(self._path_first(), self.environ, self.root)
            prepared = self._prepare(launch, found)
        self._queue.add(key, launch, prepared, found.describe() if found else {})
        extra = {key: dict(launch.variables)} if launch.variables else {}
        self._tell([version_key(launch)], extra)
        return key

    def status(self, handles: Collection[str]) -> Mapping[str, Report]:
        """Return how each handle stands; ``unknown`` for what is no key. Brings a dead runner back.

        A key that the queue at this place does not hold was sent to a queue that is gone: ``lost``.
        """
        rows = self._queue.read(handles) if handles and self._queue.exists() else {}
        unfinished = any(row.state in ("queued", "running") for row in rows.values())
        waits = any(row.state == "queued" and row.message for row in rows.values())  # for names that we may have
        if self.start_runner and unfinished and self._may_wake() and (waits or not supervisor.is_alive(self.root)):
            self.wake()
            rows = self._queue.read(handles)
        return {handle: self._report(rows[handle]) if handle in rows else _absent(handle) for handle in handles}

    def cancel(self, handle: str) -> None:
        """End a trial: at once while queued, else with SIGTERM and its grace. Nothing when over or unknown."""
        if self._queue.exists() and self._queue.wish_cancel(handle):
            self._tell([])

    def logs(self, handle: str) -> Iterator[str]:
        """Yield the lines of a trial's output so far, known shapes of secrets masked."""
        path = order.home(self.root, handle) / order.LOG
        if not self._queue.exists() or handle not in self._queue.read([handle]) or not path.is_file():
            return
        with path.open("rb") as file:
            rest = b""
            while part := file.read(_CHUNK):
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    yield mask(line.decode("utf-8", "replace"))
            if rest:
                yield mask(rest.decode("utf-8", "replace"))

    def find(self, keys: Collection[str]) -> Mapping[str, Sequence[str]]:
        """Return the handles of those ``keys`` that were submitted here."""
        rows = self._queue.read(keys) if keys and self._queue.exists() else {}
        return {key: [key] for key in rows}

    def wake(self) -> None:
        """Bring the runner back when it died with work left; it takes this command's environment for that."""
        if self.start_runner and self._queue.exists() and self._queue.unfinished():
            self._tell([])

    def _may_wake(self) -> bool:
        """Return whether asking again may help: a runner ends at once while all that is queued waits for names."""
        return time.monotonic() - self._woken_at > WAKE_AGAIN_S

    def _tell(self, versions: list[str], extra: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """Give the runner this command's environment, in memory; start the runner where there is none."""
        message: dict[str, Any] = {
            "do": "work",
            "environ": self.environ,
            "versions": versions,
            "extra": extra or {},
            "follower": list(self.follower),
        }
        for _ in range(5):
            if channel.ask(self.root, message):
                self._woken_at = time.monotonic()
                return
            if not self.start_runner:
                return
            supervisor.start(self.root, self.repository)
        raise UnavailableError("the runner of the local queue does not start", hint=f"see {self.root / supervisor.LOG}")

    def _make(self) -> None:
        """Make what is missing of the root: private, and ignored by git."""
        if self._queue.exists():
            return
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
            for name in (channel.FOLDER, "trials", "checkpoints", layout.FOLDER, interpreter.FOLDER):
                (self.root / name).mkdir(mode=0o700, exist_ok=True)
            ignore = self.root / ".gitignore"
            if not ignore.exists():
                ignore.touch(mode=0o600)
                ignore.write_text("*\n", "ascii")
        except OSError as error:
            raise UnavailableError(
                f"{self.root} cannot be made: {error.strerror}", hint="see whether the disk is full or read-only"
            ) from error
        self._queue.make()

    def _prepare(self, launch: Launch, found: interpreter.Interpreter | None) -> Prepared:
        """Lay the files out and find the data of this machine."""
        where = order.seat("", launch, self.root, self.repository, self.environ) if self._can_fill(launch) else None
        late = late_values(where) if where else {}
        files = layout.entries(launch.spec.code, launch.program.data, self.repository, self.environ)
        name = layout.digest(files)
        known = self._prepared.get(name)
        if known is None:
            own = Path(espalier.__file__).resolve().parents[1]
            shadowed = interpreter.shadowed(found, self.environ, self.repository, files, own)
            layout.lay_out(self.root, files, self.repository, self.environ)
            known = self._prepared[name] = Prepared(name, {}, shadowed)
        if where is None:
            return known
        return Prepared(name, order.links(launch.program.data, self.repository, self.environ, late), known.shadowed)

    def _can_fill(self, launch: Launch) -> bool:
        """Return whether this command's environment has all that the launch names (its runner may have it)."""
        return not missing_names(launch.spec, self.environ, launch.program)

    def _path_first(self) -> tuple[str, ...]:
        return interpreter.path_first(self.environ, self.repository, sys.executable)

    def _find_machine(self) -> Machine:
        if self._machine is None:
            self._machine = supervisor.look_around(self.environ)
        return self._machine

    def _report(self, row: Row) -> Report:
        folder = order.home(self.root, row.key)
        paths: dict[str, str | None] = {}
        for name in (order.OUTPUT, order.LOG, order.METRICS):
            path = folder / name
            paths[name] = str(path) if path.exists() else None
        state: Answer = row.state  # type: ignore[assignment]
        return Report(
            state=state,
            started_at=row.started_at,
            ended_at=row.ended_at,
            exit_code=row.exit_code,
            message=row.message,
            output=paths[order.OUTPUT],
            log=paths[order.LOG],
            metrics=paths[order.METRICS],
            environment=row.environment if row.started_at else {},
        )
