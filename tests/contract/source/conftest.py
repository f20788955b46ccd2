"""A real repository for each test, with no identity or configuration but its own."""

import os
from pathlib import Path

import pytest

from tests.contract.source.repository import CONFIG, Repo


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away every setting of the machine that git or a config could see."""
    for name in list(os.environ):
        if name.startswith(("GIT_", "ESPALIER_")):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    top = tmp_path / "repo"
    top.mkdir()
    made = Repo(top)
    made.git("init", "--quiet", "--initial-branch=main")
    made.write({"conf/config.yaml": CONFIG, "conf/backend/local.yaml": "kind: local\n"})
    return made
