"""Processes by more than their number: who lives, what a dead one left behind. Never starts one."""

import json
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.core.program import KEY_VARIABLE


@dataclass(frozen=True, slots=True)
class Identity:
    """A process: a number alone is given out again, with start time and boot it is not."""

    pid: int
    start: str  # ticks since boot
    boot: str


def boot_id() -> str:
    """Return what names this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def machine_id() -> str:
    """Return what names this machine: systemd's id, else D-Bus's, else the host's name."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with suppress(OSError):
            found = Path(path).read_text("ascii").strip()
            if found:
                return found
    return os.uname().nodename.replace(":", "-")


def identity(pid: int) -> Identity | None:
    """Return the identity of a process, None when there is none."""
    start = _stat(pid)
    return Identity(pid, start[19], boot_id()) if start else None


def lives(who: Identity) -> bool:
    """Return whether exactly this process is alive; a zombie is not."""
    stat = _stat(who.pid)
    return bool(stat) and stat[19] == who.start and stat[0] not in ("Z", "X") and boot_id() == who.boot


def pidfd(who: Identity) -> int | None:
    """Return a descriptor that becomes readable when exactly this process ends, None when it has."""
    try:
        fd = os.pidfd_open(who.pid)
    except (ProcessLookupError, OSError):
        return None
    if lives(who):
        return fd
    os.close(fd)
    return None


def kill_left_over(home: Path) -> int:
    """SIGKILL every process that the attempt at ``home`` started; return how many.

    They are found by its key and its output folder in their environment: a copy of the repository on this
    machine has the same keys, and its processes are not ours. Repeats until a look finds none, as one may fork
    while it is looked for.
    """
    key, output = (
        os.fsencode(f"\0{text}") for text in (f"{KEY_VARIABLE}={home.name}\0", f"ESPALIER_OUTPUT_DIR={home}/")
    )
    killed = 0
    for _ in range(100):
        found = [pid for pid in _pids() if key in (told := b"\0" + _environ(pid)) and output in told]
        if not found:
            break
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    return killed


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on, empty when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what a process left in a small file, None when that is not there or not whole."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
