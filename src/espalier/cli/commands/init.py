"""`espalier init`: make a folder a repository that works at once. Overwrites nothing and commits nothing."""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import espalier
from espalier.core.errors import InputError

CONFIG = "conf/config.yaml"
JOBS = "conf/job"
EXAMPLE = (JOBS, "conf/model", "conf/optim", "experiments")  # of no use to who has jobs already
IGNORED = (".espalier/", "mlflow.db*", "mlartifacts/", "__pycache__/")
_PROJECT_LINE = re.compile(r"^project: \S+", re.MULTILINE)
_UNQUOTED = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null)\Z)[a-z][a-z0-9_-]*\Z", re.IGNORECASE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `espalier init` takes."""
    parser.add_argument("dir", nargs="?", metavar="DIR", help="the folder (default: this one)")
    parser.add_argument("--ci", choices=("github", "gitlab"), help="write workflows for this host too")


def run(args: argparse.Namespace) -> int:
    """Write what is missing, say file by file what was done, and what to do next."""
    if args.ci:
        raise InputError(
            f"--ci {args.ci} is not there yet: this version writes no workflows",
            hint="run it without --ci; workflows can be added later by running init again",
        )
    top = Path(getattr(args, "directory", "."), args.dir or ".")
    try:
        made = make_repository(top)
        own_jobs = has_own_jobs(top)
        own_config = os.path.lexists(top / CONFIG)
        print(f"{'made' if made else 'there':9}a git repository in {top}")
        for name, text in sorted(template(project_name(top)).items()):
            if own_jobs and name.startswith(EXAMPLE):
                continue
            print(f"{add_file(top / name, text):9}{name}")
        print(f"{ignore(top / '.gitignore'):9}.gitignore")
    except OSError as error:
        raise InputError(
            f"{error.filename or top} cannot be written: {error.strerror}",
            hint="see to it that the folder is yours and that no file has a folder's name, then run init again",
            file=str(error.filename or top),
        ) from error
    sys.stdout.flush()  # the advice stands below it, whatever stdout is
    print(advice(top, own_jobs, own_config), file=sys.stderr)
    return 0


def template(project: str) -> dict[str, bytes]:
    """Return the files of a new repository by path: the example that this package came with."""
    beside = Path(espalier.__file__).resolve().parent / "_template"  # in a wheel
    root = beside if beside.is_dir() else beside.parents[2]  # a checkout has it at its top
    files = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for folder in ("conf", "experiments")
        for path in sorted(root.joinpath(folder).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    if CONFIG not in files:
        raise InputError(f"this installation of espalier has no template in {root}", hint="install espalier again")
    config = files[CONFIG].decode()
    name = project if _UNQUOTED.match(project) else json.dumps(project)
    return files | {CONFIG: _PROJECT_LINE.sub(lambda _: f"project: {name}", config, count=1).encode()}


def project_name(top: Path) -> str:
    """Return the folder's name as far as MLflow and labels take it."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", top.resolve().name).strip("-.") or "experiments"


def make_repository(top: Path) -> bool:
    """Say whether a repository had to be made in ``top``."""
    if (top / ".git").exists():
        return False
    if top.is_dir() and any(top.iterdir()):
        inside = git(top, "rev-parse", "--show-toplevel")
        if inside.returncode == 0:
            above = inside.stdout.strip()
            raise InputError(
                f"{top} lies inside the repository {above}",
                hint=f"run `espalier init {above}`, or `git init` here first if this is to be a repository of its own",
            )
    top.mkdir(parents=True, exist_ok=True)
    done = git(top, "init", "-q", "-b", "main")
    if done.returncode:
        raise InputError(
            f"`git init` failed: {done.stderr.strip()}", hint="make it a git repository, then run init again"
        )
    return True


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in ``folder``, whatever repository the caller's environment names."""
    environment = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")}
    try:
        return subprocess.run(
            ["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise InputError("git is not on the PATH", hint="install git, on Debian: apt install git") from error


def has_own_jobs(top: Path) -> bool:
    """Say whether ``top`` declares jobs that are not of the template."""
    there = {path.relative_to(top).as_posix() for path in (top / JOBS).rglob("*.yaml")}
    return bool(there - template("").keys())


def add_file(path: Path, text: bytes) -> str:
    """Write ``path`` unless something of that name is there; return what was done."""
    if os.path.lexists(path):
        return "there"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as file:
        file.write(text)
    return "added"


def ignore(path: Path) -> str:
    """Add what git should not see to ``path``; return what was done."""
    old = path.read_text("utf-8") if path.exists() else ""
    present = {line.strip().lstrip("/") for line in old.splitlines()}
    missing = [line for line in IGNORED if line not in present]
    if not missing:
        return "there"
    break_ = "" if not old or old.endswith("\n") else "\n"
    with open(path, "a", encoding="utf-8") as file:
        file.write(break_ + "".join(f"{line}\n" for line in missing))
    return "extended" if old else "added"


def advice(top: Path, own_jobs: bool, own_config: bool) -> str:
    """Return what a person does next."""
    steps = []
    if own_jobs:
        steps += ["", f"{JOBS} has jobs of yours, so the example was left out."]
    if own_config:
        steps += ["", f"{CONFIG} was there. It needs `project: NAME`, and in its defaults"]
        steps += ["`- backend@job.backend: local` and `- job: ???`."]
    steps += ["", "Nothing is committed. Next:"]
    if top.resolve() != Path.cwd():
        steps += [f"  cd {shlex.quote(str(top))}"]
    steps += ['  git add -A && git commit -m "Declare the first jobs"']
    steps += ["  espalier plan     # what would run, and why", "  espalier apply    # run it, and watch"]
    return "\n".join(steps)
