"""What every test stands on: a clean environment, no network, a small repository, the command as installed."""

import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tests.network import refuse_network
from tests.repository import Repository, new_repository

ROOT = Path(__file__).resolve().parent.parent
STEERS_US = ("GIT_", "MLFLOW_", "ESPALIER_", "HYDRA_", "XDG_", "SLURM_")
DROPPED = ("CI", "CONDA_PREFIX", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "EMAIL", "COLUMNS", "NO_COLOR", "FORCE_COLOR")
GIT_CONFIG = """\
[user]
name = Tess Ter
email = tess@example.invalid
[init]
defaultBranch = main
"""

pytest_plugins = ["tests.servers"]

refuse_network()

settings.register_profile("usual", max_examples=25, deadline=None)  # a loaded machine is no failure
settings.register_profile("nightly", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("ESPALIER_TEST_PROFILE", "usual"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files that differ, and still fail")


@pytest.fixture(autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a home and a git identity of its own, and nothing that the caller's shell says; return the home."""
    home = tmp_path_factory.mktemp("home")
    set_environment(home, monkeypatch)
    return home


def set_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name in DROPPED or name.startswith(STEERS_US):
            monkeypatch.delenv(name)
    (home / ".gitconfig").write_text(GIT_CONFIG, "utf-8")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_TERMINAL_PROMPT", "0")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("DO_NOT_TRACK", "true")
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]))


@pytest.fixture(scope="session")
def repository_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository that ``repo`` copies: made once."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as monkeypatch:
        set_environment(folder, monkeypatch)
        return new_repository(folder / "repo").path


@pytest.fixture
def repo(repository_template: Path, tmp_path: Path) -> Repository:
    """A small repository of the test's own: the jobs ``single`` and ``group/sweep``, committed on main."""
    shutil.copytree(repository_template, tmp_path / "repo", symlinks=True)
    return Repository(tmp_path / "repo")


def program() -> list[str]:
    """Return how espalier is started: the console script where this checkout is installed, else the module."""
    try:
        told = importlib.metadata.distribution("espalier").read_text("direct_url.json") or "{}"
    except importlib.metadata.PackageNotFoundError:
        told = "{}"
    script = Path(sys.executable).with_name("espalier")
    if json.loads(told).get("url") == ROOT.as_uri() and script.exists():
        return [str(script)]
    return [sys.executable, "-m", "espalier"]


@pytest.fixture
def espalier(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``espalier ARGUMENTS`` to its end, in ``cwd`` (default: ``repo``, where the test has one)."""
    command = program()
    here = tmp_path / "repo" if "repo" in request.fixturenames else tmp_path

    def run(
        *arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **(env or {})}
        if len(command) > 1:
            environment["PYTHONPATH"] = str(ROOT / "src")
        return subprocess.run(
            [*command, *arguments],
            cwd=cwd or here,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    return run


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare a text with a file; ``--update-golden`` rewrites the file and the test still fails."""

    def compare(path: Path, actual: str) -> None:
        if path.exists() and path.read_text("utf-8") == actual:
            return
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(actual, "utf-8")
        pytest.fail(f"{path} differed: read its diff, run again")

    return compare


@pytest.fixture
def command_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH in which ``espalier`` is this checkout's."""
    folder = tmp_path_factory.mktemp("bin")
    command = program()
    lines = [f"export PYTHONPATH={shlex.quote(str(ROOT / 'src'))}"] if len(command) > 1 else []
    script = "\n".join(["#!/bin/sh", *lines, f'exec {shlex.join(command)} "$@"', ""])
    (folder / "espalier").write_text(script, "utf-8")
    (folder / "espalier").chmod(0o755)
    return folder
