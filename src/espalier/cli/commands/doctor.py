"""``espalier doctor``: is everything reachable and allowed, and how to mend what is not. Never mends it itself."""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from espalier import __version__, wiring
from espalier.cli import terminal
from espalier.cli.parser import add_format
from espalier.cli.views.check import Check, doctor_json, doctor_text
from espalier.cli.views.value import count
from espalier.core.errors import EspalierError
from espalier.core.masking import without_credentials
from espalier.core.model import Declared
from espalier.core.ports import World

GIT_LEAST = (2, 25)  # Debian 11 and newer have more; older ones were never tried
GIB = 1024**3
DISK_WARN_GIB, DISK_FAIL_GIB = 5.0, 0.5
THREADS = "OMP_NUM_THREADS"
MLFLOW_OF_TRIALS = "from importlib.metadata import version; print(version('mlflow'))"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``doctor``."""
    parser.description = "Check git, identity, configuration, ledger, MLflow, disk, backend, interpreter and threads."
    add_format(parser, "text", "json")


def run(arguments: argparse.Namespace) -> int:
    """Print every check; return 1 when one failed."""
    checks = list(_checks(arguments.directory))
    text = doctor_json(checks) if arguments.format == "json" else doctor_text(checks, terminal.out().style)
    terminal.result(text)
    return 1 if any(check.verdict == "fail" for check in checks) else 0


def _checks(directory: Path) -> Iterator[Check]:
    yield Check("espalier", "ok", f"espalier {__version__}, Python {sys.version.split()[0]}")
    yield _git()
    top: Path | None = None
    try:
        top = wiring.top_of(directory)
        yield Check("repository", "ok", str(top))
    except EspalierError as error:
        yield _failed("repository", error)
    if top is None:
        return
    yield _identity(top)
    yield _trying("ledger", lambda: _ledger(top))
    yield _disk(top)
    yield _state(top)
    yield _machine()
    yield _interpreter(top)
    try:
        world = wiring.open_world(top, start_tracker=True)
    except EspalierError as error:
        yield _failed("config", error)
        return
    declared: Declared | None = None
    try:
        declared = world.source.specs(world.source.resolve("HEAD"))
        yield _jobs(declared)
    except EspalierError as error:
        yield _failed("config", error)
    yield _trying("mlflow", lambda: _mlflow(world, top))
    if declared is not None:
        yield _threads(declared)
        yield from _kinds(world, declared)


def _trying(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except EspalierError as error:
        return _failed(name, error)


def _failed(name: str, error: EspalierError) -> Check:
    place = f"{error.file}:{error.line}: " if error.file and error.line else f"{error.file}: " if error.file else ""
    return Check(name, "fail", f"{place}{error.message}", error.hint)


def _git() -> Check:
    said = _output(["git", "--version"])
    if said is None:
        return Check("git", "fail", "git does not start", "install git: apt-get install git")
    numbers = [part for part in said.split() if part[:1].isdigit()]
    found = tuple(int(part) for part in (numbers[0] if numbers else "0").split(".")[:2] if part.isdigit())
    if found < GIT_LEAST:
        return Check("git", "fail", said, f"install git {'.'.join(map(str, GIT_LEAST))} or newer")
    return Check("git", "ok", said)


def _identity(top: Path) -> Check:
    name, mail = (_output(["git", "-C", str(top), "config", f"user.{key}"]) for key in ("name", "email"))
    who = wiring.actor(top, os.environ)
    if name and mail:
        return Check("identity", "ok", who)
    mend = 'git config user.name "Your Name"; git config user.email you@example.org'
    return Check("identity", "warn", f"git has no user.name and user.email; the ledger would say {who}", mend)


def _ledger(top: Path) -> Check:
    snapshot = wiring.open_ledger(top).read()
    if snapshot.tip is None:
        return Check("ledger", "ok", "none yet: the first apply makes it (refs/espalier/ledger, this clone alone)")
    text = f"{count(len(snapshot.heads), 'line')} at {snapshot.tip[:12]}, this clone alone"
    return Check("ledger", "ok", text)


def _disk(top: Path) -> Check:
    free = shutil.disk_usage(top).free / GIB
    text = f"{free:.1f} GiB free at {top}"
    mend = "free some space: outputs of old trials lie below .espalier/, artifacts in mlartifacts/"
    if free < DISK_FAIL_GIB:
        return Check("disk", "fail", text, mend)
    return Check("disk", "warn" if free < DISK_WARN_GIB else "ok", text, mend)


def _state(top: Path) -> Check:
    state = top / wiring.STATE_DIR
    place = state if state.exists() else top
    if not os.access(place, os.W_OK | os.X_OK):
        return Check("state", "fail", f"{place} cannot be written", f"chmod u+rwx {place}: queue and outputs lie there")
    return Check("state", "ok", f"{state} {'is there' if state.exists() else 'can be made'}")


def _machine() -> Check:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    listed = _output(["nvidia-smi", "--list-gpus"]) if shutil.which("nvidia-smi") else None
    gpus = len(listed.splitlines()) if listed else 0
    hidden = " (a job with gpus: 0 does not see them)" if gpus else ""
    return Check("machine", "ok", f"{count(cpus, 'CPU')}, {memory:.1f} GiB, {count(gpus, 'GPU')}{hidden}")


def _environment_of_trials(top: Path) -> tuple[str, Path] | None:
    """Return where ``python`` of a trial comes from, and how that was said (design: backends, local)."""
    for name, folder in (
        ("$VIRTUAL_ENV", os.environ.get("VIRTUAL_ENV")),
        ("$CONDA_PREFIX", os.environ.get("CONDA_PREFIX")),
        (".venv", str(top / ".venv")),
        ("espalier's own environment", str(Path(sys.executable).parent.parent)),
    ):
        if folder and (name != ".venv" or Path(folder).is_dir()):
            return name, Path(folder)
    return None


def _interpreter(top: Path) -> Check:
    """The Python that ``python`` means in a trial."""
    found = _environment_of_trials(top)
    if found is None:
        mend = "make a virtual environment: python3 -m venv .venv"
        return Check("interpreter", "fail", "there is no Python for trials", mend)
    name, folder = found
    python = folder / "bin" / "python"
    said = _output([str(python), "--version"])
    if said is None:
        mend = f"make that environment again, or unset {name}"
        return Check("interpreter", "fail", f"trials get {python} ({name}), which does not start", mend)
    text = f"trials get {python} ({name}), {said}"
    own = top / ".venv"
    if own.is_dir() and own.resolve() != folder.resolve():
        mend = f"source {own}/bin/activate, or unset {name.removeprefix('$')}, where trials should have that one"
        return Check("interpreter", "warn", f"{text}, and not the .venv of the repository", mend)
    return Check("interpreter", "ok", text)


def _jobs(declared: Declared) -> Check:
    if declared.errors:
        first = declared.errors[0]
        place = f"{first.file}:{first.line}: " if first.line else f"{first.file}: " if first.file else ""
        text = f"{count(len(declared.errors), 'job')} does not compose, first: {place}{first.message}"
        return Check("config", "fail", text, first.hint)
    text = f"{count(len(declared.jobs), 'job')} at HEAD, project {declared.settings.project}"
    return Check("config", "ok" if declared.jobs else "warn", text, "declare one: conf/job/NAME.yaml, then commit it")


def _mlflow(world: World, top: Path) -> Check:
    world.tracker.probe()
    text = f"{_version_of('mlflow')}, runs can be made at {without_credentials(world.tracker.uri)}"
    found = _environment_of_trials(top)
    theirs = _output([str(found[1] / "bin" / "python"), "-c", MLFLOW_OF_TRIALS]) if found else None
    if not theirs or world.tracker.uri.startswith(("http://", "https://")):
        return Check("mlflow", "ok", text)
    if theirs.split(".")[:2] != metadata.version("mlflow").split(".")[:2]:
        mend = "install the same mlflow for both, or set tracking.uri to an MLflow server, which takes many versions"
        return Check("mlflow", "warn", f"{text}; trials have mlflow {theirs}, which may not open this database", mend)
    return Check("mlflow", "ok", text)


def _threads(declared: Declared) -> Check:
    """Libraries start a thread for every core: trials beside each other then fight."""
    if os.environ.get(THREADS):
        return Check("threads", "ok", f"{THREADS}={os.environ[THREADS]} in this environment")
    without = [
        job.name for job in declared.jobs if job.spec.backend.get("kind") == "local" and THREADS not in job.spec.env
    ]
    if not without:
        return Check("threads", "ok", f"every job sets {THREADS}")
    named = ", ".join(without[:5]) + (", …" if len(without) > 5 else "")
    mend = f'env: {{{THREADS}: "1"}} in the job, or as many as its resources.cpus'
    return Check("threads", "warn", f"{THREADS} is not set for {named}: trials side by side slow each other down", mend)


def _kinds(world: World, declared: Declared) -> Iterator[Check]:
    for kind in sorted({str(job.spec.backend.get("kind")) for job in declared.jobs}):
        yield _trying(f"backend {kind}", lambda kind=kind: _backend(world, kind))  # type: ignore[misc]


def _backend(world: World, kind: str) -> Check:
    return Check(f"backend {kind}", "ok", f"place {world.backends(kind).place}")


def _version_of(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"{package} (not installed as a package)"


def _output(argv: list[str]) -> str | None:
    """Return what a program says, None when it does not start or fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
