"""The runner: one process a queue, started when there is work, gone when there is none.

It starts a worker for each trial that has a slot, records how each ended, and keeps a follower beside it.
What it knows that is not in the queue are environments, which it holds in memory only. It may be killed at
any moment: workers go on, and the next runner finds them. Never decides whether a trial is tried again.
"""

import fcntl
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from espalier.backends.local import channel, interpreter, order
from espalier.backends.local.follower import MARK, Follower
from espalier.backends.local.process import Identity, identity, kill_left_over, pidfd, read_json
from espalier.backends.local.queue import Queue, Row, now
from espalier.backends.local.slots import Held, Machine, Wish, choose, gpus_from, refusal, stop_message
from espalier.core.errors import EspalierError
from espalier.core.masking import mask
from espalier.core.program import missing_names
from espalier.worker import main as worker

LOCK = "runner.lock"
LOG = "runner.log"
LINGER_S = 2.0  # a further attempt often comes right after an end
ROUNDS_MAX = 3
_LOG_MAX = 1 << 20
_FDS = 1 << 16  # more than the runner ever has: a few and one for each worker


def main(arguments: list[str]) -> int:
    """Become the runner of ``ROOT REPOSITORY``; 0 once it answers (the caller goes on), or when there is one."""
    root, repository = Path(arguments[0]), Path(arguments[1])
    lock = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(500):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if channel.ask(root, {"do": "hello"}):
                return 0
            time.sleep(0.02)
    else:
        return 1
    listener = channel.listen(root)
    listener.setblocking(False)
    if os.fork():
        os._exit(0)  # the lock and the socket live on in the child
    os.setsid()
    worker.load_prctl()
    runner = _Runner(root, repository)
    try:
        runner.run(listener)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@dataclass
class _Worker:
    key: str
    version: str
    who: Identity
    fd: int
    child: bool
    told: bool = False


class _Runner:
    def __init__(self, root: Path, repository: Path) -> None:
        self.root = root
        self.repository = repository
        self.queue = Queue(root, kept=True)
        self.workers: dict[str, _Worker] = {}
        self.environs: dict[str, dict[str, str]] = {}  # by version
        self.latest: dict[str, str] | None = None
        self.extra: dict[str, dict[str, str]] = {}  # by key: what continues an MLflow run, credentials included
        self.waiting: dict[str, str] = {}  # messages of queued trials, as last said
        self.follower = Follower(root, repository)
        self.selector = selectors.DefaultSelector()
        self.machines: dict[str | None, Machine] = {}  # by what is visible of the GPUs
        self.idle_since: float | None = None

    def run(self, listener: Any) -> None:
        self.selector.register(listener, selectors.EVENT_READ, "message")
        self.say("runner started")
        self.recover()
        while True:
            busy = self.look()
            moment = time.monotonic()
            until = self.follower.care(moment, busy)
            if busy or self.follower.is_wanted():
                self.idle_since = None
            elif self.idle_since is None:
                self.idle_since = moment
            elif moment - self.idle_since >= LINGER_S:
                break
            if self.idle_since is not None:
                until = min(until, self.idle_since + LINGER_S)
            self.wait(listener, until - moment)
        channel.close(self.root, listener)
        self.say("runner ended: nothing to do")

    def wait(self, listener: Any, seconds: float) -> None:
        """Take what happens: messages, ends of workers, the end of the follower."""
        watched = self.follower.fd
        if watched is not None:
            self.selector.register(watched, selectors.EVENT_READ, "follower")
        events = self.selector.select(min(max(0.0, seconds), 3600.0))
        if watched is not None:
            self.selector.unregister(watched)
        for found, _ in events:
            if found.data == "message":
                with channel.received(listener) as taken:
                    if taken:
                        self.take(*taken)
            elif found.data == "follower":
                self.follower.ended(time.monotonic())
            else:
                self.finish(found.data)

    def take(self, message: Mapping[str, Any], client: Any) -> None:
        """Take a command's message: an environment for versions, what continues a run."""
        environ = message.get("environ")
        if environ:
            of_follower = MARK in environ
            environ = {name: value for name, value in environ.items() if name != MARK}
            if self.latest is None or not of_follower:
                self.latest = environ
            for version in message.get("versions", ()):
                if not of_follower or version not in self.environs:
                    self.environs[version] = environ
            self.extra.update(message.get("extra", {}))
            if message.get("follower"):
                self.follower.take(message["follower"], self.latest)
            if message.get("versions"):
                self.follower.submitted(time.monotonic())
            self.idle_since = None
        channel.answer(client, {"ok": True, "pid": os.getpid()})

    # What an earlier runner left

    def recover(self) -> None:
        """Find the workers of trials that are said to run; those without one get their end, or start again."""
        for row in self.queue.running():
            path = order.home(self.root, row.key) / f"claim.{row.round}"
            claim = read_json(path)
            if claim is None:
                # Whoever makes the claim decides: with ours, a worker that is on its way ends without effect.
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                _void(path)
                claim = read_json(path) or {"void": True}
            if claim.get("void"):
                self.again(row)
                continue
            who = Identity(claim["pid"], claim["start"], claim["boot"])
            fd = pidfd(who)
            if fd is None:
                self.settle(row, who)
            else:
                self.watch(_Worker(row.key, row.version, who, fd, child=False))
                self.say(f"{row.key} found again (process {who.pid})")

    def again(self, row: Row) -> None:
        """Queue a trial again whose program was never started."""
        if row.cancel:
            self.end(row.key, "cancelled", None, "cancelled before it was started")
        elif row.round >= ROUNDS_MAX:
            self.end(row.key, "lost", None, f"its worker did not start: see {self.root / LOG}")
        else:
            self.queue.back(row.key)

    def finish(self, done: _Worker) -> None:
        """A worker has ended: record what it wrote."""
        self.selector.unregister(done.fd)
        os.close(done.fd)
        del self.workers[done.key]
        if done.child:
            with suppress(ChildProcessError):
                os.waitpid(done.who.pid, 0)
        row = self.queue.read([done.key])[done.key]
        if read_json(order.home(self.root, row.key) / f"claim.{row.round}") is None:
            _void(order.home(self.root, row.key) / f"claim.{row.round}")
            self.again(row)
        else:
            self.settle(row, done.who)

    def settle(self, row: Row, who: Identity) -> None:
        """Record the end of a claimed round whose worker is gone; without an end that it wrote it is lost."""
        folder = order.home(self.root, row.key)
        end = read_json(folder / "end.json")
        if end is not None and end.get("round") == row.round:
            message = mask(end["message"]) if end["message"] else None
            self.end(row.key, end["state"], end["exit_code"], message, end["ended_at"])
            return
        mine = identity(os.getpid())
        rebooted = mine is not None and mine.boot != who.boot
        if not rebooted and kill_left_over(folder):
            self.say(f"{row.key} left processes behind: killed")
        if row.cancel:
            self.end(row.key, "cancelled", None, "cancelled")
        else:
            self.end(row.key, "lost", None, "the machine was restarted" if rebooted else "its worker was killed")
        shutil.rmtree(folder / order.WORK, ignore_errors=True)

    def end(self, key: str, state: str, exit_code: int | None, message: str | None, ended_at: str = "") -> None:
        self.queue.end(key, state, exit_code=exit_code, message=message, ended_at=ended_at)
        self.extra.pop(key, None)
        self.follower.moved(time.monotonic())
        self.say(f"{key} {state}" + (f" (exit code {exit_code})" if exit_code is not None else ""))

    # What can start

    def look(self) -> bool:
        """Start what has a slot, pass on wishes to cancel; return whether anything runs or could."""
        running = self.queue.running()
        for row in running:
            at_work = self.workers.get(row.key)
            if row.cancel and at_work and not at_work.told:
                at_work.told = True
                (order.home(self.root, row.key) / "cancel").touch(0o600)
                with suppress(ProcessLookupError, OSError):
                    signal.pidfd_send_signal(at_work.fd, signal.SIGTERM)
        held = [Held(row.version, row.resources, row.gpus) for row in running]
        if sum(one.resources.cpus for one in held) >= cpus():
            return True
        wishes, rows = [], {}
        for row in self.allowed(self.queue.queued()):
            if not self.is_known(row):
                continue
            machine = self.machine_for(self.environs[row.version])
            reason = refusal(row.resources, machine)
            if reason:
                self.end(row.key, "failed", None, f"refused: {reason}")
            else:
                wishes.append(Wish(row.key, row.version, row.resources, row.parallel, machine.gpus))
                rows[row.key] = row
        if not wishes:
            return bool(self.workers)
        gpus = dict.fromkeys(gpu for wish in wishes for gpu in wish.gpus or ())
        chosen = choose(wishes, held, replace(machine, gpus=tuple(gpus)))
        if chosen:
            started = self.queue.start(chosen)
            for key, given in chosen.items():
                if key in started:
                    self.start(rows[key], given)
        return bool(self.workers)

    def allowed(self, queued: list[Row]) -> list[Row]:
        """Cancel queued trials of versions that have failed too often; return the others."""
        outcomes = self.queue.outcomes({row.version for row in queued})
        stopped: dict[tuple[str, int], str | None] = {}
        kept = []
        for row in queued:
            limit = (row.version, row.max_failures)
            if limit not in stopped:
                stopped[limit] = message = stop_message(outcomes[row.version], row.max_failures)
                if message and self.queue.stop(row.version, message):
                    self.follower.moved(time.monotonic())
                    self.say(f"{row.key} and what is queued beside it cancelled: {message}")
            if row.forced or not stopped[limit]:
                kept.append(row)
        return kept

    def is_known(self, row: Row) -> bool:
        """Return whether there is an environment for a queued trial; take the latest that has what it needs."""
        if row.version in self.environs:
            return True
        if self.latest is None:
            return False  # who started this runner is about to say
        launch, _ = self.queue.launch(row.key)
        missing = missing_names(launch.spec, self.latest, launch.program)
        if not missing:
            self.environs[row.version] = self.latest
            return True
        message = f"waits for an environment that has {', '.join(missing)}"
        if self.waiting.get(row.key) != message:
            self.waiting[row.key] = message
            self.queue.say({row.key: message})
        return False

    def start(self, row: Row, gpus: tuple[str, ...]) -> None:
        """Start the worker of a trial that is marked as running."""
        try:
            told = self.order_of(row, gpus)
        except EspalierError as error:
            self.end(row.key, "failed", None, error.message)
            return
        folder = order.home(self.root, row.key)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Blocked until the worker is ready for it: a cancel right after the start must not kill it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            pid = _fork_worker(str(folder), row.round, told)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        who = identity(pid) or Identity(pid, "", "")
        fd = os.pidfd_open(pid)
        self.watch(_Worker(row.key, row.version, who, fd, child=True))
        self.follower.moved(time.monotonic())
        self.say(f"{row.key} started (process {pid})")

    def order_of(self, row: Row, gpus: tuple[str, ...]) -> dict[str, Any]:
        launch, prepared = self.queue.launch(row.key)
        environ = dict(self.environs[row.version])
        first = interpreter.path_first(environ, self.repository, sys.executable)
        found = interpreter.inspect(first, environ, self.root)
        if found and found.describe() != row.environment:
            self.queue.describe(row.key, found.describe())
        environ["PYTHONPATH"] = interpreter.python_path(environ, self.repository, prepared.shadowed)
        where = order.seat(
            row.key,
            launch,
            self.root,
            self.repository,
            environ,
            path_first=first,
            shadowed=prepared.shadowed,
            gpus=gpus,
        )
        told = order.order(where, launch, prepared, self.root, environ, self.extra.get(row.key, {}))
        hidden = len(self.machine_for(environ).gpus)
        if hidden and not gpus:
            told["notes"].append(f"resources.gpus is 0: this machine's GPUs ({hidden}) are hidden from the program")
        return told

    def machine_for(self, environ: dict[str, str]) -> Machine:
        """Return this machine as ``environ`` may use it; looked at once for each."""
        name = environ.get("CUDA_VISIBLE_DEVICES")
        if name not in self.machines:
            self.machines[name] = look_around(environ)
        return self.machines[name]

    def watch(self, at_work: _Worker) -> None:
        self.workers[at_work.key] = at_work
        self.selector.register(at_work.fd, selectors.EVENT_READ, at_work)

    def say(self, text: str) -> None:
        print(f"{now()} {text}", flush=True)


def look_around(environ: Mapping[str, str]) -> Machine:
    """Return what this machine has, as far as this process and ``environ`` may use it."""
    memory_gib = None
    with suppress(OSError, ValueError):
        memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    with suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")) / 2**30
        memory_gib = limit if memory_gib is None else min(memory_gib, limit)
    listed: list[str] = []
    program = shutil.which("nvidia-smi", path=environ.get("PATH", os.defpath))
    if program and "CUDA_VISIBLE_DEVICES" not in environ:
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30, check=False)
            listed = done.stdout.splitlines()
    return Machine(cpus(), memory_gib, gpus_from(environ, listed))


def cpus() -> float:
    """Return how many CPUs this process may use."""
    return float(len(os.sched_getaffinity(0)))


def start(root: Path, repository: Path) -> bool:
    """Start the runner of ``root`` unless there is one; return whether one answers now.

    It leaves the terminal, inherits nothing, and its own environment has nothing of the command's.
    """
    log = root / LOG
    with suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_MAX:
            os.truncate(log, 0)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        done = subprocess.run(
            command(root, repository),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=root,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            start_new_session=True,
            check=False,
        )
    finally:
        os.close(out)
    return done.returncode == 0


def command(root: Path, repository: Path) -> list[str]:
    """Return the argv that becomes the runner: without site-packages, which it does not need."""
    package = str(Path(__file__).resolve().parents[3])
    code = (
        "import sys; sys.path.append(sys.argv[1]); from espalier.backends.local.supervisor import main;"
        " sys.exit(main(sys.argv[2:]))"
    )
    return [sys.executable, "-I", "-S", "-c", code, package, str(root), str(repository)]


def is_alive(root: Path) -> bool:
    """Return whether the queue below ``root`` has a runner; starts nothing, writes nothing."""
    try:
        lock = os.open(root / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _fork_worker(folder: str, round_: int, told: dict[str, Any]) -> int:
    """Start a worker, detached; return its number.

    Forked and not executed: starting an interpreter anew takes three times the CPU of all else in a start.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()
        os.closerange(3, _FDS)  # the lock above all, which must end with the runner
        status = worker.work(folder, round_, lambda: told)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _void(path: Path) -> None:
    """Claim a round in no worker's name, unless a worker has."""
    beside = path.with_name(f"{path.name}.void")
    beside.write_text('{"void": true}', "ascii")
    with suppress(FileExistsError):
        os.link(beside, path)
    beside.unlink()
