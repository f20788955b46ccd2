"""A commit's declared files on disk: laid out once for each content, copied for each attempt. Never reads a work tree.

The files come from git objects as they are, without filters; a Git LFS pointer is replaced by its object, or
refused when that is not in this clone.
"""

import hashlib
import os
import posixpath
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from espalier.core.errors import RejectedError, UnavailableError
from espalier.core.model import Data

FOLDER = "layouts"
_LFS = b"version https://git-lfs.github.com/spec/"
_LFS_MAX = 1024  # the pointer format's own limit
_LFS_OID = re.compile(rb"^oid sha256:([0-9a-f]{64})$", re.MULTILINE)
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a layout: its git id and mode (``100644``, ``100755``, ``120000``)."""

    id: str
    mode: str


def entries(
    code: Mapping[str, str], data: Mapping[str, Data], repository: Path, environ: Mapping[str, str]
) -> dict[str, Entry]:
    """Return what ``code`` and the in-repository ``data`` select, by path."""
    found = {path: _entry(text, "100644") for path, text in code.items()}
    for item in data.values():
        if item.path and item.id:
            found |= _data_entries(item.path.strip("/"), item.id, repository, environ)
    for path, entry in found.items():
        _check(path, entry)
    return found


def digest(found: Mapping[str, Entry]) -> str:
    """Return what names the layout of these entries."""
    lines = "".join(f"{entry.mode} {entry.id} {path}\0" for path, entry in sorted(found.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def lay_out(root: Path, found: Mapping[str, Entry], repository: Path, environ: Mapping[str, str]) -> str:
    """Return the digest of the layout that holds ``found``; make it unless it is there."""
    name = digest(found)
    home = root / FOLDER
    if (home / name).is_dir():
        return name
    home.mkdir(mode=0o700, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".making-", dir=home))
    try:
        _write(building, found, repository, environ)
        with suppress(OSError):  # another command was faster: its layout is the same
            os.rename(building, home / name)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    if not (home / name).is_dir():
        raise UnavailableError(f"{home / name} cannot be made", hint="see whether the disk is full or read-only")
    return name


def _write(building: Path, found: Mapping[str, Entry], repository: Path, environ: Mapping[str, str]) -> None:
    lfs: Path | None = None
    with _git(repository, environ, "cat-file", "--batch") as git:
        assert git.stdin is not None
        assert git.stdout is not None
        for path, entry in sorted(found.items()):
            target = building / path
            target.parent.mkdir(parents=True, exist_ok=True)
            size = _ask(git, path, entry)
            if entry.mode == "120000":
                _link(target, path, git.stdout.read(size))
            elif size <= _LFS_MAX:
                content = git.stdout.read(size)
                pointer = _LFS_OID.search(content) if content.startswith(_LFS) else None
                if pointer:
                    lfs = lfs or _lfs_folder(repository, environ)
                    _copy_lfs(lfs, pointer[1].decode(), path, target)
                else:
                    target.write_bytes(content)
            else:
                with target.open("wb") as file:
                    _pipe(git.stdout, file, size)
            git.stdout.read(1)  # the newline after each object
            if entry.mode == "100755":
                target.chmod(0o700)
            if entry.mode != "120000":
                _flush(target)  # else a power cut leaves an empty file that looks laid out
        git.stdin.close()


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _ask(git: "subprocess.Popen[bytes]", path: str, entry: Entry) -> int:
    """Ask for one object; return its size, its content comes next."""
    assert git.stdin is not None
    assert git.stdout is not None
    git.stdin.write(entry.id.encode() + b"\n")
    git.stdin.flush()
    answer = git.stdout.readline().split()
    if len(answer) != 3 or answer[1] != b"blob":
        raise RejectedError(
            f"{path}: its content ({entry.id}) is not in this repository",
            hint="fetch the commit whole: git fetch --refetch, or git fetch --unshallow",
            file=path,
        )
    return int(answer[2])


def _link(target: Path, path: str, content: bytes) -> None:
    points_to = os.fsdecode(content)
    place = posixpath.normpath(posixpath.join(posixpath.dirname(path), points_to))
    if points_to.startswith("/") or place.startswith("../") or place == "..":
        raise RejectedError(
            f"{path} is a link that leads out of the repository", hint="commit the file itself, or declare it as data"
        )
    target.symlink_to(points_to)


def _copy_lfs(lfs: Path, oid: str, path: str, target: Path) -> None:
    source = lfs / oid[:2] / oid[2:4] / oid
    if not source.is_file():
        raise RejectedError(
            f"{path} is a Git LFS pointer whose object is not in this clone",
            hint=f'fetch it: git lfs fetch --include="{path}" origin <commit>',
            file=path,
        )
    shutil.copyfile(source, target)


def _lfs_folder(repository: Path, environ: Mapping[str, str]) -> Path:
    with _git(repository, environ, "rev-parse", "--path-format=absolute", "--git-common-dir") as git:
        assert git.stdout is not None
        return Path(os.fsdecode(git.stdout.read().rstrip(b"\n"))) / "lfs" / "objects"


def _data_entries(path: str, text: str, repository: Path, environ: Mapping[str, str]) -> Iterable[tuple[str, Entry]]:
    entry = _entry(text, "")
    if entry.mode.lstrip("0") not in ("", "40000"):
        return [(path, entry)]
    with _git(repository, environ, "ls-tree", "-r", "-z", entry.id) as git:
        assert git.stdout is not None
        listed = git.stdout.read()
    if git.returncode != 0:
        if entry.mode:
            raise RejectedError(f"{path}: its tree ({entry.id}) is not in this repository", hint="fetch the commit")
        return [(path, Entry(entry.id, "100644"))]  # no tree: a file
    found = []
    for line in listed.split(b"\0"):
        if line:
            about, _, name = line.partition(b"\t")
            mode, _, id_ = about.decode().split(" ")
            found.append((f"{path}/{os.fsdecode(name)}", Entry(id_, mode)))
    return found


def _entry(text: str, mode: str) -> Entry:
    """Return what ``<id>`` or ``<id> <mode>`` says."""
    id_, _, said = text.partition(" ")
    return Entry(id_, said or mode)


def _check(path: str, entry: Entry) -> None:
    parts = path.split("/")
    if path.startswith("/") or any(part in ("", ".", "..") or part.lower() == ".git" for part in parts):
        raise RejectedError(f"{path!r} is no path that can be laid out", hint="rename it in the repository")
    if entry.mode not in ("100644", "100755", "120000", "100664"):
        raise RejectedError(
            f"{path} has the git mode {entry.mode}: submodules cannot be laid out",
            hint="leave it out of code and data, or commit its files",
        )


def _pipe(source: IO[bytes], target: IO[bytes], size: int) -> None:
    while size > 0:
        part = source.read(min(_CHUNK, size))
        if not part:
            raise UnavailableError("git ended while a file was read", hint="run git fsck")
        target.write(part)
        size -= len(part)


def _git(repository: Path, environ: Mapping[str, str], *arguments: str) -> "subprocess.Popen[bytes]":
    clean = {name: value for name, value in environ.items() if not name.startswith("GIT_")}
    return subprocess.Popen(
        ["git", "-C", str(repository), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=clean,
    )
