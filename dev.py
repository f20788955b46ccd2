#!/usr/bin/env python3
"""Set-up in one file: `python3 dev.py demo` shows espalier at work, `python3 dev.py test` checks it.

Standard library only. Everything goes into `.venv` beside this file; what is there is used again,
so that only the first run needs the network. Never pushes anywhere, never writes outside `.venv`
and the folder that `demo` names.
"""

import sys

if sys.version_info < (3, 11):
    sys.exit("dev.py: Python 3.11 or newer is needed, this is %d.%d; try python3.11 dev.py" % sys.version_info[:2])

import argparse
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements"
STEERS_US = ("GIT_", "MLFLOW_", "ESPALIER_", "PYTEST_", "HYDRA_")  # of the caller, not meant for the demo or the tests
LINTS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
)


def main() -> int:
    """Run the command that was asked for and return its exit code."""
    parser = argparse.ArgumentParser(prog="dev.py", description="Set up espalier in .venv, then show or check it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="demo|test|lint|lock")
    demo_parser = commands.add_parser("demo", help="declare, plan, apply, edit, plan and apply in a new repository")
    demo_parser.add_argument("folder", nargs="?", type=Path, help="a new or empty folder (default: a temporary one)")
    test_parser = commands.add_parser("test", help="all checks and tests; with arguments just pytest with these")
    test_parser.add_argument("--lowest", action="store_true", help="tests alone, with the oldest libraries allowed")
    commands.add_parser("lint", help="ruff, mypy and lint-imports")
    commands.add_parser("lock", help="write requirements/*.txt again from pyproject.toml (needs uv and network)")
    options, rest = parser.parse_known_args()
    if rest and options.command != "test":
        parser.error("unknown arguments: " + shlex.join(rest))
    if options.command == "lock":
        return lock()
    lowest = getattr(options, "lowest", False)
    place = HERE / (".venv-lowest" if lowest else ".venv")
    install(place, REQUIREMENTS / ("lowest.txt" if lowest else "dev.txt"))
    environment = clean_environment(place)
    if options.command == "demo":
        return demo(environment, options.folder)
    if options.command == "lint":
        return lint(environment)
    if not rest and not lowest:
        failed = lint(environment)
        if failed:
            return failed
    return pytest(environment, rest)


def say(text: str) -> None:
    print(f"dev.py: {text}", flush=True)


def stop(text: str) -> NoReturn:
    sys.exit(f"dev.py: {text}")


# Installing


def install(place: Path, requirements: Path) -> None:
    """Make ``place`` hold exactly what ``requirements`` pins, and this project; nothing when it already does."""
    stamp, wanted = place / "dev-stamp.txt", fingerprint(requirements)
    python = place / "bin" / "python"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        say(f"{place.name} is as pinned")
        return
    stamp.unlink(missing_ok=True)
    trusting = {"UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true"}  # as pip does; the second is the older name
    environment = trusting | clean_environment(place) | {"UV_PYTHON_DOWNLOADS": "never"}
    uv = shutil.which("uv")
    if not works(python):
        make_venv(place, uv, environment)
    uv = uv or own_uv(place, environment)
    pip = (
        [uv, "pip", "install", "--python", str(python)]
        if uv
        else [str(python), "-m", "pip", "install", "--retries", "1"]
    )
    say(f"installing {requirements.relative_to(HERE)} into {place.name}" + ("" if uv else " with pip: some 15 minutes"))
    if subprocess.call([*pip, "-q", "--require-hashes", "-r", str(requirements)], env=environment):
        stop("the packages could not be installed: the first run needs the network; run it again when there is one")
    say("installing espalier itself, editable")
    if subprocess.call([*pip, "-q", "--no-deps", "--no-build-isolation", "-e", str(HERE)], env=environment):
        stop("espalier itself could not be installed; the lines above say why")
    stamp.write_text(wanted)


def fingerprint(requirements: Path) -> str:
    """Return what an installation depends on, as hex digits."""
    parts = [str(HERE).encode(), sys.version.encode()]
    files = (requirements, REQUIREMENTS / "uv.txt", HERE / "pyproject.toml", HERE / "src/espalier/__init__.py")
    return hashlib.sha256(b"\0".join([*parts, *(file.read_bytes() for file in files)])).hexdigest()


def works(python: Path) -> bool:
    """Say whether this interpreter starts (it does not when what it links to was removed)."""
    return python.exists() and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0


def make_venv(place: Path, uv: str | None, environment: Mapping[str, str]) -> None:
    say(f"making {place.name}")
    shutil.rmtree(place, ignore_errors=True)
    base = getattr(sys, "_base_executable", sys.executable)
    if uv:
        command = [uv, "venv", "-q", "--python", base, str(place)]
    elif importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        stop("this Python cannot make virtual environments; on Debian: apt install python3-venv")
    else:
        command = [base, "-m", "venv", str(place)]
    if subprocess.call(command, env=environment):
        shutil.rmtree(place, ignore_errors=True)
        stop(f"{place} could not be made; the lines above say why (on Debian: apt install python3-venv)")


def own_uv(place: Path, environment: Mapping[str, str]) -> str | None:
    """Return a uv of our own in ``place``; None where there is none to be had and pip must do."""
    uv = place / "bin" / "uv"
    if not works_as_uv(uv):
        say("putting uv into it, which installs faster than pip")
        python = str(place / "bin" / "python")
        pinned = ["--require-hashes", "--only-binary", ":all:", "-r", str(REQUIREMENTS / "uv.txt")]
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--retries", "1", *pinned]
        done = subprocess.run(pip, env=environment, capture_output=True, text=True)
        if done.returncode:
            say("that failed: " + (done.stderr.strip().splitlines() or ["pip says nothing"])[-1])
    return str(uv) if works_as_uv(uv) else None


def works_as_uv(uv: Path) -> bool:
    return uv.exists() and subprocess.run([uv, "--version"], capture_output=True).returncode == 0


def clean_environment(place: Path) -> dict[str, str]:
    """Return the caller's environment with ``place`` active, less what would steer the demo or the tests."""
    dropped = ("CI", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "CONDA_PREFIX")
    kept = {k: v for k, v in os.environ.items() if k not in dropped and not k.startswith(STEERS_US)}
    path = os.pathsep.join([str(place / "bin"), kept.get("PATH", os.defpath)])
    return kept | {"VIRTUAL_ENV": str(place), "PATH": path, "GIT_PAGER": "cat", "GIT_TERMINAL_PROMPT": "0"}


def lock() -> int:
    """Pin what pyproject.toml allows; the files name no index, and so no host."""
    uv = shutil.which("uv") or str(HERE / ".venv" / "bin" / "uv")
    if not works_as_uv(Path(uv)):
        stop("uv is needed to pin; install it, or run `python3 dev.py lint` once, which puts it into .venv")
    common = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate", "-q"]
    project = [uv, "pip", "compile", *common, "--extra", "dev", str(HERE / "pyproject.toml")]
    for name, extra in (("dev.txt", ["--upgrade"]), ("lowest.txt", ["--upgrade", "--resolution", "lowest-direct"])):
        say(f"writing requirements/{name}")
        subprocess.run([*project, *extra, "-o", str(REQUIREMENTS / name)], check=True, stdout=subprocess.DEVNULL)
    return 0


# Checking


def lint(environment: Mapping[str, str]) -> int:
    """Run every check, also after one has failed."""
    failed = [command for command in LINTS if transcript(list(command), environment, HERE)]
    for command in failed:
        say(f"failed: {shlex.join(command)}")
    return 1 if failed else 0


def pytest(environment: Mapping[str, str], arguments: list[str]) -> int:
    spread = (
        [] if any(a.startswith(("-n", "--numprocesses")) for a in arguments) else ["-n", "2", "--dist", "loadgroup"]
    )
    common = ["-v", "--durations=15", "-o", "faulthandler_timeout=300"]  # -v takes back the -q of pyproject.toml
    return transcript(["python", "-m", "pytest", *spread, *common, *arguments], environment, HERE)


# Showing


def demo(environment: Mapping[str, str], folder: Path | None) -> int:
    """Tell the whole story in a new repository; stop at the first command that fails."""
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="espalier-demo-"))
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        stop(f"{folder} is there already; name a new or empty folder")
    folder = folder.resolve()
    say(f"the demo's repository is {folder}")
    identity = [] if git_knows_me(environment) else ["-c", "user.name=Demo", "-c", "user.email=demo@example.invalid"]

    def run(*command: str) -> None:
        code = transcript(list(command), environment, folder if folder.exists() else HERE)
        if code:
            stop(f"`{shlex.join(command)}` ended with {code}; what it left is in {folder}")

    def commit(subject: str) -> None:
        run("git", "add", "-A")
        run("git", *identity, "-c", "commit.gpgsign=false", "commit", "-q", "-m", subject)

    def edit(file: str, old: str, new: str) -> None:
        tell(f"{file}: {old.strip()} → {new.strip()}")
        path = folder / file
        text = path.read_text("utf-8")
        if text.count(old) != 1:
            stop(f"{path} does not hold {old!r} once")
        path.write_text(text.replace(old, new), "utf-8")

    tell("A new repository: jobs and a sweep, declared in a Hydra tree.")
    run("espalier", "init", str(folder))
    commit("Declare the digits jobs")
    tell("What would run, and why? Nothing has run yet.")
    run("espalier", "plan")
    tell("Run it, and watch.")
    run("espalier", "apply")
    run("espalier", "status")

    tell("Now an edit that several jobs read: one file of a shared group.")
    edit("conf/optim/sgd.yaml", "epochs: 15", "epochs: 20")
    commit("Train a little longer")
    tell("The plan shows just that edit, in the jobs that read the file.")
    run("espalier", "plan")
    run("espalier", "apply")

    tell("And one that widens the search: the points that have been run are taken over.")
    edit("conf/job/digits/mlp.yaml", "choice(0.01,0.1,0.5)", "choice(0.01,0.1,0.5,1.0)")
    commit("Try a larger learning rate")
    run("espalier", "plan")
    run("espalier", "apply")

    tell("Where things stand, how they came there, and what changed.")
    run("espalier", "status")
    run("espalier", "history", "digits/mlp")
    run("espalier", "diff", "digits/mlp@v1", "digits/mlp@v3")
    run("espalier", "show", "digits/mlp")
    run("git", "log", "--oneline", "espalier/ledger")
    tell("Planned again, there is nothing left to do.")
    run("espalier", "plan")
    program = shlex.quote(str(Path(environment["VIRTUAL_ENV"]) / "bin" / "espalier"))
    print(f"\nAll of it in MLflow's UI:\n\n    {program} -C {shlex.quote(str(folder))} ui\n", flush=True)
    return 0


def git_knows_me(environment: Mapping[str, str]) -> bool:
    asked = subprocess.run(["git", "config", "user.email"], env=environment, cwd="/", capture_output=True)
    return asked.returncode == 0


def tell(text: str) -> None:
    print(f"\n# {text}", flush=True)


def transcript(command: list[str], environment: Mapping[str, str], folder: Path) -> int:
    """Show the command as a shell would, run it, return its exit code."""
    print(f"$ {shlex.join(command)}", flush=True)
    try:
        return subprocess.call(command, env=environment, cwd=folder)
    except FileNotFoundError:
        stop(f"{command[0]} is not there" + ("; on Debian: apt install git" if command[0] == "git" else ""))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
