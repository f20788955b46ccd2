"""The ledger on a ref of the repository. Never rewrites a commit, never touches a branch or the working tree."""

import random
import secrets
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from espalier.core.errors import InputError, StaleError, UnavailableError
from espalier.core.events import Event, Record, Snapshot, asleep, fold, touched, wake
from espalier.ledger import records
from espalier.ledger.message import commit_message
from espalier.ledger.plumbing import Git
from espalier.ledger.tree import load, past_records, read_at, reuse_of, stored

PATIENCE_S = 120.0
"""How long an append goes on after lost races; a local one takes some 20 ms, so only a fault lasts as long."""

WINDOW_MAX_S = 2.0
STALE_LOCK_S = 30.0
"""git holds the lock of a ref for milliseconds: one of this age was left by a process that died."""


class GitLedger:
    """The ledger at ``refs/espalier/ledger`` of the repository.

    Where that is missing, or a remote-tracking branch ``espalier/ledger`` is ahead of it, that is read,
    and appends build on it.
    """

    def __init__(self, repository: Path, project: str, environ: Mapping[str, str] | None = None) -> None:
        self._git = Git(repository, environ)
        self._project = project
        self._who: str | None = None
        self._random = random.Random(secrets.randbits(64))

    def read(self, lines: Collection[str] | None = ()) -> Snapshot:
        """Return the ledger at its tip with the whole records of ``lines`` (None: all); empty when there is none."""
        tip = self._git.tips().read
        return read_at(self._git, tip, lines) if tip else Snapshot()

    def found(self) -> Snapshot:
        """Return the ledger's heads; make the ledger where there is none. A loser of that race takes the winner's."""
        while True:
            tip = self._git.tips().read
            if tip:
                return read_at(self._git, tip, ())
            files: dict[str, bytes | None] = {
                records.FORMAT_PATH: records.encode_format(str(uuid.uuid4()), self._project)
            }
            message = commit_message((), "founded", self._identity(), secrets.token_hex(16))
            self._git.append(None, files, message, self._identity(), int(time.time()))

    def append(self, base: Snapshot, events: Sequence[Event], kind: str, actor: str) -> Snapshot:
        """Record ``events`` as one commit and return the ledger after it; none when they change nothing.

        They were decided on ``base``. Where the tip has moved since, they are folded on what is
        there now: StaleError when a record that they decide on has moved. UnavailableError when
        git cannot write, or others win every race for two minutes.
        """
        tx = secrets.token_hex(16)
        names = touched(events)
        end = time.monotonic() + PATIENCE_S
        window = 0.0
        while True:
            began = time.monotonic()
            current = self._current(base, names)
            woken = wake(current, past_records(self._git, current, asleep(current, events)))
            after = fold(woken, events)
            tip = current.tip or ""
            there = stored(self._git, tip, records.stored_paths(current, after))
            files, after = records.encode(
                current,
                after,
                {path: found.content for path, found in there.items()},
                {path: found.id for path, found in there.items()},
                tx,
                records.blob_hash(len(tip)),
            )
            if not files:
                return current
            message = commit_message(events, kind, actor, tx)
            made = self._git.append(tip, files, message, self._identity(), int(time.time()))
            if not made.refused:
                return replace(after, tip=made.id)
            if time.monotonic() > end:
                raise self._beaten(made.refused)
            self._break_stale_lock(made.refused)
            window = min(WINDOW_MAX_S, max(2 * window, time.monotonic() - began))
            time.sleep(self._random.uniform(0, window))  # full jitter, from the observed round trip

    def version(self, name: str, number: int) -> Record | None:
        """Return a version of the line whole: its last, one that still runs, or an ended one."""
        snapshot = self.read([name])
        line = snapshot.lines.get(name)
        if line is None or number < 1 or number > line.last.version.version:
            return None
        if number == line.last.version.version:
            return line.last
        return line.open.get(number) or next(iter(past_records(self._git, snapshot, [(name, number)])), None)

    def _current(self, base: Snapshot, names: Iterable[str]) -> Snapshot:
        """Return ``base`` where the tip is still its tip, else the ledger now; with ``names`` loaded."""
        tip = self._git.tips().read
        if tip is None:
            if base.tip is not None:
                raise StaleError("the ledger is gone", hint="see git fsck and git reflog; then plan again")
            tip = self.found().tip
        if tip is not None and tip == base.tip:
            missing = [name for name in names if name in base.heads and name not in base.lines]
            jobs = [name.partition("+")[0] for name in names if name not in base.heads and "+" in name]
            jobs = [job for job in jobs if job in base.heads and job not in base.reuse]
            if not missing and not jobs:
                return base
            more = load(self._git, tip, base, missing)
            reuse = reuse_of(self._git, tip, jobs)
            return replace(base, lines={**base.lines, **more.lines}, reuse={**reuse, **more.reuse, **base.reuse})
        now = read_at(self._git, tip or "", {*base.lines, *names})
        if base.ledger_id is not None and now.ledger_id != base.ledger_id:
            raise StaleError(
                f"the ledger is another one now ({now.ledger_id}, it was {base.ledger_id})", hint="plan again"
            )
        return now

    def _identity(self) -> str:
        if self._who is None:
            self._who = self._git.identity()
        return self._who

    def _break_stale_lock(self, said: str) -> None:
        """Remove the lock that a killed git left on our ref: nobody else would ever do it."""
        if "File exists" not in said:
            return
        lock = self._git.path("refs/espalier/ledger.lock")
        try:
            if time.time() - lock.stat().st_mtime > STALE_LOCK_S:
                lock.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"{lock} is in the way", hint="remove it when no git process runs") from error

    def _beaten(self, said: str) -> UnavailableError:
        why = said.strip().splitlines()[0] if said.strip() else "others were faster"
        return UnavailableError(
            f"nothing was recorded: the ledger could not be moved for {PATIENCE_S:.0f} s ({why})",
            hint="try again; remove .git/refs/espalier/ledger.lock if it is there and no git process runs",
        )
