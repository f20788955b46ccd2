"""What this clone says of itself: branch, identity, address, ancestry. Never anything of a commit's content."""

from pathlib import Path

from espalier.core.errors import EspalierError
from espalier.core.masking import without_credentials
from espalier.source.git import git


def branch(repository: Path) -> str:
    """Return the branch that is checked out, ``HEAD`` when none is."""
    return _ask(repository, "symbolic-ref", "--quiet", "--short", "HEAD") or "HEAD"


def identity(repository: Path) -> str:
    """Return git's ``Name <email>``, what there is of it; empty when nothing is configured."""
    name, email = _ask(repository, "config", "user.name"), _ask(repository, "config", "user.email")
    return f"{name} <{email}>" if name and email else name or email


def url(repository: Path) -> str:
    """Return the address of ``origin`` without credentials, empty when there is no such remote."""
    return without_credentials(_ask(repository, "config", "remote.origin.url"))


def contains(repository: Path, descendant: str, ancestor: str) -> bool:
    """Return whether ``ancestor`` is reachable from ``descendant``; False for a commit that is unknown here."""
    try:
        git(repository, "merge-base", "--is-ancestor", "--end-of-options", ancestor, descendant)
    except EspalierError:
        return False
    return True


def _ask(repository: Path, *arguments: str) -> str:
    try:
        return git(repository, *arguments).decode("utf-8", "replace").strip()
    except EspalierError:
        return ""
