"""The supervisor of one attempt: claims it, starts the program, keeps its log, ends it, writes how it ended.

Started as ``python -I -S main.py FOLDER ROUND`` with its order (JSON) on stdin, or by ``work`` in a process that
was forked for it. The environment of the program is in the order, and never on disk. Imports nothing of ours but
its neighbours; standard library only, Python 3.7.
Never decides whether an attempt is repeated, and never overwrites an end that was written.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself is slow to import
    from collections.abc import Callable
    from typing import Any

if not __package__:  # started as a file: its neighbours are found from the folder that holds the package
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from espalier.worker.files import create_whole, keep_new, lay_out, remove, write_whole  # noqa: E402
from espalier.worker.masking import Masking  # noqa: E402
from espalier.worker.metrics import Metrics  # noqa: E402

POLL_S = 0.5
DRAIN_S = 2.0  # how long output of what the program left behind is waited for
MESSAGE_MAX = 200
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KEY = "ESPALIER_KEY"


def main(arguments: list[str]) -> int:
    """Run the attempt of ``FOLDER ROUND`` whose order is on stdin; 0 also where another worker has claimed it."""
    folder, round_ = arguments
    return work(folder, int(round_), lambda: json.loads(_read_all(0).decode("utf-8", "surrogatepass")))


def work(folder: str, round_: int, order_of: Callable[[], dict[str, Any]]) -> int:
    """Run one attempt to its end in this process, which is the worker from here on.

    SIGTERM has to be blocked, so that a wish to end that comes early is not its death.
    """
    watch = _Signals()
    if not create_whole(os.path.join(folder, f"claim.{round_}"), claim()):
        return 0
    order = order_of()
    end: dict[str, Any] = {"round": round_}
    try:
        end.update(_Attempt(order, folder, watch).run())
    except Exception as error:  # whatever it is, the attempt has an end that says so
        end.update(state="failed", exit_code=None, message=_short(f"espalier's worker failed: {error!r}"))
    end["ended_at"] = _now()
    write_whole(os.path.join(folder, "end.json"), end)
    remove(order["work"])
    return 0


def claim() -> dict[str, Any]:
    """Return who this process is, for a later runner to know it by."""
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        text = file.read()
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    return {"pid": os.getpid(), "start": text[text.rindex(")") + 2 :].split()[19], "boot": boot}


class _Signals:
    """SIGTERM and SIGCHLD as a readable descriptor; SIGTERM came blocked, so that none is lost at the start."""

    def __init__(self) -> None:
        self.told = False
        self.fd, writing = os.pipe()
        for fd in (self.fd, writing):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._tell)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def _tell(self, number: int, frame: Any) -> None:
        self.told = True

    def clear(self) -> None:
        try:
            while os.read(self.fd, 512):
                pass
        except BlockingIOError:
            pass


class _Attempt:
    def __init__(self, order: dict[str, Any], folder: str, watch: _Signals) -> None:
        self.order = order
        self.folder = folder
        self.watch = watch
        self.log = os.open(order["log"], os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        secrets = [value.encode("utf-8", "surrogateescape") for value in order["mask"]]
        self.masking = Masking(secrets) if secrets else None
        self.output = -1  # read end of the program's output, when it passes through here
        self.metrics = Metrics(order["output"], order["spool"])
        self.pid = 0
        self.status = 0
        self.reason = ""  # why the program was told to end
        self.kill_at = 0.0  # from when on it is killed, once it was told

    def run(self) -> dict[str, Any]:
        order = self.order
        os.makedirs(order["output"], mode=0o700)
        os.makedirs(order["checkpoint"], mode=0o700, exist_ok=True)
        marks = lay_out(order["layout"], order["work"], order["links"])
        write_whole(order["params_file"], order["params"], lasting=False)
        for note in order["notes"]:
            self._say(note)
        if self.watch.told:
            return self._told_end(None)
        fault = self._start()
        if fault:
            self._say(fault[1])
            return {"state": "failed", "exit_code": fault[0], "message": _short(fault[1])}
        self._wait()
        self._end_rest()
        self.metrics.read(final=True)
        for note in self.metrics.notes:
            self._say(note)
        try:
            keep_new(order["work"], marks, order["output"])
        except OSError as error:
            self._say(f"what the program left in its working directory was not kept: {error}")
        return self._end()

    def _start(self) -> tuple[int, str] | None:
        """Start the program; return exit code and message when it cannot be."""
        argv, env = self.order["argv"], self.order["env"]
        path = _find(argv[0], env.get("PATH", ""), self.order["work"])
        if path is None:
            hint = ""
            if "/" not in argv[0] and os.path.exists(os.path.join(self.order["work"], argv[0])):
                hint = f"; is ./{argv[0]} meant?"
            return 127, f"program not found: {argv[0]}{hint}"
        prctl = load_prctl()
        if prctl:
            prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        out = self.log
        if self.masking:
            self.output, out = os.pipe()
        faulty, fault = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                if prctl:
                    prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
                if os.getppid() != parent:
                    os._exit(1)
                for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
                    signal.signal(number, signal.SIG_DFL)
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                os.chdir(self.order["work"])
                os.dup2(nothing, 0)
                os.dup2(out, 1)
                os.dup2(out, 2)
                os.execve(path, argv, env)
            except OSError as error:
                os.write(fault, str(error.errno or 0).encode())
            finally:
                os._exit(127)
        os.close(fault)
        os.close(nothing)
        if self.masking:
            os.close(out)
        answer = _read_all(faulty)
        os.close(faulty)
        if not answer:
            return None
        os.waitpid(self.pid, 0)
        return _exec_fault(int(answer), argv[0])

    def _wait(self) -> None:
        """Wait for the program's end, which is not reaped yet: nobody else can have its number when it is told."""
        limit = self.order["time_limit_s"]
        started = time.monotonic()
        next_poll = started + POLL_S
        killed = False
        while not os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            now = time.monotonic()
            if not self.reason:
                if self.watch.told:
                    self.reason = "cancel" if os.path.exists(os.path.join(self.folder, "cancel")) else "told"
                elif limit is not None and now >= started + limit:
                    self.reason = "time"
                if self.reason:
                    self._signal(signal.SIGTERM)
                    self.kill_at = now + self.order["grace_s"]
            elif not killed and now >= self.kill_at:
                self._signal(signal.SIGKILL)
                killed = True
            if now >= next_poll:
                self.metrics.read()
                next_poll = now + POLL_S
            until = next_poll
            if self.reason and not killed:
                until = min(until, self.kill_at)
            if limit is not None and not self.reason:
                until = min(until, started + limit)
            self._listen(until - now)

    def _end_rest(self) -> None:
        """End what the program left running, with the same grace, take the rest of its output, reap it all."""
        _, self.status = os.waitpid(self.pid, 0)
        if not self.reason and self._group_lives():
            self._signal(signal.SIGTERM)
            self.kill_at = time.monotonic() + min(self.order["grace_s"], DRAIN_S)
        while self._group_lives() and time.monotonic() < self.kill_at:
            self._listen(min(0.1, self.kill_at - time.monotonic()))
        self._signal(signal.SIGKILL)
        if not _reap():
            _kill_marked(self.order["key"], self.order["output"])
        until = time.monotonic() + DRAIN_S
        while self.output >= 0 and time.monotonic() < until:
            self._listen(until - time.monotonic())
        if self.masking:
            self._write(self.masking.add(b"", final=True))

    def _listen(self, seconds: float) -> None:
        """Take output and signals, for so long at most."""
        waited = [self.watch.fd] + ([self.output] if self.output >= 0 else [])
        ready, _, _ = select.select(waited, [], [], max(0.0, seconds))
        if self.watch.fd in ready:
            self.watch.clear()
        if self.output in ready:
            self._pump()

    def _group_lives(self) -> bool:
        _reap()
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    def _pump(self) -> None:
        piece = os.read(self.output, 1 << 16)
        if not piece:
            os.close(self.output)
            self.output = -1
        elif self.masking:
            self._write(self.masking.add(piece))

    def _end(self) -> dict[str, Any]:
        killed = os.WIFSIGNALED(self.status)
        code = 128 + os.WTERMSIG(self.status) if killed else os.WEXITSTATUS(self.status)
        if self.reason in ("cancel", "told"):
            return self._told_end(code)
        if self.reason == "time":
            limit = "out of time: resources.time_limit_s is {:g}".format(self.order["time_limit_s"])
            self._say(limit)
            return {"state": "failed", "exit_code": code, "message": limit}
        if killed:
            name = _signal_name(os.WTERMSIG(self.status))
            return {"state": "failed", "exit_code": code, "message": f"killed by {name}"}
        if code:
            return {"state": "failed", "exit_code": code, "message": self._last_line()}
        return {"state": "succeeded", "exit_code": 0, "message": None}

    def _told_end(self, code: int | None) -> dict[str, Any]:
        if self.reason == "cancel" or os.path.exists(os.path.join(self.folder, "cancel")):
            return {"state": "cancelled", "exit_code": code, "message": "cancelled"}
        return {"state": "lost", "exit_code": code, "message": "this machine told it to end (SIGTERM)"}

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _say(self, text: str) -> None:
        self._write(b"espalier: " + text.encode("utf-8", "replace") + b"\n")

    def _write(self, text: bytes) -> None:
        rest = memoryview(text)
        try:
            while rest:
                rest = rest[os.write(self.log, rest) :]
        except OSError:
            pass  # a full disk must not end the program

    def _last_line(self) -> str | None:
        size = os.fstat(self.log).st_size
        tail = os.pread(self.log, 1 << 14, max(0, size - (1 << 14))).decode("utf-8", "replace")
        for line in reversed(tail.replace("\r", "\n").split("\n")):
            if line.strip() and not line.startswith("espalier: "):
                return _short(line.strip())
        return None


def _find(name: str, path: str, work: str) -> str | None:
    """Return the program's file as the trial's own PATH has it."""
    if "/" in name:
        return os.path.join(work, name)
    for folder in path.split(":"):
        found = os.path.join(work, folder, name)
        if os.path.isfile(found) and os.access(found, os.X_OK):
            return found
    return None


def _exec_fault(number: int, name: str) -> tuple[int, str]:
    if number == errno.ENOENT:
        return 127, f"program not found: {name} (or the interpreter that its first line names)"
    if number == errno.ENOEXEC:
        return 126, f"cannot be executed: {name} (no '#!' line?)"
    return 126, f"cannot be executed: {name} ({os.strerror(number)})"


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return name + " (out of memory?)" if number == signal.SIGKILL else name


_loaded: list[Any] = []


def load_prctl() -> Any:
    """Return the C library's prctl, None where there is none; a process that forks workers calls it before."""
    if not _loaded:
        try:
            import ctypes

            _loaded.append(ctypes.CDLL(None).prctl)
        except (ImportError, OSError, AttributeError):
            _loaded.append(None)
    return _loaded[0]


def _reap() -> bool:
    """Reap what has ended; return whether no child is left (what a program leaves behind becomes ours)."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def _kill_marked(key: str, output: str) -> None:
    """SIGKILL what carries key and output folder of this attempt in its environment, wherever it has gone."""
    marks = [f"\0{_KEY}={key}\0".encode(), f"\0ESPALIER_OUTPUT_DIR={output}\0".encode("utf-8", "surrogateescape")]
    for _ in range(20):
        found = 0
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                try:
                    with open(f"/proc/{name}/environ", "rb") as file:
                        told = b"\0" + file.read()
                        if all(mark in told for mark in marks):
                            os.kill(int(name), signal.SIGKILL)
                            found += 1
                except OSError:
                    pass
        if not found:
            return


def _read_all(fd: int) -> bytes:
    parts: list[bytes] = []
    while True:
        part = os.read(fd, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)


def _now() -> str:
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


def _short(text: str) -> str:
    return text if len(text) <= MESSAGE_MAX else text[: MESSAGE_MAX - 1] + "…"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
