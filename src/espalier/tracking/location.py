"""Where things lie: databases, artifacts, sockets and locks. Never speaks to MLflow."""

import contextlib
import fcntl
import hashlib
import os
import re
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from espalier.core.errors import InputError, UnavailableError


def is_http(uri: str) -> bool:
    """Return whether ``uri`` is that of a tracking server."""
    return uri.lower().startswith(("http://", "https://"))


def absolute_uri(uri: str, repository: Path) -> str:
    """Return ``uri`` with a relative SQLite path taken from the top of the repository."""
    if is_http(uri):
        return uri.rstrip("/")
    file = sqlite_file(uri)
    if file is not None:
        scheme, _, rest = uri.partition(":///")
        query = rest.partition("?")[2]
        if not file.is_absolute() and re.search(r"\?|%[0-9A-Fa-f]{2}", str(repository)):
            raise InputError(
                f"the repository's path {str(repository)!r} has a '?' or a '%41', which mean something else in {uri!r}",
                hint="move it, or give tracking.uri a whole path: sqlite:////home/me/mlflow.db",
            )
        path = file if file.is_absolute() else repository / file
        return f"{scheme}:///{os.path.normpath(path)}" + (f"?{query}" if query else "")
    if "://" not in uri or uri.startswith("sqlite:"):
        raise InputError(
            f"tracking.uri {uri!r} is neither http(s) nor a database",
            hint="write sqlite:///mlflow.db, or the address of an MLflow server",
        )
    if uri.startswith("file:"):
        raise InputError(
            f"tracking.uri {uri!r} is a folder, which MLflow does not keep runs in any more",
            hint="write sqlite:///mlflow.db, or the address of an MLflow server",
        )
    return uri


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite URI, None for any other."""
    match = re.match(r"sqlite(?:\+\w+)?:///([^?]+)", uri)
    return Path(match[1]) if match else None


def artifact_root(uri: str, repository: Path) -> Path:
    """Return the folder of artifacts of a database store: beside its file, else at the top of the repository."""
    file = sqlite_file(uri)
    return (file.parent if file else repository) / "mlartifacts"


def experiment_location(root: str, experiment: str) -> str:
    """Return where the artifacts of an experiment lie below ``root``: readable, and its own."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", experiment).strip("-.")[:60]
    return f"{root.rstrip('/')}/{name}-{hashlib.sha256(experiment.encode()).hexdigest()[:8]}"


def local_path(artifact_uri: str) -> Path | None:
    """Return the folder of an artifact URI on this machine, None for any other."""
    if artifact_uri.startswith("/"):
        return Path(artifact_uri)
    parts = urlsplit(artifact_uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return None


def runtime_folder() -> Path:
    """Return this user's folder for sockets and locks, short and closed to others."""
    home = os.environ.get("XDG_RUNTIME_DIR", "")
    for base in (home, tempfile.gettempdir(), "/tmp"):
        if not base or not os.path.isdir(base) or not os.access(base, os.W_OK):
            continue
        folder = Path(base) / f"espalier-{os.getuid()}"
        if len(os.fsencode(folder)) + 30 > 103:
            continue
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return folder
    raise InputError(
        "there is no folder that only you can open for sockets and locks",
        hint="set XDG_RUNTIME_DIR to a short path that is yours (mode 0700)",
    )


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock called ``name`` among this user's processes on this machine."""
    file = runtime_folder() / (hashlib.sha256(name.encode()).hexdigest()[:20] + ".lock")
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def probe_file(file: Path, shown: str) -> None:
    """Raise what would keep runs from being made in an SQLite file; mlflow itself is not waited for."""
    hint = "check tracking.uri and the rights on that folder"
    if find_spec("mlflow") is None:
        raise UnavailableError("mlflow is not installed beside espalier", hint="install espalier with its dependencies")
    folder = file.parent
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        raise UnavailableError(f"MLflow's database {shown} cannot be written: no right to {folder}", hint=hint)
    if not file.exists():
        return
    if not os.access(file, os.W_OK):
        raise UnavailableError(f"MLflow's database {shown} cannot be written", hint=hint)
    try:
        database = sqlite3.connect(f"file:{file.as_posix()}?mode=ro", uri=True, timeout=2)
        try:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        finally:
            database.close()
    except sqlite3.DatabaseError as error:
        if "locked" not in str(error):
            raise UnavailableError(f"MLflow's database {shown} cannot be read: {error}", hint=hint) from error
