"""What a person does to one version or trial. Never makes a version."""

import difflib

from espalier.core.errors import InputError
from espalier.core.events import CancelRequested, Observed, Record
from espalier.core.model import FINAL, Trial
from espalier.core.names import Target, line_name, version_name
from espalier.core.ports import Ledger, World
from espalier.engine.apply import check_variables, intend
from espalier.engine.launch import backend_of, launch, record_of


def find(ledger: Ledger, target: Target) -> tuple[Record, tuple[Trial, ...]]:
    """Return the version that ``target`` means (none given: the last) and its trials that are meant.

    Raises InputError when there is no such job, version or trial, or a prefix fits several.
    """
    name = line_name(target.job, target.line)
    heads = ledger.read().heads
    if name not in heads:
        near = difflib.get_close_matches(name, heads, n=1)
        raise InputError(f"{name} has no version", hint=f"{near[0]}?" if near else "see what there is: espalier status")
    number = target.version or heads[name].version
    record = ledger.version(name, number)
    if record is None:
        raise InputError(f"{name} has no v{number}", hint=f"see what there is: espalier history {name}")
    if target.trial is None:
        return record, record.trials
    found = tuple(trial for trial in record.trials if trial.id.startswith(target.trial))
    if len(found) != 1:
        ids = ", ".join(trial.id[:8] for trial in (found or record.trials)[:10])
        what = "several trials" if found else "no trial"
        whole = version_name(target.job, target.line, number)
        raise InputError(f"{whole}/{target.trial} is {what}", hint=f"one of: {ids}")
    return record, found


def cancel(world: World, target: Target) -> tuple[tuple[str, int], ...]:
    """Record the wish that the unfinished trials of ``target`` end; the next pass asks for it."""
    record, trials = find(world.ledger, target)
    at = (line_name(target.job, target.line), record.version.version)
    ids = tuple(trial.id for trial in trials if trial.state not in FINAL)
    if not ids:
        raise InputError(
            f"nothing of {version_name(target.job, target.line, at[1])} is running",
            hint=f"see how it ended: espalier show {version_name(target.job, target.line, at[1])}",
        )
    with world.turn():
        base = world.ledger.read([at[0]])
        world.ledger.append(base, [CancelRequested(*at, ids, world.clock.now())], "observed", world.actor)
    return (at,)


def retry(world: World, target: Target, *, lost: bool = False) -> tuple[tuple[str, int], ...]:
    """Send a further attempt of the failed, lost and cancelled trials of ``target``, whatever policy says.

    ``lost``: instead of those that run at another place. A person says that it is gone; nobody can ask it.
    """
    record, trials = find(world.ledger, target)
    version = record.version
    name, whole = line_name(target.job, target.line), version_name(target.job, target.line, version.version)
    place = backend_of(world, version).place
    again = [trial for trial in trials if _is_meant(trial, place if lost else None)]
    if not again and lost:
        raise InputError(f"no trial of {whole} runs at another place", hint=f"see: espalier show {whole}")
    if not again:
        raise InputError(f"no trial of {whole} failed, was lost or cancelled", hint=f"see: espalier show {whole}")
    check_variables(world, whole, record.spec)
    world.tracker.probe()
    with world.turn():
        base = world.ledger.read([name])
        current = record_of(base, name, version.version)
        if current is None or base.ledger_id is None:
            last = base.heads[name].version
            raise InputError(
                f"{whole} was superseded by v{last}", hint=f"retry the last version: espalier retry {name}"
            )
        ids = {trial.id for trial in again}
        chosen = [t for t in current.trials if t.id in ids and _is_meant(t, place if lost else None)]
        now, why = world.clock.now(), "a person said that its machine is gone"
        gone = [
            Observed(name, version.version, trial.id, trial.attempt, "lost", ended_at=now, message=why)
            for trial in (chosen if lost else ())
        ]
        event = intend(world, base.ledger_id, current, chosen, "person")
        snapshot = world.ledger.append(base, [*gone, event], "intent", world.actor)
        launch(world, snapshot, [(name, version.version)], fresh=True)
    return ((name, version.version),)


def _is_meant(trial: Trial, place: str | None) -> bool:
    """Return whether retry means ``trial``: ended badly, or unfinished elsewhere than at ``place``."""
    if place is None:
        return trial.state in ("failed", "lost", "cancelled")
    return trial.state in ("queued", "running") and trial.place not in (None, place)
