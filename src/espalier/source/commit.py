"""The Source of a repository: what a commit declares. Never reads the working tree; ``dirty`` only compares it."""

import fnmatch
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from espalier.core.errors import EspalierError, InputError
from espalier.core.masking import secret_shape
from espalier.core.model import Commit, Declared, Job, JobError, Settings
from espalier.core.names import job_fault
from espalier.source import clone, git
from espalier.source.git import Objects
from espalier.source.primary import BYTES_MAX, Layout, plain_config, read_layout

BACKENDS = "espalier.backends"
"""Entry-point group by which others add backends; looked up by name, never imported here."""


class GitSource:
    """Reads the commits of the repository that holds ``repository``; its top folder is ``top``."""

    def __init__(self, repository: Path) -> None:
        self.top = git.find_top(repository)

    def resolve(self, rev: str) -> Commit:
        """Return the commit that ``rev`` names; InputError when there is none."""
        return git.resolve(self.top, rev)

    def specs(self, commit: Commit, globs: Collection[str] = ()) -> Declared:
        """Return every job that matches a glob (all without), and all errors of those that do not compose.

        ``*`` matches ``/`` too. A glob that matches nothing gives no job.
        """
        with self._opened(commit) as (objects, layout):
            settings, errors = _settings(objects, layout)
            jobs: list[Job] = []
            names, faults = _names(objects, layout)
            chosen = [name for name in names if _matches(name, globs)]
            errors += [fault for fault in faults if _matches(fault.job, globs)]
            if chosen:
                found, wrong = _compose(objects, layout, chosen)
                jobs += found
                errors += [error for error in wrong if error not in errors]
        return Declared(commit, settings, tuple(jobs), tuple(errors))

    def settings(self, commit: Commit) -> Settings:
        """Return the repository's settings at ``commit``, whatever its jobs are like; InputError when wrong."""
        with self._opened(commit) as (objects, layout):
            settings, errors = _settings(objects, layout)
        if errors:
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            first = errors[0]
            raise InputError(first.message + more, hint=first.hint, file=first.file, line=first.line)
        return settings

    def contains(self, descendant: str, ancestor: str) -> bool:
        """Return whether the commit ``ancestor`` is reachable from ``descendant``."""
        return clone.contains(self.top, descendant, ancestor)

    def dirty(self) -> list[str]:
        """Return the paths in which the working tree differs from HEAD, which planning leaves aside."""
        return git.dirty(self.top)

    @contextmanager
    def _opened(self, commit: Commit) -> Iterator[tuple[Objects, Layout]]:
        with Objects(self.top, commit.id) as objects:
            yield objects, read_layout(objects)


def _names(objects: Objects, layout: Layout) -> tuple[list[str], list[JobError]]:
    """Return the legal names of jobs, sorted, and what is wrong with the others."""
    folder = f"{layout.config_dir}/job"
    names: list[str] = []
    faults = []
    seen: dict[str, str] = {}
    for path, entry in objects.below(folder):
        name = path[len(folder) + 1 :].removesuffix(".yaml")
        if not path.endswith(".yaml") or entry.kind != "blob" or any(p[0] in "_." for p in name.split("/") if p):
            continue
        if entry.mode == "120000" and objects.kind(path) != "blob":
            faults.append(JobError(name, "a link that leads to no file", "replace it", path))
            continue
        fault = job_fault(name)
        if fault:
            faults.append(JobError(name, f"{name!r} is no job name: {fault}", "rename the file", path))
            continue
        other = seen.setdefault(name.lower(), name)
        if other != name:
            faults.append(
                JobError(name, f"{name!r} and {other!r} differ in case alone", "rename one of the files", path)
            )
            continue
        names.append(name)
    return sorted(names), faults


def _compose(objects: Objects, layout: Layout, names: list[str]) -> tuple[list[Job], list[JobError]]:
    from espalier.source.compose import Composer
    from espalier.source.files import Files
    from espalier.source.spec import parse_spec

    jobs_folder = f"{layout.config_dir}/job/"
    wanted = {f"{jobs_folder}{name}.yaml" for name in names}
    every = (path for path, _ in objects.below(layout.config_dir) if path.endswith(".yaml"))
    objects.prefetch((p for p in every if p in wanted or not p.startswith(jobs_folder)), BYTES_MAX)
    try:
        composer = Composer(objects, layout.config_dir, layout.config_name)
    except InputError as error:
        return [], [_job_error("", error)]
    jobs, errors = [], []
    files = Files(objects)
    try:
        for name in names:
            try:
                job, wrong = parse_spec(name, composer.compose(name), files, _kinds)
            except InputError as error:
                errors.append(_job_error(name, error, f"{layout.config_dir}/job/{name}.yaml"))
                continue
            errors += wrong
            if job:
                jobs.append(job)
    finally:
        files.close()
    return jobs, errors


def _kinds() -> tuple[str, ...]:
    """Return the backends that there are, ours first; reading what is installed takes 0.1 s."""
    return ("local", *sorted({point.name for point in entry_points(group=BACKENDS)} - {"local"}))


def _settings(objects: Objects, layout: Layout) -> tuple[Settings, list[JobError]]:
    """Return the settings and all that is wrong with them."""
    from espalier.source.guard import strings
    from espalier.source.resolve import Resolver, late
    from espalier.source.schema import SETTINGS, parse_settings

    errors: list[JobError] = []
    try:
        config, place = _primary(objects, layout)
    except InputError as error:
        return Settings(project=""), [_job_error("", error, layout.file)]

    def report(message: str, hint: str, path: tuple[Any, ...]) -> None:
        file, line = place(path) if path else (layout.file, None)
        errors.append(JobError("", message, hint, file or layout.file, line))

    resolver = Resolver(config)
    resolved = {}
    for name in SETTINGS:
        if config.get(name) is None:
            continue
        try:
            outcome = resolver.node((name,))
        except InputError as error:
            report(error.message, error.hint, getattr(error, "path", (name,)))
            continue
        value = outcome.value
        allowed = {**value, "experiment": None} if name == "tracking" and isinstance(value, dict) else value
        if outcome.variables or late(allowed):
            report(
                f"{name} holds a value that planning does not know",
                "write it out; MLFLOW_TRACKING_URI wins over tracking.uri where it is set",
                (name,),
            )
        elif any("@" in text.partition("://")[2].partition("/")[0] or secret_shape(text) for text in strings(value)):
            report(f"{name} holds credentials", "give them by MLFLOW_TRACKING_URI or MLflow's variables", (name,))
        else:
            resolved[name] = value
    if not errors:
        settings = parse_settings(resolved, report)
        return settings, errors
    return Settings(project=""), errors


def _primary(objects: Objects, layout: Layout) -> tuple[Any, Any]:
    """Return the config without a job, and what tells the place of a node."""
    plain = plain_config(objects, layout)
    if plain:
        config, document = plain
        return config, lambda path: (document.file, document.line(path))
    from espalier.source.compose import Composer

    composed = Composer(objects, layout.config_dir, layout.config_name).compose(None)
    return composed.config, composed.place


def _job_error(job: str, error: EspalierError, file: str = "") -> JobError:
    return JobError(job, error.message, error.hint, error.file or file, error.line)


def _matches(name: str, globs: Collection[str]) -> bool:
    return not globs or any(fnmatch.fnmatchcase(name, glob) for glob in globs)
