"""`espalier init`, on real folders and real git."""

import argparse
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from espalier.cli.commands import init
from espalier.core.errors import InputError
from tests.repository import Repository

ROOT = Path(__file__).resolve().parents[2]


def run_init(*words: str, directory: Path = Path(".")) -> int:
    parser = argparse.ArgumentParser()
    init.add_arguments(parser)
    arguments = parser.parse_args(words)
    arguments.directory = directory
    return init.run(arguments)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not {".git", "__pycache__"} & set(path.parts)
    }


def test_a_new_folder_becomes_a_repository_that_holds_the_example_and_no_commit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_init(str(tmp_path / "my digits")) == 0
    told = capsys.readouterr()
    made = Repository(tmp_path / "my digits")
    assert "added    conf/job/digits/mlp.yaml" in told.out.splitlines()
    assert "git commit" in told.err
    assert "espalier apply" in told.err
    assert f"cd '{made.path}'" in told.err
    assert yaml.safe_load((made.path / "conf/config.yaml").read_text())["project"] == "my-digits"
    assert made.git("symbolic-ref", "HEAD") == "refs/heads/main"
    assert made.git("rev-list", "--all") == ""


def test_every_example_job_composes_with_hydra_and_names_files_that_are_there(tmp_path: Path) -> None:
    run_init(str(tmp_path / "new"))
    jobs = sorted((tmp_path / "new/conf/job").rglob("*.yaml"))
    assert len(jobs) == 4
    for job in jobs:
        name = job.relative_to(tmp_path / "new/conf/job").with_suffix("").as_posix()
        with initialize_config_dir(str(tmp_path / "new/conf"), version_base=None):
            composed = compose("config", overrides=[f"job={name}"])
        assert composed.job.backend.kind == "local"
        for path in composed.job.code:
            assert (tmp_path / "new" / path).is_file()


def test_one_edit_in_a_shared_group_moves_several_jobs(tmp_path: Path) -> None:
    run_init(str(tmp_path / "new"))
    reading = [
        job for job in (tmp_path / "new/conf/job").rglob("*.yaml") if "/optim@params.optim: sgd" in job.read_text()
    ]
    assert len(reading) > 1


def test_a_second_init_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_init(str(tmp_path / "new"))
    before = files(tmp_path / "new")
    capsys.readouterr()
    assert run_init(directory=tmp_path / "new") == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"there"}
    assert files(tmp_path / "new") == before


def test_in_an_existing_repository_it_adds_what_is_missing_and_overwrites_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Repository(tmp_path)
    repository.git("init", "-q")
    repository.write("conf/config.yaml", "mine: true\n")
    repository.write(".gitignore", "*.log\nmlartifacts/")
    run_init(directory=tmp_path)
    assert (tmp_path / "conf/config.yaml").read_text() == "mine: true\n"
    assert "conf/config.yaml was there. It needs `project: NAME`" in capsys.readouterr().err
    assert (tmp_path / "conf/job/digits/mlp.yaml").exists()
    ignored = (tmp_path / ".gitignore").read_text().splitlines()
    assert ignored[:2] == ["*.log", "mlartifacts/"]
    assert ignored.count("mlartifacts/") == 1
    assert ".espalier/" in ignored


def test_who_has_jobs_already_gets_no_example_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repository = Repository(tmp_path)
    repository.git("init", "-q")
    repository.write("conf/job/mine.yaml", "command: python train.py\ncode: [train.py]\n")
    run_init(directory=tmp_path)
    assert (tmp_path / "conf/config.yaml").exists()
    assert [path.name for path in (tmp_path / "conf/job").iterdir()] == ["mine.yaml"]
    assert not (tmp_path / "experiments").exists()
    said = capsys.readouterr().err
    assert "the example was left out" in said
    assert "project: NAME" not in said, "the config that was added has it"


def test_a_folder_inside_another_repository_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    Repository(tmp_path).git("init", "-q")
    Repository(tmp_path).write("part/readme.txt", "hello\n")
    with pytest.raises(InputError, match="lies inside the repository"):
        run_init(directory=tmp_path / "part")
    assert files(tmp_path / "part") == {"readme.txt": b"hello\n"}


def test_ci_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not there yet"):
        run_init(str(tmp_path / "new"), "--ci", "github")
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("in the way")
    (tmp_path / ".git").mkdir()
    with pytest.raises(InputError) as refused:
        run_init(directory=tmp_path)
    assert "conf" in refused.value.file


@pytest.mark.parametrize(
    ("folder", "project"), [("2024", "2024"), ("on", "on"), ("Größe + x", "Gr-e-x"), ("...", "experiments")]
)
def test_any_folder_name_gives_a_project_name_that_stays_a_string(tmp_path: Path, folder: str, project: str) -> None:
    (tmp_path / folder).mkdir()
    run_init(str(tmp_path / folder))
    assert yaml.safe_load((tmp_path / folder / "conf/config.yaml").read_text())["project"] == project


def test_the_wheel_holds_this_repositorys_example_and_init_writes_it(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:  # a wheel of Python alone is installed by unpacking it
        archive.extractall(tmp_path / "site")
    own = {
        f"{folder}/{name}": text for folder in ("conf", "experiments") for name, text in files(ROOT / folder).items()
    }
    assert files(tmp_path / "site/espalier/_template") == own

    script = "import argparse; from espalier.cli.commands import init; init.run(argparse.Namespace(dir='new', ci=None))"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "new").keys() - {".gitignore"} == own.keys()
