"""Records as the files of the ledger, and back. Never reads or writes one: text in, text out."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from espalier.core.content import from_plain
from espalier.core.errors import RejectedError
from espalier.core.model import Spec, Trial, Version
from espalier.core.names import line_name, shard
from espalier.core.record import Earlier, Line, Record, Reusable, Snapshot
from espalier.core.wire import metrics_from, metrics_json, spec_yaml, trial_from, trial_json, version_from, version_json

T = TypeVar("T")

FORMAT = 1
CHUNK = 1000
"""Trials of one file: a sweep of more goes on in further ones, so that an append rewrites what moved."""

FORMAT_PATH, CURSOR_PATH = "FORMAT", "cursor.json"
SHARDS = tuple(f"{number:02x}" for number in range(256))

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)

Files = Mapping[str, bytes]
"""Files of a commit by path."""


# Where things are


def heads_path(job: str) -> str:
    return f"heads/{shard(job)}.jsonl"


def folder(name: str) -> str:
    """Return the folder of a line (``job`` or ``job+line``); a side line lies beside its job."""
    return f"jobs/{shard(name.partition('+')[0])}/{name}"


def reuse_path(job: str) -> str:
    return f"{folder(job)}/reuse.jsonl"


def versions_path(name: str) -> str:
    return f"{folder(name)}/versions.jsonl"


def open_folder(name: str, number: int) -> str:
    return f"{folder(name)}/open/v{number}"


def trial_paths(above: str, total: int) -> list[str]:
    """Return the paths of the files that hold ``total`` trials; one where there is none."""
    return [f"{above}/trials.jsonl", *(f"{above}/trials-{n}.jsonl" for n in range(2, -(-total // CHUNK) + 1))]


def record_paths(above: str, version: Version) -> list[str]:
    """Return the paths of a record's spec and trials."""
    return [f"{above}/spec.yaml", *trial_paths(above, version.counts.total)]


def line_paths(head: Version) -> list[str]:
    """Return the paths of all files of the line whose last version is ``head``, and of its job's reuse."""
    name = line_name(head.job, head.line)
    paths = [*record_paths(folder(name), head), reuse_path(head.job)]
    if head.version > 1:
        paths.append(versions_path(name))
    return paths


# Decoding


def decode_format(content: bytes) -> tuple[str, str]:
    """Return the ledger's id and project; raise RejectedError for a format of a later release."""
    row = _parse(content, FORMAT_PATH)
    if not isinstance(row.get("format"), int) or row["format"] > FORMAT:
        raise RejectedError(
            f"the ledger has format {row.get('format')}, this espalier knows {FORMAT}",
            hint="use the release of espalier that wrote it, or a later one",
            file=FORMAT_PATH,
        )
    return row["id"], row.get("project", "")


def decode_cursor(content: bytes) -> dict[str, str]:
    return {branch: row["commit"] for branch, row in _parse(content, CURSOR_PATH).items()}


def decode_heads(content: bytes, path: str) -> Iterator[tuple[str, Version]]:
    """Yield each line's name and last version."""
    for version in _made(version_from, content, path):
        yield line_name(version.job, version.line), version


def decode_version(content: bytes, path: str) -> Version:
    return next(_made(version_from, content, path))


def decode_spec(content: bytes, version: Version, path: str = "") -> Spec:
    """Return the spec of ``version``, whose ``parallel`` is no identity and stands with the version."""
    import yaml  # a tenth of the time of a command that only reads heads

    try:
        spec = from_plain(yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise _broken(path, str(error)) from error
    return replace(spec, sweep=replace(spec.sweep, parallel=version.parallel)) if spec.sweep else spec


def decode_trials(contents: Iterable[bytes], path: str = "") -> tuple[Trial, ...]:
    return tuple(trial for content in contents for trial in _made(trial_from, content, path))


def decode_record(files: Files, above: str, version: Version) -> Record:
    """Return the record of ``version`` from the files of its folder."""
    spec, *trials = record_paths(above, version)
    return Record(
        version,
        decode_spec(_file(files, spec), version, spec),
        decode_trials((_file(files, path) for path in trials), trials[0]),
    )


def decode_earlier(content: bytes, path: str) -> Iterator[Earlier]:
    return _made(lambda row: Earlier(version_from(row), row["spec_blob"], tuple(row["trial_blobs"])), content, path)


def decode_line(files: Files, head: Version) -> Line:
    """Return a line from its files; those of its open versions included."""
    name = line_name(head.job, head.line)
    opened = {}
    for number in head.open:
        above = open_folder(name, number)
        version = decode_version(_file(files, f"{above}/version.json"), f"{above}/version.json")
        opened[number] = decode_record(files, above, version)
    earlier = files.get(versions_path(name))
    return Line(
        decode_record(files, folder(name), head),
        tuple(decode_earlier(earlier, versions_path(name))) if earlier else (),
        opened,
    )


def open_paths(name: str, number: int, version_file: bytes) -> list[str]:
    """Return the paths of an open version's record, whose ``version.json`` says how many trials it has."""
    above = open_folder(name, number)
    return record_paths(above, decode_version(version_file, f"{above}/version.json"))


def decode_reuse(content: bytes, path: str) -> dict[str, Reusable]:
    return {found.strict: found for found in _made(_reusable, content, path)}


def _reusable(row: Mapping[str, Any]) -> Reusable:
    metrics = metrics_from(row["metrics"])
    return Reusable(row["content"], row["strict"], row["scheme"], row["trial"], row["run_id"], metrics)


# Encoding


def encode_format(ledger_id: str, project: str) -> bytes:
    return _line({"format": FORMAT, "id": ledger_id, "project": project})


def encode_version(version: Version) -> bytes:
    return _line(version_json(version))


def encode_trials(trials: Sequence[Trial]) -> list[bytes]:
    """Return the contents of the files that hold ``trials``."""
    chunks = [trials[at : at + CHUNK] for at in range(0, len(trials), CHUNK)] or [()]
    return [b"".join(_line(trial_json(trial)) for trial in chunk) for chunk in chunks]


def encode(
    before: Snapshot, after: Snapshot, stored: Files, ids: Mapping[str, str], tx: str, blob_id: Callable[[bytes], str]
) -> tuple[dict[str, bytes | None], Snapshot]:
    """Return the files that differ (None: removed), and ``after`` with the blob ids of its earlier versions.

    ``stored`` has the files of ``stored_paths`` as they are, ``ids`` their blob ids. Lines of a file
    that did not move stay byte for byte, whatever a later release put into them.
    """
    files: dict[str, bytes | None] = {}
    heads: dict[str, dict[str, bytes]] = {}
    lines = dict(after.lines)
    for name, line in after.lines.items():
        old = before.lines.get(name)
        if old is line or old == line:
            continue
        changed, lines[name] = _encode_line(name, old, line, stored, ids, blob_id)
        files |= changed
        version = line.last.version
        heads.setdefault(heads_path(version.job), {})[name] = encode_version(version)
    for path, rows in heads.items():
        files[path] = _patched(stored.get(path, b""), rows, _head_name, path)
    for job, index in after.reuse.items():
        known = before.reuse.get(job, {})
        fresh = {key: _reuse_line(found) for key, found in index.items() if known.get(key) != found}
        if fresh:
            path = reuse_path(job)
            files[path] = _patched(stored.get(path, b""), fresh, lambda row: str(row["strict"]), path)
    moved = {branch: commit for branch, commit in after.cursor.items() if before.cursor.get(branch) != commit}
    if moved:
        cursor = _parse(stored.get(CURSOR_PATH, b"{}"), CURSOR_PATH)
        cursor |= {branch: {"commit": commit, "tx": tx} for branch, commit in moved.items()}
        files[CURSOR_PATH] = _line(dict(sorted(cursor.items())))
    return files, replace(after, lines=lines)


def stored_paths(before: Snapshot, after: Snapshot) -> list[str]:
    """Return the paths whose stored text ``encode`` builds on."""
    paths = [CURSOR_PATH]
    for name, line in after.lines.items():
        old = before.lines.get(name)
        if old is line:
            continue
        version = line.last.version
        paths += [heads_path(version.job), reuse_path(version.job), versions_path(name)]
        if old is not None and old.last.version.version != version.version:
            paths += record_paths(folder(name), old.last.version)
    return list(dict.fromkeys(paths))


def _encode_line(
    name: str,
    old: Line | None,
    line: Line,
    stored: Files,
    ids: Mapping[str, str],
    blob_id: Callable[[bytes], str],
) -> tuple[dict[str, bytes | None], Line]:
    files: dict[str, bytes | None] = {}
    last, before = line.last, old.last if old else None
    superseded = before is not None and before.version.version != last.version.version
    files |= _record_files(folder(name), None if superseded else before, last)
    if superseded and before is not None:
        unused = set(record_paths(folder(name), before.version)) - set(record_paths(folder(name), last.version))
        files |= dict.fromkeys(unused)
    known = {entry.version.version: entry for entry in old.earlier} if old else {}
    opened = old.open if old else {}
    for number, record in line.open.items():
        files |= _open_files(open_folder(name, number), opened.get(number), record)
    for number in opened.keys() - line.open.keys():
        files[open_folder(name, number)] = None
    earlier, rows = [], {}
    for entry in line.earlier:
        number = entry.version.version
        past = known.get(number)
        if number in line.open:
            entry = _with_blobs(entry, past, opened.get(number), line.open[number], blob_id)
        elif past is None:  # over when it was superseded: its files are the ones that were stored
            spec, *trials = record_paths(folder(name), entry.version)
            entry = replace(entry, spec_blob=ids[spec], trial_blobs=tuple(ids[path] for path in trials))
        earlier.append(entry)
        if entry != past:
            rows[str(number)] = _line(
                {**version_json(entry.version), "spec_blob": entry.spec_blob, "trial_blobs": list(entry.trial_blobs)}
            )
    if rows:
        path = versions_path(name)
        files[path] = _patched(stored.get(path, b""), rows, lambda row: str(row["version"]), path, key=int)
    return files, replace(line, earlier=tuple(earlier))


def _with_blobs(
    entry: Earlier, past: Earlier | None, old: Record | None, record: Record, blob_id: Callable[[bytes], str]
) -> Earlier:
    if past is not None and past.spec_blob and old is record:
        return replace(entry, spec_blob=past.spec_blob, trial_blobs=past.trial_blobs)
    trials = tuple(blob_id(content) for content in encode_trials(record.trials))
    return replace(entry, spec_blob=blob_id(spec_yaml(record.spec).encode()), trial_blobs=trials)


def _record_files(above: str, before: Record | None, record: Record) -> dict[str, bytes | None]:
    """Return the files of ``record`` that differ from those of ``before`` (None: all)."""
    files: dict[str, bytes | None] = {}
    spec, *paths = record_paths(above, record.version)
    if before is None:
        files[spec] = spec_yaml(record.spec).encode()
    for number, path in enumerate(paths):
        chunk = slice(number * CHUNK, (number + 1) * CHUNK)
        if before is None or before.trials[chunk] != record.trials[chunk]:
            files[path] = encode_trials(record.trials[chunk])[0]
    return files


def _open_files(above: str, before: Record | None, record: Record) -> dict[str, bytes | None]:
    files = _record_files(above, before, record)
    if before is None or before.version != record.version:
        files[f"{above}/version.json"] = encode_version(record.version)
    return files


def _reuse_line(found: Reusable) -> bytes:
    return _line(
        {
            "content": found.content,
            "strict": found.strict,
            "scheme": found.scheme,
            "trial": found.trial,
            "run_id": found.run_id,
            "metrics": metrics_json(found.metrics),
        }
    )


def _patched(
    text: bytes,
    rows: Mapping[str, bytes],
    name: Callable[[Mapping[str, Any]], str],
    path: str,
    *,
    key: Callable[[str], Any] = str,
) -> bytes:
    """Return ``text`` with ``rows`` put in by name, sorted by ``key`` of it; other lines stay as they are."""
    kept = {name(_parse(line, path)): line + b"\n" for line in text.split(b"\n") if line}
    merged = {**kept, **rows}
    return b"".join(merged[each] for each in sorted(merged, key=key))


def _head_name(row: Mapping[str, Any]) -> str:
    return line_name(row["job"], row["line"])


def blob_hash(digits: int) -> Callable[[bytes], str]:
    """Return the function that gives git's id of a blob, in a repository whose ids have ``digits``."""
    import hashlib  # as in content: who only reads has no use for it

    kind = "sha256" if digits == 64 else "sha1"

    def blob_id(content: bytes) -> str:
        made = hashlib.new(kind, b"blob %d\0" % len(content), usedforsecurity=False)
        made.update(content)
        return made.hexdigest()

    return blob_id


def _line(row: Mapping[str, Any]) -> bytes:
    text = _JSON.encode(row)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, as a program's message may have it
        return json.dumps(row, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _made(make: Callable[[Mapping[str, Any]], T], content: bytes, path: str) -> Iterator[T]:
    """Yield what ``make`` makes of each line."""
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line:
            continue
        row = _parse(line, path, number)
        try:
            yield make(row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _broken(path, f"{type(error).__name__} {error}", number) from error


def _parse(content: bytes, path: str, number: int | None = None) -> dict[str, Any]:
    try:
        row = json.loads(content)
    except ValueError as error:
        raise _broken(path, str(error), number) from error
    if not isinstance(row, dict):
        raise _broken(path, "it is no JSON object", number)
    return row


def _file(files: Files, path: str) -> bytes:
    if path not in files:
        raise _broken(path, "it is missing")
    return files[path]


def _broken(path: str, why: str, number: int | None = None) -> RejectedError:
    return RejectedError(
        f"the ledger cannot be read: {re.sub(r'[^ -~]+', ' ', why)}",
        hint="see what is wrong with it: espalier fsck",
        file=path,
        line=number,
    )
