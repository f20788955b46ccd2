"""The ledger as it stands at one commit, and what its history still has. Never follows a ref, never writes."""

from collections.abc import Collection, Iterable
from dataclasses import replace

from espalier.core.errors import RejectedError, UnavailableError
from espalier.core.model import Version
from espalier.core.names import line_name
from espalier.core.record import Record, Reusable, Snapshot
from espalier.ledger import records
from espalier.ledger.plumbing import Found, Git


def read_at(git: Git, tip: str, lines: Collection[str] | None) -> Snapshot:
    """Return the ledger at ``tip`` with the whole records of ``lines`` (None: all)."""
    paths = [records.FORMAT_PATH, records.CURSOR_PATH, *(f"heads/{hh}.jsonl" for hh in records.SHARDS)]
    found = stored(git, tip, paths)
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
    return load(git, tip, snapshot, names) if names else snapshot


def load(git: Git, tip: str, snapshot: Snapshot, names: Iterable[str]) -> Snapshot:
    """Return ``snapshot`` with the whole records of ``names``, and the reuse of their jobs."""
    heads = [snapshot.heads[name] for name in names]
    files = files_of(git, tip, heads)
    lines = {line_name(head.job, head.line): records.decode_line(files, head) for head in heads}
    reuse = {
        head.job: records.decode_reuse(files[path], path)
        for head in heads
        if (path := records.reuse_path(head.job)) in files
    }
    return replace(snapshot, lines=lines, reuse=reuse)


def files_of(git: Git, tip: str, heads: Iterable[Version]) -> dict[str, bytes]:
    """Return all files of the lines with these ``heads``, those of their open versions included."""
    listed = list(heads)
    paths = [path for head in listed for path in records.line_paths(head)]
    opened = [(line_name(head.job, head.line), number) for head in listed for number in head.open]
    files = stored(git, tip, [*paths, *(f"{records.open_folder(*at)}/version.json" for at in opened)])
    more = [
        path
        for name, number in opened
        if (file := files.get(f"{records.open_folder(name, number)}/version.json"))
        for path in records.open_paths(name, number, file.content)
    ]
    return {path: file.content for path, file in (files | stored(git, tip, more)).items()}


def reuse_of(git: Git, tip: str, jobs: Iterable[str]) -> dict[str, dict[str, Reusable]]:
    """Return what may be taken over of each of ``jobs`` that has anything."""
    paths = {records.reuse_path(job): job for job in jobs}
    found = stored(git, tip, paths)
    return {paths[path]: records.decode_reuse(file.content, path) for path, file in found.items()}


def past_records(git: Git, snapshot: Snapshot, wanted: Iterable[tuple[str, int]]) -> list[Record]:
    """Return ended versions from their blobs; UnavailableError where this clone does not have these."""
    entries = [
        (name, entry)
        for name, number in wanted
        for entry in snapshot.lines[name].earlier
        if entry.version.version == number
    ]
    files = git.files(blob for _, entry in entries for blob in (entry.spec_blob, *entry.trial_blobs))
    made = []
    for name, entry in entries:
        version = entry.version
        if any(blob not in files for blob in (entry.spec_blob, *entry.trial_blobs)):
            raise UnavailableError(
                f"this clone does not have the files of {name}@v{version.version}",
                hint="fetch the ledger's history: git fetch --unshallow",
            )
        spec, *trials = (files[blob].content for blob in (entry.spec_blob, *entry.trial_blobs))
        made.append(Record(version, records.decode_spec(spec, version), records.decode_trials(trials)))
    return made


def stored(git: Git, tip: str, paths: Iterable[str]) -> dict[str, Found]:
    """Return the files at ``tip`` that exist, by path."""
    start = len(tip) + 1
    return {name[start:]: file for name, file in git.files(f"{tip}:{path}" for path in paths).items()}
