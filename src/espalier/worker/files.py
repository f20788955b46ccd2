"""The files of an attempt: its working directory, what the program left there, atomic small files.

Never writes through a copy into what it was copied from. Standard library only; runs on Python 3.7.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself is slow to import
    from typing import Any, TypeAlias

    # By what a changed file is known: inode, size, modification time, target of a link.
    Mark: TypeAlias = tuple[int, int, int, str]

COPIED_AT = 946684800  # 2000-01-01: a file that the program writes is always newer
_FICLONE = 0x40049409
_CANNOT_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM)


def lay_out(source: str, target: str, links: dict[str, str]) -> dict[str, Mark]:
    """Copy ``source`` to the new folder ``target``, add ``links`` (place → what it links to); return the marks."""
    os.makedirs(target, mode=0o700)
    marks: dict[str, Mark] = {}
    _copy_folder(source, target, "", marks)
    for place, points_to in links.items():
        path = os.path.join(target, place)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(points_to, path)
        marks[place] = _mark(path)
    return marks


def keep_new(work: str, marks: dict[str, Mark], output: str) -> None:
    """Move what the program made or changed in ``work`` to ``output/workdir``, caches of bytecode aside."""
    target = os.path.join(output, "workdir")
    number = 1
    while os.path.lexists(target):
        target = os.path.join(output, f"workdir-{number}")
        number += 1
    for folder, folders, names in os.walk(work):
        inside = os.path.relpath(folder, work)
        inside = "" if inside == "." else inside
        linked = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        folders[:] = [name for name in folders if name != "__pycache__" and name not in linked]
        for name in names + linked:
            place = os.path.join(inside, name)
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)) or marks.get(place) == _mark(path):
                continue
            kept = os.path.join(target, place)
            os.makedirs(os.path.dirname(kept), exist_ok=True)
            os.rename(path, kept)


def remove(path: str) -> None:
    """Remove a folder with all that it holds, also what the program made read-only; links are not followed."""
    try:
        entries = list(os.scandir(path))
    except FileNotFoundError:
        return
    except PermissionError:
        os.chmod(path, 0o700)
        entries = list(os.scandir(path))
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove(entry.path)
        else:
            try:
                os.unlink(entry.path)
            except PermissionError:
                os.chmod(path, 0o700)
                os.unlink(entry.path)
    os.rmdir(path)


def write_whole(path: str, value: Any, lasting: bool = True) -> None:
    """Write ``value`` as JSON so that a reader sees all of it or none; ``lasting``: a power cut included."""
    beside = f"{path}.{os.getpid()}.tmp"
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, json.dumps(value).encode("ascii"))
        if lasting:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(beside, path)
    if not lasting:
        return
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def create_whole(path: str, value: Any) -> bool:
    """Write ``value`` as JSON unless ``path`` is there, whole or not at all; return whether it was not there."""
    beside = f"{path}.{os.getpid()}.tmp"
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, json.dumps(value).encode("ascii"))
    finally:
        os.close(fd)
    try:
        os.link(beside, path)
        return True
    except FileExistsError:
        return False
    finally:
        os.unlink(beside)


def _copy_folder(source: str, target: str, inside: str, marks: dict[str, Mark]) -> None:
    for entry in os.scandir(source):
        place = os.path.join(inside, entry.name)
        to = os.path.join(target, entry.name)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), to)
        elif entry.is_dir():
            os.mkdir(to)
            _copy_folder(entry.path, to, place, marks)
            continue
        else:
            _copy_file(entry.path, to)
        marks[place] = _mark(to)


def _copy_file(source: str, target: str) -> None:
    """Copy one file; where the file system can share blocks it does, and parts them when one is written."""
    reading = os.open(source, os.O_RDONLY)
    try:
        state = os.fstat(reading)
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IMODE(state.st_mode) | 0o600)
        try:
            if not _clone(reading, writing):
                left = state.st_size
                while left > 0:
                    sent = os.sendfile(writing, reading, state.st_size - left, left)
                    if sent == 0:
                        break
                    left -= sent
            os.utime(writing, (COPIED_AT, COPIED_AT))
        finally:
            os.close(writing)
    finally:
        os.close(reading)


_can_clone = True


def _clone(reading: int, writing: int) -> bool:
    global _can_clone
    if not _can_clone:
        return False
    try:
        fcntl.ioctl(writing, _FICLONE, reading)
    except OSError as error:
        if error.errno not in _CANNOT_CLONE:
            raise
        _can_clone = False
    return _can_clone


def _mark(path: str) -> Mark:
    state = os.lstat(path)
    target = os.readlink(path) if stat.S_ISLNK(state.st_mode) else ""
    return state.st_ino, state.st_size, state.st_mtime_ns, target
