"""The follower beside a runner: when it is started, kept, started again. Never follows anything itself."""

import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from espalier.backends.local import channel
from espalier.backends.local.process import Identity, identity, lives, pidfd, read_json
from espalier.backends.local.queue import now
from espalier.core.program import KEY_VARIABLE

MARK = "ESPALIER_FOLLOWER"
"""Set in a follower's environment: what it submits gets the environment that the version's first command gave."""

AFTER_S = 1.0  # what is over by then was followed by the command itself
AGAIN_S = (1.0, 5.0, 30.0)


class Follower:
    """The process beside the runner that writes what happens into ledger and MLflow; it ends by itself."""

    def __init__(self, root: Path, repository: Path) -> None:
        self.root = root
        self.repository = repository
        self.argv: list[str] = []
        self.environ: dict[str, str] = {}
        self.fd: int | None = None
        self.pid = 0
        self.child = False
        self.wanted = False  # something happened that none that runs or ran can know of
        self.started_at = 0.0
        self.submitted_at = 0.0
        self.fails = 0
        self.not_before = 0.0
        self._adopt()

    def take(self, argv: list[str], environ: Mapping[str, str] | None) -> None:
        self.argv = list(argv)
        self.environ = dict(environ or {})
        self.environ.pop(KEY_VARIABLE, None)
        self.environ[MARK] = "1"

    def submitted(self, moment: float) -> None:
        """There is new work: one that runs already may not know of it."""
        self.submitted_at = moment
        self.moved(moment)

    def moved(self, moment: float) -> None:
        """Something started or ended: that has to be written by one that still runs, or a new one."""
        if self.fd is None:
            self.wanted = True
            self.not_before = max(self.not_before, moment + AFTER_S)

    def is_wanted(self) -> bool:
        """Return whether the runner has to stay for it."""
        return bool(self.argv) and (self.fd is not None or (self.wanted and self.fails < len(AGAIN_S)))

    def care(self, moment: float, busy: bool) -> float:
        """Start one where it is wanted and due; return until when to wait."""
        if self.fd is not None or not self.argv or not (busy or self.is_wanted()):
            return float("inf")
        if moment < self.not_before:
            return self.not_before
        self._start(moment)
        return float("inf")

    def ended(self, moment: float) -> None:
        """It ended: well, or to be started again after a while."""
        assert self.fd is not None
        os.close(self.fd)
        self.fd = None
        status = 0  # of an adopted one nobody can say
        if self.child:
            with suppress(ChildProcessError):
                status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        well = status in (0, 3)  # 3: a trial did not succeed, which it has written down
        self.wanted = not well or self.submitted_at > self.started_at
        if well and moment - self.started_at > AGAIN_S[1]:
            self.fails = 0
        wait = AGAIN_S[min(self.fails, len(AGAIN_S) - 1)]
        self.not_before = moment + wait
        self.fails = self.fails + 1 if not well else min(self.fails + 1, len(AGAIN_S) - 1)

    def _start(self, moment: float) -> None:
        out = os.open(self.root / "follower.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.environ,
                cwd=self.repository,
                start_new_session=True,
            )
        except OSError as error:
            print(f"{now()} the follower cannot be started: {error}", flush=True)
            self.fails = len(AGAIN_S)
            self.wanted = False
            return
        finally:
            os.close(out)
        self.started_at = moment
        self._keep(process.pid, os.pidfd_open(process.pid), child=True)
        process.returncode = 0  # it is reaped by its number, in ended()
        who = identity(process.pid)
        if who:
            path = self.root / channel.FOLDER / "follower.json"
            path.write_text(json.dumps({"pid": who.pid, "start": who.start, "boot": who.boot}), "ascii")

    def _keep(self, pid: int, fd: int, *, child: bool) -> None:
        self.pid, self.fd, self.child, self.wanted = pid, fd, child, False

    def _adopt(self) -> None:
        """Take over the follower of an earlier runner."""
        said = read_json(self.root / channel.FOLDER / "follower.json")
        if said:
            who = Identity(said["pid"], said["start"], said["boot"])
            fd = pidfd(who) if lives(who) else None
            if fd is not None:
                self._keep(who.pid, fd, child=False)
