"""A ledger in memory that keeps every promise of the port. Never survives its process."""

import threading
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from espalier.core.errors import StaleError
from espalier.core.events import Earlier, Event, Line, Record, Snapshot, asleep, fold, wake
from espalier.core.names import line_name


@dataclass
class Store:
    """What several ledgers of one repository share; ``appends`` tells kind and actor of each transaction."""

    snapshot: Snapshot = field(default_factory=Snapshot)
    records: dict[tuple[str, int], Record] = field(default_factory=dict)
    appends: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class MemoryLedger:
    """A Ledger over ``store``; give two of them the same store for two writers."""

    def __init__(self, project: str = "test", store: Store | None = None) -> None:
        self.project = project
        self.store = store or Store()

    def read(self, lines: Collection[str] | None = ()) -> Snapshot:
        with self.store.lock:
            whole = self.store.snapshot
        names = whole.lines.keys() if lines is None else whole.lines.keys() & set(lines)
        jobs = {whole.heads[name].job for name in names}
        return replace(
            whole,
            lines={name: whole.lines[name] for name in sorted(names)},
            reuse={job: whole.reuse[job] for job in sorted(jobs) if job in whole.reuse},
        )

    def found(self) -> Snapshot:
        with self.store.lock:
            self._found()
        return self.read()

    def append(self, base: Snapshot, events: Sequence[Event], kind: str, actor: str) -> Snapshot:
        with self.store.lock:
            self._found()
            now = self.store.snapshot
            if base.ledger_id is not None and base.ledger_id != now.ledger_id:
                raise StaleError("the ledger is another one now", hint="plan again")
            woken = wake(now, [self.store.records[at] for at in asleep(now, events)])
            after = fold(woken, events)
            loaded = {*base.lines, *(event.line for event in events if hasattr(event, "line"))}
            if _content(after) != _content(now):
                self._keep(now, replace(after, tip=f"{len(self.store.appends) + 1:040x}"))
                self.store.appends.append((kind, actor))
        return self.read(loaded)

    def version(self, name: str, number: int) -> Record | None:
        with self.store.lock:
            return self.store.records.get((name, number))

    def _found(self) -> None:
        if self.store.snapshot.tip is None:
            self.store.snapshot = Snapshot("0" * 40, str(uuid.uuid4()), self.project)

    def _keep(self, before: Snapshot, after: Snapshot) -> None:
        lines = {}
        for name, line in after.lines.items():
            if line is not before.lines.get(name):
                line = replace(line, earlier=tuple(_with_blobs(name, entry) for entry in line.earlier))
                if name in before.lines:  # it may have been superseded by the same append that moved it
                    last = before.lines[name].last
                    self.store.records[name, last.version.version] = _past(last)
                for record in (line.last, *line.open.values()):
                    self.store.records[line_name(record.version.job, record.version.line), record.version.version] = (
                        record
                    )
            lines[name] = line
        self.store.snapshot = replace(after, lines=lines)


def _past(record: Record) -> Record:
    """Return ``record`` as a superseded one: only a line's last version lists the open ones."""
    return replace(record, version=replace(record.version, open=()))


def _with_blobs(name: str, entry: Earlier) -> Earlier:
    return replace(entry, spec_blob=f"{name}@v{entry.version.version}", trial_blobs=())


def _content(snapshot: Snapshot) -> tuple[dict[str, Line], dict[str, str]]:
    return dict(snapshot.lines), dict(snapshot.cursor)
