"""Appending to the ledger's ref: compare-and-swap, again after a lost race. Never rewrites a commit."""

import secrets
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace

from espalier.core.errors import InputError, StaleError, UnavailableError
from espalier.core.events import Event, asleep, fold, touched, wake
from espalier.core.record import Snapshot
from espalier.ledger import records
from espalier.ledger.message import commit_message
from espalier.ledger.plumbing import Git
from espalier.ledger.tree import load, past_records, read_at, reuse_of, stored

PATIENCE_S = 120.0
"""How long an append goes on after lost races; a local one takes some 20 ms, so only a fault lasts as long."""

WINDOW_MAX_S = 2.0
STALE_LOCK_S = 30.0
"""git holds the lock of a ref for milliseconds: one of this age was left by a process that died."""


def found(git: Git, project: str) -> Snapshot:
    """Return the ledger's heads; make the ledger where there is none. A loser of that race takes the winner's."""
    while True:
        tip = git.tips().read
        if tip:
            return read_at(git, tip, ())
        files: dict[str, bytes | None] = {records.FORMAT_PATH: records.encode_format(str(uuid.uuid4()), project)}
        message = commit_message((), "founded", git.identity(), secrets.token_hex(16))
        git.append(None, files, message, git.identity(), int(time.time()))


def append(git: Git, project: str, base: Snapshot, events: Sequence[Event], kind: str, actor: str) -> Snapshot:
    """As ``GitLedger.append``."""
    tx = secrets.token_hex(16)
    names = touched(events)
    end = time.monotonic() + PATIENCE_S
    window, jitter = 0.0, secrets.SystemRandom()
    while True:
        began = time.monotonic()
        current = _current(git, project, base, names)
        woken = wake(current, past_records(git, current, asleep(current, events)))
        after = fold(woken, events)
        tip = current.tip or ""
        there = stored(git, tip, records.stored_paths(current, after))
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
        made = git.append(tip, files, message, git.identity(), int(time.time()))
        if not made.refused:
            return replace(after, tip=made.id)
        if time.monotonic() > end:
            raise _beaten(made.refused)
        _break_stale_lock(git, made.refused)
        window = min(WINDOW_MAX_S, max(2 * window, time.monotonic() - began))
        time.sleep(jitter.uniform(0, window))  # full jitter, from the observed round trip


def _current(git: Git, project: str, base: Snapshot, names: Iterable[str]) -> Snapshot:
    """Return ``base`` where the tip is still its tip, else the ledger now; with ``names`` loaded."""
    tip = git.tips().read
    if tip is None:
        if base.tip is not None:
            raise StaleError("the ledger is gone", hint="see git fsck and git reflog; then plan again")
        tip = found(git, project).tip
    if tip is not None and tip == base.tip:
        missing = [name for name in names if name in base.heads and name not in base.lines]
        jobs = [name.partition("+")[0] for name in names if name not in base.heads and "+" in name]
        jobs = [job for job in jobs if job in base.heads and job not in base.reuse]
        if not missing and not jobs:
            return base
        more = load(git, tip, base, missing)
        reuse = reuse_of(git, tip, jobs)
        return replace(base, lines={**base.lines, **more.lines}, reuse={**reuse, **more.reuse, **base.reuse})
    now = read_at(git, tip or "", {*base.lines, *names})
    if base.ledger_id is not None and now.ledger_id != base.ledger_id:
        raise StaleError(f"the ledger is another one now ({now.ledger_id}, it was {base.ledger_id})", hint="plan again")
    return now


def _break_stale_lock(git: Git, said: str) -> None:
    """Remove the lock that a killed git left on our ref: nobody else would ever do it."""
    if "File exists" not in said:
        return
    lock = git.path("refs/espalier/ledger.lock")
    try:
        if time.time() - lock.stat().st_mtime > STALE_LOCK_S:
            lock.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{lock} is in the way", hint="remove it when no git process runs") from error


def _beaten(said: str) -> UnavailableError:
    why = said.strip().splitlines()[0] if said.strip() else "others were faster"
    return UnavailableError(
        f"nothing was recorded: the ledger could not be moved for {PATIENCE_S:.0f} s ({why})",
        hint="try again; remove .git/refs/espalier/ledger.lock if it is there and no git process runs",
    )
