"""Repositories for tests, whose git knows nothing of this machine's."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

ENVIRON = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nowhere"}
PERSON = {name: "Grace" if name.endswith("NAME") else "grace@example.org" for name in (
    "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")}  # fmt: skip

LEDGER = "refs/espalier/ledger"
MESSAGE = "by hand\n\nEspalier-Kind: observed\nEspalier-Tx: 0"


def git(repo: Path, *arguments: str, stdin: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Return what git prints, run as a person in ``repo``."""
    env = ENVIRON | PERSON | dict(environ or {})
    done = subprocess.run(
        ["git", *arguments], cwd=repo, env=env, input=stdin, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
    return done.stdout.rstrip("\n")


def new_repo(path: Path, *options: str) -> Path:
    """Return an empty repository at ``path``, made with ``git init OPTIONS``."""
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main", *options)
    return path


def write_file(place: Path, path: str, content: str | None, message: str = MESSAGE, mode: str = "100644") -> None:
    """Put ``content`` at ``path`` of the ledger (None: remove it), as somebody with git might."""
    index = {"GIT_INDEX_FILE": str(place / ".git/by-hand")}
    git(place, "read-tree", LEDGER, environ=index)
    if content is None:
        git(place, "update-index", "--force-remove", path, environ=index)
    else:
        blob = git(place, "hash-object", "-w", "--stdin", stdin=content)
        git(place, "update-index", "--add", "--cacheinfo", f"{mode},{blob},{path}", environ=index)
    tree = git(place, "write-tree", environ=index)
    git(place, "update-ref", LEDGER, git(place, "commit-tree", tree, "-p", LEDGER, "-m", message))
    (place / ".git/by-hand").unlink()
