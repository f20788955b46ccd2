"""What a worker is told: one attempt rendered from its launch, its places and an environment. Starts nothing."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from espalier.backends.local.queue import Prepared
from espalier.core.errors import RejectedError
from espalier.core.model import Data
from espalier.core.names import run_key
from espalier.core.ports import Launch
from espalier.core.program import Seat, argv, filled, filled_data, late_values, nested, variables
from espalier.worker.hiding import sitecustomize

OUTPUT, LOG, METRICS, PARAMS, WORK = "output", "log.txt", "metrics.jsonl", "params.json", "work"

HIDING = str(Path(sitecustomize.__file__).resolve().parent)


def home(root: Path, key: str) -> Path:
    """Return the folder of one attempt."""
    return root / "trials" / key


def checkpoints(root: Path, launch: Launch) -> Path:
    """Return the checkpoint folder of a trial: the same for each of its attempts."""
    return root / "checkpoints" / run_key(launch.ledger_id, launch.job, launch.line, launch.version, launch.trial)


def seat(
    key: str,
    launch: Launch,
    root: Path,
    repository: Path,
    environ: Mapping[str, str],
    *,
    path_first: tuple[str, ...] = (),
    shadowed: tuple[str, ...] = (),
    gpus: tuple[str, ...] | None = None,
) -> Seat:
    """Return where the attempt ``key`` sits below ``root``."""
    folder = home(root, key)
    work = folder / WORK

    def places(data: Mapping[str, str]) -> Seat:
        return Seat(
            key=key,
            project=launch.project,
            job=launch.job,
            line=launch.line,
            version=launch.version,
            trial=launch.trial,
            attempt=launch.attempt,
            commit=launch.commit,
            work_dir=str(work),
            output_dir=str(folder / OUTPUT),
            checkpoint_dir=str(checkpoints(root, launch)),
            params_file=str(folder / PARAMS),
            data=data,
            path_first=path_first,
            import_first=(*([HIDING] if shadowed else ()), *(os.path.normpath(work / inside) for inside in shadowed)),
            hidden=tuple(os.path.normpath(repository / inside) for inside in shadowed),
            gpus=gpus,
        )

    found = filled_data(launch.program.data, late_values(places({})), environ)
    return places({name: data_place(item, work, repository, environ) for name, item in found.items()})


def data_place(item: Data, work: Path, repository: Path, environ: Mapping[str, str]) -> str:
    """Return where a trial finds ``item``: a path in its working directory, elsewhere on this machine, or the uri."""
    if item.path:
        return str(work / item.path)
    local = local_path(item.uri or "", repository, environ)
    if local is None:
        return item.uri or ""
    return str(work / local.relative_to(repository)) if local.is_relative_to(repository) else str(local)


def local_path(uri: str, repository: Path, environ: Mapping[str, str]) -> Path | None:
    """Return the absolute path of a ``file:`` uri, None for any other; relative ones are to the repository's top."""
    if not uri.startswith("file:"):
        return None
    text = uri.removeprefix("file:")
    if text.startswith("//"):
        text = "/" + unquote(text).lstrip("/").removeprefix("localhost/")
    if text == "~" or text.startswith("~/"):
        text = environ.get("HOME", "~") + text[1:]
    return Path(os.path.normpath(repository / text))


def links(
    data: Mapping[str, Data], repository: Path, environ: Mapping[str, str], late: Mapping[str, str]
) -> dict[str, str]:
    """Return the untracked data of this machine by its place in the working directory.

    Raises RejectedError for what is not there.
    """
    found: dict[str, str] = {}
    for name, item in filled_data(data, late, environ).items():
        local = local_path(item.uri or "", repository, environ)
        if local is None:
            continue
        if not local.exists():
            raise RejectedError(
                f"data {name!r}: {local} is not on this machine", hint="put it there, or correct the uri in the job"
            )
        if local == repository:
            raise RejectedError(f"data {name!r} is the whole repository", hint="name a folder in it")
        if local.is_relative_to(repository):
            found[str(local.relative_to(repository))] = str(local)
    return found


def order(
    where: Seat, launch: Launch, prepared: Prepared, root: Path, environ: Mapping[str, str], extra: Mapping[str, str]
) -> dict[str, Any]:
    """Return what the worker of this attempt reads from its stdin: it holds the environment, and is never on disk.

    Raises InputError where ``environ`` lacks something.
    """
    late = late_values(where)
    folder = home(root, where.key)
    params = {name: filled(value, late) for name, value in launch.params.items()}
    env = variables(launch.spec, launch.program, launch.params, where, environ, {**launch.variables, **extra})
    return {
        "key": where.key,
        "argv": argv(launch.program, launch.params, launch.spec.pass_params, late, environ),
        "env": env,
        "mask": [env[name] for name in launch.spec.secrets],
        "work": where.work_dir,
        "layout": str(root / "layouts" / prepared.layout),
        "links": dict(prepared.links),
        "output": where.output_dir,
        "checkpoint": where.checkpoint_dir,
        "log": str(folder / LOG),
        "spool": str(folder / METRICS),
        "params_file": where.params_file,
        "params": nested(params),
        "time_limit_s": launch.spec.resources.time_limit_s,
        "grace_s": launch.spec.grace_s,
        "notes": [],
    }
