"""Where databases, artifacts and sockets lie."""

from pathlib import Path

import pytest

from espalier.core.errors import InputError
from espalier.tracking.location import (
    absolute_uri,
    artifact_root,
    experiment_location,
    local_path,
    runtime_folder,
    sqlite_file,
)
from espalier.tracking.ui import run_link, ui

TOP = Path("/repo")


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        ("sqlite:///mlflow.db", "sqlite:////repo/mlflow.db"),
        ("sqlite:///../shared/m.db", "sqlite:////shared/m.db"),
        ("sqlite:////data/m.db", "sqlite:////data/m.db"),
        ("sqlite+pysqlite:///m.db?timeout=5", "sqlite+pysqlite:////repo/m.db?timeout=5"),
        ("https://mlflow.example/", "https://mlflow.example"),
        ("postgresql://u:p@host/db", "postgresql://u:p@host/db"),
    ],
)
def test_relative_files_are_below_the_repository(uri: str, absolute: str) -> None:
    assert absolute_uri(uri, TOP) == absolute


@pytest.mark.parametrize("uri", ["mlruns", "file:///repo/mlruns", "sqlite://", "mlflow.db", ""])
def test_what_mlflow_keeps_no_runs_in_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match=r"tracking\.uri"):
        absolute_uri(uri, TOP)


def test_artifacts_lie_beside_their_database() -> None:
    assert artifact_root("sqlite:////data/m.db", TOP) == Path("/data/mlartifacts")
    assert artifact_root("postgresql://host/db", TOP) == Path("/repo/mlartifacts")


def test_experiments_have_folders_of_their_own() -> None:
    one, other = (experiment_location("/a/", name) for name in ("p/x", "p-x"))
    assert one.startswith("/a/p-x-")
    assert one != other


def test_only_folders_of_this_machine_are_written_directly() -> None:
    assert local_path("/a/b") == Path("/a/b")
    assert local_path("file:///a%20b") == Path("/a b")
    assert local_path("mlflow-artifacts:/1/2") is None
    assert local_path("s3://bucket/a") is None
    assert sqlite_file("https://a") is None


def test_the_folder_of_sockets_is_short_even_where_the_temporary_one_is_long(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("d" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert len(str(runtime_folder())) < 80


def test_the_ui_of_a_server_is_its_own() -> None:
    assert ui("https://u:p@mlflow.example/", TOP, None, 5000) == (
        (),
        "https://mlflow.example/#/experiments?workflowType=machine_learning",
    )


def test_the_ui_of_a_database_is_served_here_and_its_password_is_no_argument() -> None:
    argv, link = ui("postgresql://u:sesame@host/db", TOP, None, 5001)
    assert argv[1:] == ["-m", "espalier.tracking.ui", "postgresql://host/db", "/repo/mlartifacts", "5001"]
    assert link == "http://127.0.0.1:5001/#/experiments?workflowType=machine_learning"
    page = run_link(link.partition("#")[0], "1", "r")
    assert page == "http://127.0.0.1:5001/#/experiments/1/runs/r?workflowType=machine_learning"


@pytest.mark.parametrize("repository", ["/work/what?", "/work/a%41"])
def test_a_path_that_an_address_cannot_hold_is_refused_and_nothing_lands_elsewhere(repository: str) -> None:
    with pytest.raises(InputError, match="path"):
        absolute_uri("sqlite:///mlflow.db", Path(repository))
    assert absolute_uri("sqlite:////data/mlflow.db", Path(repository)) == "sqlite:////data/mlflow.db"
