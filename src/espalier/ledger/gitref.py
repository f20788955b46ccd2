"""The ledger on a ref of the repository. Never rewrites a commit, never touches a branch or the working tree."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from espalier.core.record import Record, Snapshot
from espalier.ledger.plumbing import Git
from espalier.ledger.tree import past_records, read_at

if TYPE_CHECKING:
    from espalier.core.events import Event


class GitLedger:
    """The ledger at ``refs/espalier/ledger`` of the repository.

    Where that is missing, or a remote-tracking branch ``espalier/ledger`` is ahead of it, that is read,
    and appends build on it.
    """

    def __init__(self, repository: Path, project: str, environ: Mapping[str, str] | None = None) -> None:
        self._git = Git(repository, environ)
        self._project = project

    def read(self, lines: Collection[str] | None = ()) -> Snapshot:
        """Return the ledger at its tip with the whole records of ``lines`` (None: all); empty when there is none."""
        tip = self._git.tips().read
        return read_at(self._git, tip, lines) if tip else Snapshot()

    def found(self) -> Snapshot:
        """Return the ledger's heads; make the ledger where there is none. A loser of that race takes the winner's."""
        from espalier.ledger.append import found  # who only reads does not pay for what writes

        return found(self._git, self._project)

    def append(self, base: Snapshot, events: "Sequence[Event]", kind: str, actor: str) -> Snapshot:
        """Record ``events`` as one commit and return the ledger after it; none when they change nothing.

        They were decided on ``base``. Where the tip has moved since, they are folded on what is
        there now: StaleError when a record that they decide on has moved. UnavailableError when
        git cannot write, or others win every race for two minutes.
        """
        from espalier.ledger.append import append

        return append(self._git, self._project, base, events, kind, actor)

    def version(self, name: str, number: int) -> Record | None:
        """Return a version of the line whole: its last, one that still runs, or an ended one."""
        snapshot = self.read([name])
        line = snapshot.lines.get(name)
        if line is None or number < 1 or number > line.last.version.version:
            return None
        if number == line.last.version.version:
            return line.last
        return line.open.get(number) or next(iter(past_records(self._git, snapshot, [(name, number)])), None)
