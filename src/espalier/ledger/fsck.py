"""Whether a ledger is sound: its history commit by commit, then what its tip holds. Never mends, never writes.

Restoring one from backend keys and MLflow tags (``rebuild``) is not there yet.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from espalier.core.content import SCHEME, digest, trial_id
from espalier.core.errors import EspalierError, RejectedError
from espalier.core.events import Earlier, Record, count
from espalier.core.model import Lease, Spec, Version
from espalier.core.names import attempt_key, job_fault, line_name, parse_line, shard, trial_name, version_name
from espalier.ledger import records
from espalier.ledger.plumbing import Changed, Git
from espalier.ledger.tree import files_of, stored

_NAME = r"jobs/(?P<shard>[0-9a-f]{2})/(?P<name>[^\0]+?)"
_FILE = r"spec\.yaml|trials(-[0-9]+)?\.jsonl"
_PATH = re.compile(
    rf"FORMAT\Z|cursor\.json\Z|heads/(?P<heads>[0-9a-f]{{2}})\.jsonl\Z"
    rf"|{_NAME}/(?P<file>open/v(?P<open>[1-9][0-9]*)/(version\.json|{_FILE})|versions\.jsonl|reuse\.jsonl|{_FILE})\Z"
)
_FIXED = ("job", "line", "version", "parent", "base", "digest", "scheme", "commit", "author", "actor", "created_at")
"""What nothing may change about a version once it is recorded."""

_RESTORE = "restore the ref from before: git fsck --lost-found, another clone or the remote; then apply again"
_BY_HAND = "somebody wrote to the ref by hand: move it back to the last commit that is sound"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and how to mend it."""

    message: str
    hint: str


def check(repository: Path, now: str | None = None, environ: Mapping[str, str] | None = None) -> list[Problem]:
    """Return what is wrong with the ledger of ``repository``; nothing where there is none.

    ``now`` (RFC 3339) tells which leases are over; without it every lease counts as valid.
    """
    git = Git(repository, environ)
    tip = git.tips().read
    if tip is None:
        return []
    history = _History(git.is_shallow())
    chain = git.chain(tip)
    if not chain:
        return [Problem(f"the ref names {tip[:12]}, which is no commit", _RESTORE)]
    commits = [commit for commit, _ in chain]
    changes, messages = git.changes(commits), git.messages(commits)
    blobs = {row.blob for rows in changes.values() for row in rows if row.blob and _is_index(row.path)}
    texts = {name: found.content for name, found in git.files(blobs).items()}
    before: str | None = None
    for commit, parents in chain:
        history.step(commit, parents, before, messages.get(commit, ""), changes.get(commit, []), texts)
        before = commit
    return history.problems + list(_tip_problems(git, tip, now))


def _is_index(path: str) -> bool:
    return path == records.FORMAT_PATH or path.startswith("heads/") or path.endswith("/versions.jsonl")


@dataclass
class _History:
    """What is known after each commit."""

    shallow: bool
    problems: list[Problem] = field(default_factory=list)
    ledger_id: str | None = None
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    open: dict[tuple[str, int], int] = field(default_factory=dict)  # how many files

    def say(self, commit: str, message: str, hint: str) -> None:
        self.problems.append(Problem(f"commit {commit[:12]}: {message}", hint))

    def step(
        self,
        commit: str,
        parents: tuple[str, ...],
        before: str | None,
        message: str,
        changes: list[Changed],
        texts: Mapping[str, bytes],
    ) -> None:
        if parents != ((before,) if before else ()):
            self.say(commit, "the chain is not linear", _RESTORE)
        if not re.search(r"^Espalier-Kind: .+$", message, re.M) or not re.search(r"^Espalier-Tx: .+$", message, re.M):
            self.say(commit, "it was not made by espalier: it has no Espalier-Kind and Espalier-Tx", _BY_HAND)
        known = []
        for change in changes:
            fault = _path_fault(change)
            if fault:
                self.say(commit, fault, _BY_HAND)
            else:
                known.append(change)
        first = before is None and not self.shallow
        if first and not any(change.path == records.FORMAT_PATH for change in known):
            self.say(commit, "the first commit has no FORMAT", _RESTORE)
        was_open = set(self.open)
        for change in known:
            self._open(commit, change)
        numbers = {name: row["version"] for name, row in self.heads.items()}
        for change in sorted(known, key=lambda change: change.path):
            try:
                self._index(commit, change, texts, was_open | set(self.open))
            except RejectedError as error:
                self.say(commit, error.message, _RESTORE)
        for change in known:
            match = _PATH.match(change.path)
            if match and match["file"] == "spec.yaml":
                name = match["name"]
                if name in numbers and self.heads.get(name, {}).get("version") == numbers[name]:
                    self.say(commit, f"the spec of {name}@v{numbers[name]} was rewritten", _RESTORE)

    def _open(self, commit: str, change: Changed) -> None:
        match = _PATH.match(change.path)
        if not match or not match["open"]:
            return
        at = (match["name"], int(match["open"]))
        files = self.open.get(at, 0) + change.added - (change.blob is None)
        if change.path.endswith("/spec.yaml") and change.blob and not change.added:
            self.say(commit, f"the spec of {at[0]}@v{at[1]} was rewritten", _RESTORE)
        if files > 0:
            self.open[at] = files
        else:
            self.open.pop(at, None)

    def _index(self, commit: str, change: Changed, texts: Mapping[str, bytes], opened: set[tuple[str, int]]) -> None:
        match = _PATH.match(change.path)
        if not match:
            return
        text = texts.get(change.blob or "", b"")
        if change.path == records.FORMAT_PATH:
            ledger_id = records.decode_format(text)[0] if change.blob else "none"
            if self.ledger_id not in (None, ledger_id):
                self.say(commit, f"the ledger's id changed from {self.ledger_id} to {ledger_id}", _RESTORE)
            self.ledger_id = ledger_id
        elif match["heads"]:
            self._heads(commit, match["heads"], list(_rows(text, change.path)))
        elif match["file"] == "versions.jsonl":
            self._versions(commit, match["name"], list(_rows(text, change.path)), opened)

    def _heads(self, commit: str, hh: str, rows: list[dict[str, Any]]) -> None:
        now = {line_name(row["job"], row["line"]): row for row in rows}
        for name, row in now.items():
            if shard(row["job"]) != hh:
                self.say(commit, f"{name} is in heads/{hh}.jsonl, where it does not belong", _RESTORE)
            self._head(commit, name, row)
        old = [name for name, row in self.heads.items() if shard(row["job"]) == hh]
        for name in old:
            if name not in now:
                self.say(commit, f"{name} is gone", _RESTORE)
                del self.heads[name]
        self.heads |= now

    def _head(self, commit: str, name: str, row: dict[str, Any]) -> None:
        number = row["version"]
        if row["parent"] != (number - 1 or None):
            self.say(commit, f"{name}@v{number} has parent {row['parent']}", _RESTORE)
        old = self.heads.get(name)
        if old is None:
            return  # earlier ones of the same commit are checked at the tip
        if number < old["version"]:
            self.say(commit, f"{name} went back from v{old['version']} to v{number}", _RESTORE)
        elif number == old["version"] and _fixed(row) != _fixed(old):
            self.say(commit, f"{name}@v{number} was rewritten", _RESTORE)

    def _versions(self, commit: str, name: str, rows: list[dict[str, Any]], opened: set[tuple[str, int]]) -> None:
        old, now = self.versions.get(name, {}), {row["version"]: row for row in rows}
        for number, row in old.items():
            if number not in now:
                self.say(commit, f"{name}@v{number} is gone from its line's versions", _RESTORE)
                continue
            same = _fixed(row) == _fixed(now[number]) and row["spec_blob"] == now[number]["spec_blob"]
            if not same or (row != now[number] and (name, number) not in opened):
                self.say(commit, f"{name}@v{number} was rewritten after it had ended", _RESTORE)
        for number, row in now.items():
            if number not in old and row["parent"] != (number - 1 or None):
                self.say(commit, f"{name}@v{number} has parent {row['parent']}", _RESTORE)
        self.versions[name] = now


def _fixed(row: Mapping[str, Any]) -> list[Any]:
    return [row.get(key) for key in _FIXED]


def _rows(text: bytes, path: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line:
            continue
        try:
            row = json.loads(line)
            if not {"version", "parent"} <= row.keys():
                raise KeyError("version or parent")
        except (ValueError, KeyError, AttributeError) as error:
            raise RejectedError(f"{path}:{number} cannot be read: {error}", hint=_RESTORE) from error
        yield row


def _path_fault(change: Changed) -> str:
    match = _PATH.match(change.path)
    if not match:
        return f"{change.path!r} is no path of a ledger"
    if change.blob is not None and change.mode != "100644":
        return f"{change.path} has mode {change.mode}"
    name = match["name"]
    if name is None:
        return ""
    job, plus, line = name.partition("+")
    try:
        fault = job_fault(job)
        if plus:
            parse_line(line)
    except EspalierError as error:
        fault = error.message
    if fault:
        return f"{change.path!r}: {fault}"
    return "" if shard(job) == match["shard"] else f"{change.path} is in the wrong folder, its job's is {shard(job)}"


# The tip


def _tip_problems(git: Git, tip: str, now: str | None) -> Iterator[Problem]:
    found = stored(git, tip, [records.FORMAT_PATH, *(f"heads/{hh}.jsonl" for hh in records.SHARDS)])
    heads: dict[str, Version] = {}
    ledger_id = ""
    for path, file in found.items():
        try:
            if path == records.FORMAT_PATH:
                ledger_id = records.decode_format(file.content)[0]
            else:
                heads |= dict(records.decode_heads(file.content, path))
        except RejectedError as error:
            yield Problem(f"{path}: {error.message}", _RESTORE)
    files = files_of(git, tip, heads.values())
    lines = {}
    for name, head in heads.items():
        try:
            lines[name] = records.decode_line(files, head)
        except RejectedError as error:
            yield Problem(f"{name}: {error.file}: {error.message}", _RESTORE)
    for name, line in lines.items():
        last = line.last.version.version
        numbers = [entry.version.version for entry in line.earlier]
        if numbers != list(range(1, last)):
            yield Problem(f"{name}: its earlier versions are {numbers}, its last is v{last}", _RESTORE)
        for record in (line.last, *line.open.values()):
            yield from _record_problems(record, ledger_id, now)
    if not git.is_shallow():
        yield from _earlier_problems(git, [entry for line in lines.values() for entry in line.earlier])


def _earlier_problems(git: Git, entries: list[Earlier]) -> Iterator[Problem]:
    specs = git.files(entry.spec_blob for entry in entries)
    trials = git.present(blob for entry in entries for blob in entry.trial_blobs)
    for entry in entries:
        version = entry.version
        whole = version_name(version.job, version.line, version.version)
        if entry.spec_blob not in specs or not trials.issuperset(entry.trial_blobs):
            yield Problem(f"{whole}: its spec or its trials are not in this repository", _RESTORE)
            continue
        try:
            spec = records.decode_spec(specs[entry.spec_blob].content, version)
        except RejectedError as error:
            yield Problem(f"{whole}: its spec cannot be read: {error.message}", _RESTORE)
            continue
        yield from _digest_problem(whole, version, spec)


def _record_problems(record: Record, ledger_id: str, now: str | None) -> Iterator[Problem]:
    version = record.version
    whole = version_name(version.job, version.line, version.version)
    yield from _digest_problem(whole, version, record.spec)
    if count(record.trials) != version.counts:
        yield Problem(f"{whole}: its trials are not as its head counts them", _RESTORE)
    for trial in record.trials:
        name = trial_name(version.job, version.line, version.version, trial.id)
        if trial_id(trial.params) != trial.id:
            yield Problem(f"{name}: its id is not that of its parameters", _RESTORE)
        expected = attempt_key(ledger_id, version.job, version.line, version.version, trial.id, trial.attempt)
        if trial.key is not None and trial.key != expected:
            yield Problem(f"{name}: its key is not that of attempt {trial.attempt}", _RESTORE)
        sent = trial.state == "queued" and trial.attempt > 0 and not trial.handle
        if sent and not _valid(version.lease, now):
            yield Problem(
                f"{name}: attempt {trial.attempt} was intended and has no answer, and nobody holds a lease for it",
                f"send or adopt it: espalier follow {version.job} --once",
            )


def _digest_problem(whole: str, version: Version, spec: Spec) -> Iterator[Problem]:
    if version.scheme == SCHEME and digest(spec) != version.digest:
        yield Problem(f"{whole}: its spec has another digest than the one recorded", _RESTORE)


def _valid(lease: Lease | None, now: str | None) -> bool:
    if lease is None:
        return False
    try:
        return now is None or datetime.fromisoformat(lease.until) > datetime.fromisoformat(now)
    except ValueError:
        return False
