"""What an MLflow run shows of a record: subjects for the tracker. Never calls the tracker."""

from dataclasses import dataclass

from espalier.core.content import Change, diff
from espalier.core.events import Record
from espalier.core.model import Settings, Trial
from espalier.core.names import line_name, parse_target, run_key
from espalier.core.ports import Subject, World


@dataclass(frozen=True, slots=True)
class Showing:
    """A record with what its runs are compared against."""

    record: Record
    parent: Record | None
    changes: tuple[Change, ...]
    ledger_id: str
    settings: Settings
    repository: str

    def whole(self) -> Subject:
        """Return the subject of the version's own run; without a sweep it is its trial's run too."""
        return self._subject(self.record.trials[0] if self.record.spec.sweep is None else None)

    def part(self, trial: Trial) -> Subject:
        """Return the subject of the run of ``trial``."""
        return self._subject(trial)

    def _subject(self, trial: Trial | None) -> Subject:
        version, spec = self.record.version, self.record.spec
        child = trial.id if trial and spec.sweep is not None else None
        sweep = spec.sweep
        swept = tuple(sweep.params) or tuple(dict.fromkeys(n for p in sweep.points for n in p)) if sweep else ()
        return Subject(
            key=run_key(self.ledger_id, version.job, version.line, version.version, child),
            ledger_id=self.ledger_id,
            experiment=experiment(self.settings, version.job),
            version=version,
            spec=spec,
            trial=trial,
            trials=self.record.trials,
            parent=self.parent.version if self.parent else None,
            changes=self.changes,
            description=version.description,
            repository=self.repository,
            swept=swept,
        )


def experiment(settings: Settings, job: str) -> str:
    """Return the name of the MLflow experiment of ``job``."""
    return settings.experiment.replace("${espalier.project}", settings.project).replace("${espalier.job}", job)


def showing(world: World, record: Record, ledger_id: str) -> Showing:
    """Return what the runs of ``record`` show; reads its parent (a first side-line version: its base)."""
    version = record.version
    parent: Record | None = None
    if version.parent is not None:
        parent = world.ledger.version(line_name(version.job, version.line), version.parent)
    elif version.base is not None:
        base = parse_target(version.base)
        parent = world.ledger.version(base.job, base.version or 1)
    changes = diff(parent.spec, record.spec, version.origins) if parent else ()
    return Showing(record, parent, changes, ledger_id, world.settings, world.repository)
