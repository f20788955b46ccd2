"""The ledger on a ref of the repository. Never rewrites a commit, never touches a branch or the working tree."""

import random
import secrets
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from espalier.core.errors import InputError, RejectedError, StaleError, UnavailableError
from espalier.core.events import Event, Record, Reusable, Snapshot, asleep, fold, touched, wake
from espalier.core.names import line_name
from espalier.ledger import records
from espalier.ledger.message import commit_message
from espalier.ledger.plumbing import Found, Git

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
        return self._read(tip, lines) if tip else Snapshot()

    def found(self) -> Snapshot:
        """Return the ledger's heads; make the ledger where there is none. A loser of that race takes the winner's."""
        while True:
            tip = self._git.tips().read
            if tip:
                return self._read(tip, ())
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
            woken = wake(current, self._records(current, asleep(current, events)))
            after = fold(woken, events)
            tip = current.tip or ""
            stored = self._stored(tip, records.stored_paths(current, after))
            files, after = records.encode(
                current,
                after,
                {path: found.content for path, found in stored.items()},
                {path: found.id for path, found in stored.items()},
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
        return line.open.get(number) or next(iter(self._records(snapshot, [(name, number)])), None)

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
            more = self._load(tip, base, missing)
            reuse = self._reuse(tip, jobs)
            return replace(base, lines={**base.lines, **more.lines}, reuse={**reuse, **more.reuse, **base.reuse})
        now = self._read(tip or "", {*base.lines, *names})
        if base.ledger_id is not None and now.ledger_id != base.ledger_id:
            raise StaleError(
                f"the ledger is another one now ({now.ledger_id}, it was {base.ledger_id})", hint="plan again"
            )
        return now

    def _read(self, tip: str, lines: Collection[str] | None) -> Snapshot:
        paths = [records.FORMAT_PATH, records.CURSOR_PATH, *(f"heads/{shard}.jsonl" for shard in records.SHARDS)]
        found = self._stored(tip, paths)
        if records.FORMAT_PATH not in found:
            raise RejectedError(
                f"commit {tip[:12]} is no ledger: it has no FORMAT",
                hint="see git log refs/espalier/ledger; another program may use this ref",
            )
        ledger_id, project = records.decode_format(found.pop(records.FORMAT_PATH).content)
        cursor = found.pop(records.CURSOR_PATH, None)
        heads = {name: head for path, file in found.items() for name, head in records.decode_heads(file.content, path)}
        snapshot = Snapshot(
            tip,
            ledger_id,
            project,
            dict(sorted(heads.items())),
            cursor=records.decode_cursor(cursor.content) if cursor else {},
        )
        names = heads.keys() if lines is None else [name for name in dict.fromkeys(lines) if name in heads]
        return self._load(tip, snapshot, names) if names else snapshot

    def _load(self, tip: str, snapshot: Snapshot, names: Iterable[str]) -> Snapshot:
        """Return ``snapshot`` with the whole records of ``names``, and the reuse of their jobs."""
        heads = [snapshot.heads[name] for name in names]
        paths = [path for head in heads for path in records.line_paths(head)]
        opened = [(line_name(head.job, head.line), number) for head in heads for number in head.open]
        paths += [f"{records.open_folder(name, number)}/version.json" for name, number in opened]
        found = self._stored(tip, paths)
        more = [
            path
            for name, number in opened
            if (file := found.get(f"{records.open_folder(name, number)}/version.json"))
            for path in records.open_paths(name, number, file.content)
        ]
        files = {path: file.content for path, file in (found | self._stored(tip, more)).items()}
        lines = {line_name(head.job, head.line): records.decode_line(files, head) for head in heads}
        reuse = {
            head.job: records.decode_reuse(files[path], path)
            for head in heads
            if (path := records.reuse_path(head.job)) in files
        }
        return replace(snapshot, lines=lines, reuse=reuse)

    def _reuse(self, tip: str, jobs: Iterable[str]) -> dict[str, dict[str, Reusable]]:
        paths = {records.reuse_path(job): job for job in jobs}
        found = self._stored(tip, paths)
        return {paths[path]: records.decode_reuse(file.content, path) for path, file in found.items()}

    def _records(self, snapshot: Snapshot, wanted: Iterable[tuple[str, int]]) -> list[Record]:
        """Return ended versions from their blobs; UnavailableError where this clone does not have these."""
        entries = [
            (name, entry)
            for name, number in wanted
            for entry in snapshot.lines[name].earlier
            if entry.version.version == number
        ]
        files = self._git.files(blob for _, entry in entries for blob in (entry.spec_blob, *entry.trial_blobs))
        made = []
        for name, entry in entries:
            blobs = (entry.spec_blob, *entry.trial_blobs)
            if any(blob not in files for blob in blobs):
                raise UnavailableError(
                    f"this clone does not have the files of {name}@v{entry.version.version}",
                    hint="fetch the ledger's history: git fetch --unshallow",
                )
            spec, *trials = (files[blob].content for blob in blobs)
            version = entry.version
            made.append(Record(version, records.decode_spec(spec, version), records.decode_trials(trials)))
        return made

    def _stored(self, tip: str, paths: Iterable[str]) -> dict[str, Found]:
        """Return the files at ``tip`` that exist, by path."""
        start = len(tip) + 1
        return {name[start:]: file for name, file in self._git.files(f"{tip}:{path}" for path in paths).items()}

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
