"""Settings to objects: the only place that names adapters and reads the environment. Never decides."""

import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from espalier.core.errors import InputError

if TYPE_CHECKING:
    from espalier.core.model import Settings
    from espalier.core.ports import Backend, Ledger, World

STATE_DIR = ".espalier"


class SystemClock:
    """The machine's clock."""

    def now(self) -> str:
        return _stamp(datetime.now(UTC))

    def after(self, seconds: float) -> str:
        return _stamp(datetime.now(UTC) + timedelta(seconds=seconds))

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def top_of(directory: Path) -> Path:
    """Return the top of the repository that holds ``directory``; raise InputError when there is none."""
    from espalier.source.git import find_top

    return find_top(directory)


def open_ledger(directory: Path, project: str = "") -> "Ledger":
    """Return the ledger of the repository, to be read: needs no config."""
    from espalier.ledger.gitref import GitLedger

    return GitLedger(top_of(directory), project)


def open_world(
    directory: Path,
    *,
    rev: str = "HEAD",
    start_tracker: bool = False,
    start_runner: bool = False,
    follower: bool = True,
) -> "World":
    """Return the repository's world with the settings committed at ``rev``.

    ``start_tracker`` starts what MLflow needs, in the background; ``start_runner`` lets the local
    backend bring a dead runner back, ``follower`` lets the runner keep a process that follows beside
    it. Raises InputError where there is no repository or no config.
    """
    from espalier.core.ports import World
    from espalier.source import clone
    from espalier.source.commit import GitSource
    from espalier.tracking.mlflow import MLflowTracker

    top = top_of(directory)
    source = GitSource(top)
    settings = source.settings(source.resolve(rev))
    state = state_dir(top) if start_tracker or start_runner else top / STATE_DIR  # who only reads writes nothing
    uri = tracking_uri(settings, os.environ)
    tracker = MLflowTracker(uri, state, top, settings.artifacts_uri, os.environ)
    if start_tracker:
        tracker.start()
    return World(
        source=source,
        ledger=open_ledger(top, settings.project),
        backends=_backends(top, start_runner=start_runner, follower=follower),
        tracker=tracker,
        clock=SystemClock(),
        settings=settings,
        actor=actor(top, os.environ),
        owner=f"{os.uname().nodename}:{os.getpid()}",
        branch=clone.branch(top),
        turn=lambda: turn(state_dir(top)),
        present=lambda name: name in os.environ,
        repository=clone.url(top),
    )


def tracking_uri(settings: "Settings", environ: Mapping[str, str]) -> str:
    """Return the tracking URI that wins: ``MLFLOW_TRACKING_URI``, else the committed one."""
    return environ.get("MLFLOW_TRACKING_URI") or settings.tracking_uri


def actor(top: Path, environ: Mapping[str, str]) -> str:
    """Return who acts: ``Name <email>`` of git, in CI the person who pushed."""
    from espalier.source.clone import identity

    if environ.get("CI") and environ.get("GITHUB_ACTOR"):
        return environ["GITHUB_ACTOR"]
    import getpass

    return identity(top) or f"{getpass.getuser()}@{os.uname().nodename}"


def state_dir(top: Path) -> Path:
    """Return the folder of this clone's own state, made private and ignored by git."""
    state = top / STATE_DIR
    try:
        state.mkdir(mode=0o700, exist_ok=True)
        ignore = state / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", "utf-8")
    except OSError as error:
        raise InputError(
            f"{state} cannot be written: {error.strerror}",
            hint="espalier keeps its queue there: make the folder writable",
        ) from error
    return state


@contextmanager
def turn(state: Path) -> Iterator[None]:
    """Hold this clone's turn; the kernel gives it back when the holder dies."""
    with (state / "turn.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def load_backend(kind: str) -> "Callable[..., Backend]":
    """Return the class of a third party's backend; raise InputError when none is installed under ``kind``."""
    from importlib.metadata import entry_points

    for entry in entry_points(group="espalier.backends", name=kind):
        backend: Callable[..., Backend] = entry.load()
        return backend
    raise InputError(f"there is no backend {kind!r}", hint="use local, or install the package that brings it")


def dirty_paths(directory: Path) -> list[str]:
    """Return the paths in which the working tree differs from HEAD."""
    from espalier.source.git import dirty

    return dirty(top_of(directory))


def check_ledger(directory: Path) -> list[tuple[str, str]]:
    """Return what is wrong with the ledger, each with how to mend it."""
    from espalier.ledger.fsck import check

    return [(problem.message, problem.hint) for problem in check(top_of(directory), SystemClock().now())]


def schema() -> dict[str, object]:
    """Return the JSON Schema of a job file."""
    from espalier.source.schema import json_schema

    return dict(json_schema())


def ui_command(directory: Path, port: int) -> tuple[list[str], str]:
    """Return the argv of MLflow's UI on the configured store, and the link to open."""
    from espalier.source.commit import GitSource
    from espalier.tracking.mlflow import ui

    top = top_of(directory)
    source = GitSource(top)
    settings = source.settings(source.resolve("HEAD"))
    argv, link = ui(tracking_uri(settings, os.environ), top, settings.artifacts_uri, port)
    return list(argv), link


def _backends(top: Path, *, start_runner: bool, follower: bool) -> "Callable[[str], Backend]":
    @cache
    def backend(kind: str) -> "Backend":
        if kind != "local":
            return load_backend(kind)(top, os.environ)
        from espalier.backends.local.client import LocalBackend

        beside = (sys.executable, "-m", "espalier", "-C", str(top), "follow", "--beside")
        return LocalBackend(
            top / STATE_DIR, top, os.environ, follower=beside if follower else (), start_runner=start_runner
        )

    return backend
