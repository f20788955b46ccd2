"""One commit's names and blobs, from git objects alone. Never reads the working tree (``dirty`` only compares it)."""

import os
import re
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

from espalier.core.errors import EspalierError, InputError, UnavailableError
from espalier.core.model import Commit

LINKS_MAX = 40  # as Linux follows symbolic links
_STEERING = re.compile(r"GIT_(?!CONFIG_|CEILING_DIRECTORIES\Z|EXEC_PATH\Z|SSL_|TEST_)")
_CHUNK = 1 << 16
_AT_ONCE = 500  # ids of 65 bytes: what fits into a pipe of 64 KiB, so that writing them never waits for reading


class Entry(NamedTuple):
    """What a tree says of a path: six digits of mode, ``blob``, ``tree`` or ``commit``, object id."""

    mode: str
    kind: str
    id: str


class Objects:
    """Every path of one commit, and its blobs through one ``git cat-file``. Close it, or use it in a ``with``."""

    def __init__(self, repository: Path, commit: str) -> None:
        listing = git(repository, "ls-tree", "-r", "-t", "-z", "--full-tree", commit)
        self.entries: dict[str, Entry] = {}
        self.names: dict[str, list[str]] = {"": []}
        for row in listing.decode("utf-8", "surrogateescape").split("\0")[:-1]:
            about, _, path = row.partition("\t")
            mode, kind, oid = about.split(" ")
            self.entries[path] = Entry(mode, kind, oid)
            folder, _, name = path.rpartition("/")
            self.names.setdefault(folder, []).append(name)
        self.repository = repository
        self.commit = commit
        self._process: subprocess.Popen[bytes] | None = None
        self._fetched: dict[str, bytes] = {}
        self._links: dict[str, str] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the child process, if there is one."""
        with self._lock:
            if self._process:
                self._process.communicate()
                self._process = None

    def real(self, path: str) -> str | None:
        """Return ``path`` with links followed as the file system would; None when it leaves the repository."""
        done: list[str] = []
        parts = path.split("/")
        followed = 0
        if path.startswith("/"):
            return None
        while parts:
            name = parts.pop(0)
            if name in ("", "."):
                continue
            if name == "..":
                if not done:
                    return None
                done.pop()
                continue
            done.append(name)
            here = "/".join(done)
            entry = self.entries.get(here)
            if entry and entry.mode == "120000":
                followed += 1
                target = self._target(here, entry)
                if target.startswith("/") or followed > LINKS_MAX:
                    return None
                done.pop()
                parts = [*target.split("/"), *parts]
        return "/".join(done)

    def kind(self, path: str) -> str | None:
        """Return ``blob`` or ``tree`` (a submodule too) for what ``path`` leads to, None when nothing is there."""
        real = self.real(path)
        if real is None:
            return None
        if not real:
            return "tree"
        entry = self.entries.get(real)
        return None if entry is None else "blob" if entry.kind == "blob" else "tree"

    def read(self, path: str, limit: int) -> bytes | None:
        """Return the bytes of the file that ``path`` leads to, None when there is none; InputError above ``limit``."""
        real = self.real(path)
        entry = self.entries.get(real) if real else None
        if entry is None or entry.kind != "blob":
            return None
        found = self.blob(entry.id, limit)
        if found is None:
            raise InputError(
                f"larger than {limit // 1024} KiB, which no config file may be",
                hint="split it, or keep what it holds as data",
                file=real or "",
            )
        return found

    def blob(self, oid: str, limit: int) -> bytes | None:
        """Return the content of a blob, None when it has more than ``limit`` bytes."""
        if oid in self._fetched:
            return self._fetched[oid]
        with self._lock:
            process = self._batch([oid])
            return self._answer(process, oid, limit)

    def prefetch(self, paths: Iterable[str], limit: int) -> None:
        """Read the files among ``paths`` in few round trips; they are kept until this is closed."""
        ids = {entry.id for path in paths if (entry := self.entries.get(path)) and entry.kind == "blob"}
        todo = sorted(ids - self._fetched.keys())
        with self._lock:
            for start in range(0, len(todo), _AT_ONCE):
                part = todo[start : start + _AT_ONCE]
                process = self._batch(part)
                for oid in part:
                    content = self._answer(process, oid, limit)
                    if content is not None:
                        self._fetched[oid] = content

    def _batch(self, ids: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Ask for ``ids``; their answers are to be read in this order."""
        if self._process is None:
            self._process = _start(self.repository, "cat-file", "--batch")
        try:
            _pipe(self._process.stdin).write("".join(f"{oid}\n" for oid in ids).encode())
            _pipe(self._process.stdin).flush()
        except BrokenPipeError as error:
            raise UnavailableError("git ended early", hint="look what is wrong with git fsck") from error
        return self._process

    def _answer(self, process: "subprocess.Popen[bytes]", oid: str, limit: int) -> bytes | None:
        stdout = _pipe(process.stdout)
        head = stdout.readline().split()
        if len(head) != 3 or head[1] != b"blob":
            raise UnavailableError(
                f"git does not have the object {oid}",
                hint="fetch it (git fetch), or look what is wrong with git fsck",
            )
        size = int(head[2])
        if size > limit:
            left = size + 1
            while left:
                read = len(stdout.read(min(left, _CHUNK)))
                left = left - read if read else 0
            return None
        content = stdout.read(size)
        stdout.read(1)
        return content

    def below(self, path: str) -> Iterator[tuple[str, Entry]]:
        """Yield every entry that is no tree at or below ``path``, in git's order."""
        entry = self.entries.get(path)
        if entry and entry.kind != "tree":
            yield path, entry
            return
        prefix = f"{path}/" if path else ""
        for name in self.names.get(path, ()):
            yield from self.below(prefix + name)

    def _target(self, path: str, entry: Entry) -> str:
        if path not in self._links:
            content = self.blob(entry.id, 4096)  # PATH_MAX of Linux
            self._links[path] = "/" if content is None else content.decode("utf-8", "surrogateescape")
        return self._links[path]


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:  # pragma: no cover - both were asked for
        raise UnavailableError("git has no pipes", hint="try again")
    return stream


def git(repository: Path, *arguments: str, variables: dict[str, str] | None = None) -> bytes:
    """Return what a git command prints; raise what its failure means for a person."""
    process = _start(repository, *arguments, variables=variables)
    out, err = process.communicate()
    if process.returncode:
        raise _translated(err.decode("utf-8", "replace"), repository)
    return out


def find_top(repository: Path) -> Path:
    """Return the top folder of the working tree that holds ``repository``; InputError when there is none."""
    try:
        inside, _, top = git(repository, "rev-parse", "--is-inside-work-tree", "--show-toplevel").partition(b"\n")
    except InputError:
        inside, top = git(repository, "rev-parse", "--is-inside-work-tree").strip(), b""  # raises what is wrong
    if inside != b"true":
        bare = git(repository, "rev-parse", "--is-bare-repository").strip() == b"true"
        raise InputError(
            f"{repository} is {'a bare repository' if bare else 'inside the .git folder'}: it has no working tree",
            hint="use a clone with a working tree (git clone, git worktree add)",
        )
    return Path(os.fsdecode(top.removesuffix(b"\n")))


def resolve(repository: Path, rev: str) -> Commit:
    """Return the commit that ``rev`` names; InputError when there is none."""
    if not rev or rev.startswith("-") or any(sign in rev for sign in "\0\n\r"):
        raise InputError(f"{rev!r} names no commit", hint="use a branch, a tag, a commit id or HEAD")
    try:
        found = git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{rev}^{{commit}}")
    except InputError:
        if rev == "HEAD" or rev == "@":
            raise InputError(
                "the repository has no commit yet",
                hint="commit the config first: git add -A && git commit",
            ) from None
        raise InputError(
            f"{rev!r} names no commit",
            hint="use a branch, a tag, a commit id or HEAD (git log --oneline lists commits)",
        ) from None
    oid = found.decode().split()[-1]
    shown = git(
        repository, "-c", "i18n.logOutputEncoding=UTF-8", "log", "-1", "--no-show-signature", "--no-notes",
        "--no-color", "--format=%H%x00%s%x00%an <%ae>", oid,
    )  # fmt: skip
    ident, subject, author = shown.decode("utf-8", "replace").removesuffix("\n").split("\0")
    return Commit(ident, subject, author)


def dirty(repository: Path) -> list[str]:
    """Return the paths, sorted, in which the working tree and the index differ from HEAD, untracked ones too."""
    listing = git(repository, "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=normal")
    return sorted({row[3:] for row in listing.decode("utf-8", "surrogateescape").split("\0") if row})


def _start(repository: Path, *arguments: str, variables: dict[str, str] | None = None) -> "subprocess.Popen[bytes]":
    quiet: Sequence[str] = (
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "core.fsmonitor=false",
        "-c",
        "core.quotePath=false",
    )
    try:
        return subprocess.Popen(
            ["git", "-C", str(repository), "--no-pager", *quiet, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if "--batch" not in arguments else subprocess.DEVNULL,
            env=environment() | (variables or {}),
        )
    except FileNotFoundError as error:
        raise UnavailableError("git is not installed", hint="install git 2.30 or newer") from error


def environment() -> dict[str, str]:
    """Return this process's environment without what would steer git to another repository or to a prompt."""
    kept = {name: value for name, value in os.environ.items() if not _STEERING.match(name)}
    fixed = {
        "LC_ALL": "C",
        "LANGUAGE": "",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",  # a replaced object is not what was committed
        "GIT_NO_LAZY_FETCH": "1",  # planning is offline; older gits know only the next line
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_PAGER": "cat",
    }
    return kept | fixed


def _translated(said: str, repository: Path) -> EspalierError:
    last = said.strip().splitlines()[-1].removeprefix("fatal: ").removeprefix("error: ") if said.strip() else ""
    if "dubious ownership" in said:
        return InputError(
            f"git refuses {repository}: it belongs to another user",
            hint=f"if you trust it: git config --global --add safe.directory {repository}",
        )
    if "not a git repository" in said:
        return InputError(f"{repository} is not in a git repository", hint="git init, or give the folder with -C")
    if "cannot change to" in said:
        return InputError(f"{repository} is not a folder that can be read", hint="give the repository with -C")
    if not last:
        return InputError("git failed and said nothing", hint="look at the repository with git fsck")
    return InputError(f"git: {last}", hint="look at the repository with git status and git fsck")
