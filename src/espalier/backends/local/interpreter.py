"""The Python that a trial finds: its version, its packages, its import paths. Never imports from it.

Asking an interpreter takes some 20 ms, so the answer is kept for as long as its files are those that it had.
"""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.core.errors import RejectedError

FOLDER = "environments"
_ASK = (
    "import json, sys; "
    "print(json.dumps(['.'.join(map(str, sys.version_info[:3])), sys.prefix, [p for p in sys.path if p]]))"
)
_FINDER = re.compile(r"^MAPPING(?::[^=]*)? = (\{.*\})$", re.MULTILINE)
_PACKAGE = re.compile(r"(?P<name>.+)-(?P<version>[^-]+)\.(?:dist|egg)-info\Z")
_SITE = ("site-packages", "dist-packages")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """``paths`` is what it imports from, ``mapped`` where editable finders have packages; ``packages`` a digest."""

    version: str
    packages: str
    paths: tuple[str, ...]
    mapped: Mapping[str, str]

    def describe(self) -> dict[str, str]:
        """Return what is recorded with an attempt."""
        return {"python": self.version, "packages": self.packages}


def path_first(environ: Mapping[str, str], repository: Path, own: str) -> tuple[str, ...]:
    """Return the folders that a trial's PATH starts with: of the submitting command, the repository, or ``own``."""
    active = [Path(environ[name]) / "bin" for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if environ.get(name)]
    found = [str(folder) for folder in active if folder.is_dir()]
    if found:
        return tuple(found)
    venv = repository / ".venv" / "bin"
    return (str(venv) if venv.is_dir() else os.path.dirname(own),)


def inspect(folders: Sequence[str], environ: Mapping[str, str], root: Path) -> Interpreter | None:
    """Return the Python of a trial whose PATH starts with ``folders``; None when it finds none."""
    path = ":".join((*folders, environ.get("PATH", "")))
    python = shutil.which("python", path=path) or shutil.which("python3", path=path)
    if python is None:
        return None
    home = root / FOLDER
    home.mkdir(mode=0o700, exist_ok=True)
    cached = home / (hashlib.sha256(python.encode("utf-8", "surrogateescape")).hexdigest()[:16] + ".json")
    known = _read(cached)
    if known and known["stamps"] == _stamps(python, known["paths"]):
        return Interpreter(known["version"], known["packages"], tuple(known["paths"]), known["mapped"])
    asked = _ask(python, environ)
    if asked is None:
        return None
    version, paths = asked
    packages = _packages(paths)
    name = hashlib.sha256("\n".join(packages).encode()).hexdigest()[:16]
    _write(home / f"{name}.txt", "".join(f"{package}\n" for package in packages))
    found = Interpreter(version, name, tuple(paths), _mapped(paths))
    _write(
        cached,
        json.dumps(
            {
                "version": version,
                "packages": name,
                "paths": paths,
                "mapped": found.mapped,
                "stamps": _stamps(python, paths),
            }
        ),
    )
    return found


def shadowed(
    interpreter: Interpreter | None,
    environ: Mapping[str, str],
    repository: Path,
    files: Iterable[str],
    own: Path,
) -> tuple[str, ...]:
    """Return the import paths of a trial that lie in the repository, relative to it: its copy stands in for them.

    ``files`` are those that are laid out; ``own`` is where espalier itself is imported from, which is not
    the trial's. Raises RejectedError for a path of which nothing is laid out.
    """
    top = Path(os.path.realpath(repository))
    said = [entry for entry in environ.get("PYTHONPATH", "").split(":") if entry.startswith("/")]
    mapped = interpreter.mapped if interpreter else {}
    found: dict[str, str] = {}
    for path in [*said, *(interpreter.paths if interpreter else ())]:
        inside = _inside(path, top)
        if inside is not None and not _is_installed(path) and Path(os.path.realpath(path)) != own:
            found[inside] = path
    for package, path in mapped.items():
        inside = _inside(path, top)
        if inside is not None and Path(os.path.realpath(path)).parent != own:
            plain = os.path.basename(path) == package.rpartition(".")[2]
            depth = package.count(".") + 1
            folder = os.path.normpath(os.path.join(inside, *[".."] * depth)) if plain else None
            if folder is None or folder.startswith(".."):
                raise _cannot_shadow(package, path)
            found[folder] = path
    laid_out = list(files)
    for inside, path in found.items():
        below = "" if inside == "." else inside + "/"
        if not any(file.startswith(below) for file in laid_out):
            raise RejectedError(
                f"the trial's Python imports from {path}, which lies in the repository and is not in the job's code",
                hint=f"add {inside!r} to code, so that its committed files are used; if it is not committed, install"
                " the package another way",
            )
    return tuple(found)


def python_path(environ: Mapping[str, str], repository: Path, inside: Iterable[str]) -> str:
    """Return PYTHONPATH without the entries that a copy of the repository's files stands in for."""
    top = Path(os.path.realpath(repository))
    replaced = set(inside)
    entries = environ.get("PYTHONPATH", "").split(":")
    return ":".join(entry for entry in entries if not entry.startswith("/") or _inside(entry, top) not in replaced)


def _ask(python: str, environ: Mapping[str, str]) -> tuple[str, list[str]] | None:
    clean = {name: value for name, value in environ.items() if name not in ("PYTHONPATH", "PYTHONSTARTUP")}
    try:
        done = subprocess.run([python, "-c", _ASK], env=clean, cwd="/", capture_output=True, timeout=60, check=True)
        version, _, paths = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    return str(version), [str(path) for path in paths]


def _stamps(python: str, paths: Iterable[str]) -> list[list[int | str]]:
    """Return what changes when the interpreter or what is installed beside it does."""
    looked = [python, os.path.realpath(python), os.path.join(os.path.dirname(os.path.dirname(python)), "pyvenv.cfg")]
    looked += [path for path in paths if _is_installed(path)]
    stamps: list[list[int | str]] = []
    for path in looked:
        with suppress(OSError):
            stamps.append([path, os.stat(path).st_mtime_ns])
    return stamps


def _packages(paths: Iterable[str]) -> list[str]:
    found = set()
    for path in paths:
        if _is_installed(path):
            with suppress(OSError):
                for name in os.listdir(path):
                    match = _PACKAGE.match(name)
                    if match:
                        found.add(f"{re.sub(r'[-_.]+', '-', match['name']).lower()}=={match['version']}")
    return sorted(found)


def _mapped(paths: Iterable[str]) -> dict[str, str]:
    """Return the packages that editable finders (``__editable___…_finder.py``) map to folders."""
    found: dict[str, str] = {}
    for path in paths:
        if _is_installed(path):
            for finder in Path(path).glob("__editable___*_finder.py"):
                with suppress(OSError, ValueError, SyntaxError):
                    match = _FINDER.search(finder.read_text("utf-8"))
                    found |= {str(k): str(v) for k, v in ast.literal_eval(match[1]).items()} if match else {}
    return found


def _cannot_shadow(package: str, path: str) -> RejectedError:
    return RejectedError(
        f"the trial's Python imports {package} from {path}, which lies in the repository under another name",
        hint="uninstall the editable package, or give its folder the package's name",
    )


def _inside(path: str, top: Path) -> str | None:
    """Return ``path`` relative to the repository, None when it lies elsewhere."""
    real = Path(os.path.realpath(path))
    return str(real.relative_to(top)) if real.is_relative_to(top) else None


def _is_installed(path: str) -> bool:
    """Return whether ``path`` is where an interpreter keeps packages or its own library, by its name."""
    parts = Path(path).parts
    return any(part in _SITE for part in parts) or any(
        re.match(r"(lib-dynload|python\d[\d.]*|python\d+\.zip)\Z", part) for part in parts[-2:]
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.rename(beside, path)
