"""Which files of a trial go to MLflow, and how they get to a folder of this machine. Never follows a link outwards."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from espalier.core.errors import RejectedError, UnavailableError
from espalier.core.masking import mask
from espalier.core.model import Artifacts

LOG_MAX = 20_000_000  # bytes; the head of a longer log is cut down to LOG_HEAD
LOG_HEAD = 1_000_000
LEFT_OUT_MAX = 10_000  # lines
OURS = "espalier"  # the folder of a run's artifacts that is ours


@dataclass(frozen=True, slots=True)
class Selected:
    """The files that go, as path below the output folder and file; and what is left out, with why."""

    files: tuple[tuple[str, Path], ...]
    left_out: tuple[tuple[str, str], ...]


def select(output: Path, wanted: Artifacts) -> Selected:
    """Return what of ``output`` goes to MLflow, in order of path until ``max_mb`` is used up."""
    from pathspec import GitIgnoreSpec  # a hundredth of a second, for ends of trials alone

    if wanted.max_mb <= 0:
        return Selected((), ())
    include, exclude = GitIgnoreSpec.from_lines(wanted.include), GitIgnoreSpec.from_lines(wanted.exclude)
    room = wanted.max_mb * 1e6
    files: list[tuple[str, Path]] = []
    left: list[tuple[str, str]] = []
    top = output.resolve()
    for path, file in _walk(output):
        if not include.match_file(path) or exclude.match_file(path):
            left.append((path, "not within artifacts.include and artifacts.exclude"))
            continue
        if path.split("/")[0] == OURS:
            left.append((path, f"the folder {OURS}/ is not the program's"))
            continue
        fault = _fault(file, top)
        if fault:
            left.append((path, fault))
            continue
        size = file.stat().st_size
        if size > room:
            left.append(
                (path, f"{size / 1e6:.1f} MB, of artifacts.max_mb {wanted.max_mb:g} only {room / 1e6:.1f} are left")
            )
            continue
        room -= size
        files.append((path, file))
    return Selected(tuple(files), tuple(left))


def _fault(file: Path, top: Path) -> str:
    """Return why ``file`` cannot go, empty when it can: programs leave links to themselves, sockets, closed files."""
    try:
        if not file.resolve().is_relative_to(top):
            return "a link that leads out of the output folder"
        if not file.is_file():
            return "not a file"
        return "" if os.access(file, os.R_OK) else "it may not be read"
    except (OSError, RuntimeError):  # pathlib makes a RuntimeError of a loop
        return "a link that leads nowhere"


def left_out_page(left_out: Iterable[tuple[str, str]]) -> str:
    """Return ``espalier/left-out.txt``: a line for each file that did not go."""
    shown = [f"{ascii(path)[1:-1] if not path.isprintable() else path}: {why}\n" for path, why in left_out]
    more = len(shown) - LEFT_OUT_MAX
    return mask("".join(shown[:LEFT_OUT_MAX]) + (f"… and {more} more\n" if more > 0 else ""))


def log_name(attempt: int) -> str:
    """Return the artifact that holds the log of an attempt: ``espalier/log.txt``, later ones ``log-2.txt``, …"""
    return f"{OURS}/log.txt" if attempt <= 1 else f"{OURS}/log-{attempt}.txt"


def masked_log(log: Path, to: Path, secrets: Iterable[str]) -> None:
    """Write ``log`` to ``to`` without secrets, its middle cut out visibly where it is too long."""
    values = tuple(secrets)
    size = log.stat().st_size
    with log.open("rb") as source, to.open("w", encoding="utf-8", newline="") as target:
        whole = size <= LOG_MAX
        parts = [(0, size)] if whole else [(0, LOG_HEAD), (size - (LOG_MAX - LOG_HEAD), size)]
        for at, end in parts:
            if at:
                target.write(f"\n… ({(at - LOG_HEAD) / 1e6:.1f} MB of the log are cut out here)\n")
            source.seek(at)
            while at < end and (line := source.readline(min(end - at, 1 << 20))):
                at += len(line)
                target.write(mask(line.decode("utf-8", "replace"), values))


def copy_in(folder: Path, path: str, file: Path) -> None:
    """Put ``file`` at ``path`` below ``folder``, whole or not at all; refuse a path that leads elsewhere."""
    target = folder / path
    if not Path(os.path.normpath(target)).is_relative_to(os.path.normpath(folder)):
        raise RejectedError(f"the artifact {path!r} would lie outside its run", hint="name it without '..'")
    staged = target.with_name(f".{target.name[:100]}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(file, staged)
            os.replace(staged, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                staged.unlink()
    except OSError as error:
        raise UnavailableError(
            f"the artifact {path!r} cannot be kept in {folder}: {error.strerror}",
            hint="make room, or set tracking.artifacts",
        ) from error


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield every file and link as path below ``folder`` and file, sorted; folders that are links are links."""
    for above, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(above, name))]
        folders[:] = sorted(name for name in folders if name not in links)
        for name in sorted((*files, *links)):
            file = Path(above, name)
            yield file.relative_to(folder).as_posix(), file
