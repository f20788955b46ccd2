"""Which paths of a commit a git pathspec selects. Never matches the working tree."""

import posixpath
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from espalier.core.errors import InputError
from espalier.source.git import Objects, git

_PLAIN = re.compile(r"[A-Za-z0-9_.+@=,-]+(/[A-Za-z0-9_.+@=,-]+)*\Z")  # nothing that git would read as a pattern
_LONG = re.compile(r":\(([^)]*)\)(.*)\Z", re.DOTALL)
_SHORT = re.compile(r":([!^/]+):?(.*)\Z", re.DOTALL)


class Selector:
    """Answers for one commit, each distinct pathspec once. Close it, or use it in a ``with``."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._known: dict[str, frozenset[str]] = {}

    def close(self) -> None:
        """Remove the temporary index, if there is one."""
        if self._folder:
            self._folder.cleanup()
            self._folder = None

    def select(self, pathspecs: Sequence[str]) -> tuple[frozenset[str], list[str]]:
        """Return the paths that ``git ls-files -- <pathspecs>`` lists at the commit, and those that select nothing.

        Only an including pathspec is among the latter. No pathspec selects nothing.
        """
        chosen: frozenset[str] = frozenset()
        left_out: frozenset[str] = frozenset()
        idle = []
        includes = 0
        for pathspec in pathspecs:
            positive, excludes = _split(pathspec)
            found = self._matched(positive, pathspec)
            if excludes:
                left_out |= found
            else:
                includes += 1
                chosen |= found
                if not found:
                    idle.append(pathspec)
        if pathspecs and not includes:
            chosen = self._matched(".", ".")
        return chosen - left_out, idle

    def _matched(self, positive: str, written: str) -> frozenset[str]:
        if positive not in self._known:
            self._known[positive] = self._ask(positive, written)
        return self._known[positive]

    def _ask(self, positive: str, written: str) -> frozenset[str]:
        if positive in (".", "./"):
            return frozenset(path for path, _ in self._objects.below(""))
        if _PLAIN.match(positive) and not {".", ".."} & set(positive.split("/")):
            return frozenset(path for path, _ in self._objects.below(positive))
        if positive.startswith("/") or posixpath.normpath(positive).split("/")[0] == "..":
            raise InputError(
                f"the pathspec {written!r} leads out of the repository",
                hint="name paths from the top of the repository",
            )
        index = {"GIT_INDEX_FILE": self._index()}
        listed = git(self._objects.repository, "ls-files", "--cached", "-z", "--", positive, variables=index)
        return frozenset(listed.decode("utf-8", "surrogateescape").split("\0")[:-1])

    def _index(self) -> str:
        """Return the path of an index of the commit, outside the repository: git itself then matches patterns."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="espalier-")
            index = str(Path(self._folder.name) / "index")
            git(self._objects.repository, "read-tree", self._objects.commit, variables={"GIT_INDEX_FILE": index})
        return str(Path(self._folder.name) / "index")


def _split(pathspec: str) -> tuple[str, bool]:
    """Return the pathspec without its ``exclude``, and whether it had one."""
    if not pathspec:
        raise InputError("an empty pathspec", hint="'.' selects everything")
    if long := _LONG.match(pathspec):
        words = [word for word in long[1].split(",") if word]
        if any(word.startswith("attr") for word in words):
            raise InputError(
                f"the pathspec {pathspec!r} asks for attributes, which git reads from the working tree",
                hint="name the paths",
            )
        rest = [word for word in words if word != "exclude"]
        positive = f":({','.join(rest)}){long[2]}" if rest else long[2]
        return positive or ".", "exclude" in words
    if short := _SHORT.match(pathspec):
        top = ":/" if "/" in short[1] else ""
        return (top + short[2]) or ".", "!" in short[1] or "^" in short[1]
    return pathspec, False
