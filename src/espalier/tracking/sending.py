"""What a trial left on this machine, sent to its run: metrics, log, output, pages. Never sets a run's status.

What MLflow refuses for good is named in the run (tag ``espalier.refused``, ``espalier/left-out.txt``) and takes
nothing else with it; what could not be sent of an attempt that another one follows is owed, and sent by the next
pass.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from espalier.core.errors import RejectedError
from espalier.core.masking import mask
from espalier.core.model import FINAL, Artifacts
from espalier.core.ports import Report, Subject
from espalier.tracking import artifact, page
from espalier.tracking.keys import TAG_MAX, cut, decode_key
from espalier.tracking.outbox import Outbox, Owed, Sent, unsent
from espalier.tracking.store import Metric, Run, Store

_POINTS = 5_000  # between two notes of what was sent


class Sender:
    """Sends through ``reach`` (the store) and ``put`` (an artifact), noting in ``outbox`` what arrived."""

    def __init__(
        self,
        reach: Callable[[], Store],
        put: Callable[[Run, str, Path], None],
        outbox: Outbox,
        environ: Mapping[str, str],
    ) -> None:
        self._reach = reach
        self._put = put
        self._outbox = outbox
        self._environ = environ

    def has_news(self, report: Report, sent: Sent) -> bool:
        """Return whether something of a running trial is not sent yet; asks the file system alone."""
        if sent.owed or report.state in FINAL:
            return True
        if not report.metrics:
            return False
        try:
            return Path(report.metrics).stat().st_size != sent.spools.get(report.metrics, 0)
        except OSError:
            return False

    def owe(self, run_id: str, report: Report, attempt: int) -> None:
        """Note that an ended attempt could not be sent, so that nothing of it is forgotten."""
        sent = self._outbox.read(run_id)
        owed = Owed(attempt, report.metrics, report.log)
        if owed not in sent.owed:
            self._outbox.write(run_id, replace(sent, owed=(*sent.owed, owed)))

    def settle(self, run: Run, sent: Sent) -> Sent:
        """Send what is owed of earlier attempts."""
        for owed in sent.owed:
            report = Report("failed", metrics=owed.metrics, log=owed.log)
            sent = self.metrics(run.id, report, sent, ended=True)
            self.log(run, report, owed.attempt, sent.secrets)
            sent = replace(sent, owed=tuple(other for other in sent.owed if other != owed))
            self._outbox.write(run.id, sent)
        return sent

    def metrics(self, run_id: str, report: Report, sent: Sent, *, ended: bool) -> Sent:
        """Send the points that are new; return what was sent then."""
        if not report.metrics:
            return sent
        points, offset = unsent(Path(report.metrics), sent.spools.get(report.metrics, 0), ended=ended)
        for at in range(0, len(points), _POINTS):
            self._write(run_id, points[at : at + _POINTS])
        if offset != sent.spools.get(report.metrics, 0):
            sent = replace(sent, spools={**sent.spools, report.metrics: offset})
            self._outbox.write(run_id, sent)
        return sent

    def log(self, run: Run, report: Report, attempt: int, secrets: Iterable[str]) -> None:
        """Send the log of an attempt, without the values of ``secrets`` (names) and without known shapes."""
        if not report.log or not Path(report.log).is_file():
            return
        values = [self._environ[name] for name in secrets if self._environ.get(name)]
        with tempfile.TemporaryDirectory(prefix="espalier-") as staged:
            masked = Path(staged, "log")
            artifact.masked_log(Path(report.log), masked, values)
            self._put(run, artifact.log_name(attempt), masked)

    def pages(self, run: Run, subject: Subject) -> None:
        """Send ``spec.yaml`` and ``diff.md``, once."""
        sent = self._outbox.read(run.id)
        if sent.pages:
            return
        self._text(run, "spec.yaml", page.spec_page(subject.spec))
        self._text(run, "diff.md", page.diff_page(subject))
        self._outbox.write(run.id, replace(sent, pages=True))

    def artifacts(self, run: Run, subject: Subject, report: Report, sent: Sent, wanted: Artifacts) -> None:
        """Send log, packages and output of an ended attempt, once; name what is left out."""
        attempt = max(subject.trial.attempt if subject.trial else 1, 1)
        if sent.artifacts >= attempt:
            return
        left: list[tuple[str, str]] = []
        try:
            self.log(run, report, attempt, subject.spec.secrets)
        except RejectedError as error:
            left.append((artifact.log_name(attempt), error.message))
        if report.environment:
            self._text(run, "packages.txt", _packages(report.environment))
        if report.output and Path(report.output).is_dir():
            selected = artifact.select(Path(report.output), wanted)
            left += selected.left_out
            for path, file in selected.files:
                try:
                    self._put(run, path, file)
                except RejectedError as error:
                    left.append((path, error.message))
        if left:
            self._text(run, "left-out.txt", artifact.left_out_page(left))
        self._outbox.write(run.id, replace(self._outbox.read(run.id), artifacts=attempt))

    def _text(self, run: Run, name: str, content: str) -> None:
        with tempfile.TemporaryDirectory(prefix="espalier-") as staged:
            file = Path(staged, name)
            file.write_text(content, "utf-8", errors="replace")
            self._put(run, f"{artifact.OURS}/{name}", file)

    def _write(self, run_id: str, points: Sequence[Metric]) -> None:
        """Write the points; one that MLflow refuses is named in a tag and does not take the others with it."""
        try:
            self._reach().write(run_id, points, {}, {})
        except RejectedError as error:
            if len(points) > 1:
                for half in (points[: len(points) // 2], points[len(points) // 2 :]):
                    self._write(run_id, half)
                return
            run = self._reach().run(run_id)
            if run is None or run.deleted:
                raise
            told = cut(f"{decode_key(points[0].key)}: {error.message}", TAG_MAX)
            self._reach().write(run_id, (), {}, {"espalier.refused": told})


def _packages(environment: Mapping[str, str]) -> str:
    """Return interpreter and packages of a trial, a line or block each."""
    parts = []
    for name, value in sorted(environment.items()):
        parts.append(f"{name}:\n{value.rstrip()}\n" if "\n" in value else f"{name}: {value}\n")
    return mask("".join(parts))
