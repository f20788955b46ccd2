"""Repositories with the command at hand; one environment for all tests of a module, so that they can share one."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import set_environment
from tests.e2e.desk import Desk, bare
from tests.looking import HttpLook
from tests.repository import Repository

NewDesk = Callable[..., Desk]


@pytest.fixture(scope="module", autouse=True)
def module_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests/conftest.py gives each test, for what lives as long as a module."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        set_environment(tmp_path_factory.mktemp("home"), monkeypatch)
        yield


@pytest.fixture(scope="module")
def new_desk(
    module_environment: None, repository_template: Path, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NewDesk]:
    """Make desks whose MLflow is the server and whose project's name is their own.

    ``jobs`` (name to text) take the place of the template's. Programs find the folder of their gate in $GATES; all
    gates are opened in the end.
    """
    gates: list[Path] = []

    def make(jobs: dict[str, str] | None = None, files: dict[str, str] | None = None, sqlite: bool = False) -> Desk:
        folder = tmp_path_factory.mktemp("desk")
        shutil.copytree(repository_template, folder / "repo", symlinks=True)
        repo = Repository(folder / "repo")
        gates.append(folder / "gates")
        gates[-1].mkdir()
        environ = {**os.environ, "GATES": str(gates[-1])}
        if not sqlite:
            environ["MLFLOW_TRACKING_URI"] = mlflow_server
        desk = Desk(repo, environ)
        repo.replace("conf/config.yaml", "project: demo", f"project: p{uuid.uuid4().hex[:10]}")
        if jobs is not None:
            bare(repo)
        for name, text in (jobs or {}).items():
            desk.job(name, text)
        for name, text in (files or {}).items():
            repo.write(name, text)
        repo.commit("Declare the jobs")
        return desk

    yield make
    for gate in gates:
        (gate / "open").touch()


@pytest.fixture(scope="session")
def look(mlflow_server: str) -> HttpLook:
    """Look at runs of the server, with no code of ours between."""
    return HttpLook(mlflow_server)
