"""The command and a repository in an environment of their own, to look from outside. Imports no code of espalier."""

import fcntl
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, program
from tests.repository import Repository
from tests.wait import wait_until

GATED = """\
    import os, pathlib, sys, time
    here = pathlib.Path(os.environ["GATES"])
    name = "-".join(sys.argv[1:]) or os.environ["ESPALIER_TRIAL"]
    (here / ("at " + name)).touch()
    end = time.monotonic() + 120
    while not (here / "open").exists() and time.monotonic() < end:
        time.sleep(0.02)
    """
"""A program that says that it is there, and goes on once the gate is open."""


@dataclass(frozen=True)
class Desk:
    """A repository, and ``espalier`` run in it with ``environ``."""

    repo: Repository
    environ: Mapping[str, str]

    @property
    def path(self) -> Path:
        return self.repo.path

    @property
    def state(self) -> Path:
        """The folder of the clone's own state."""
        return self.path / ".espalier"

    def start(
        self, *words: str, cwd: Path | None = None, env: Mapping[str, str | None] | None = None
    ) -> subprocess.Popen[str]:
        """Start ``espalier WORDS``; a name in ``env`` that is None is not set."""
        command = program()
        environ = {**self.environ, **(env or {})}
        if len(command) > 1:
            environ["PYTHONPATH"] = str(ROOT / "src")
        return subprocess.Popen(
            [*command, *words],
            cwd=cwd or self.path,
            env={name: value for name, value in environ.items() if value is not None},
            stdin=subprocess.DEVNULL,
            process_group=0,  # as a shell does: Ctrl-C reaches all of it
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextmanager
    def begun(self, *words: str, env: Mapping[str, str | None] | None = None) -> Iterator[subprocess.Popen[str]]:
        """Start a command, and hold it back once it has seen where things stand, until the block ends."""
        with (self.state / "turn.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            process = self.start(*words, env=env)
            wait_until(lambda: _is_held(process.pid), within_s=60)
            yield process

    def run(
        self,
        *words: str,
        code: int | None = 0,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``espalier WORDS`` to its end, which has to be ``code`` (None: any)."""
        return finish(self.start(*words, cwd=cwd, env=env), code)

    def json(
        self,
        *words: str,
        code: int | None = 0,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
    ) -> Any:
        """Return the result of ``espalier WORDS --format json``."""
        return json.loads(self.run(*words, "--format", "json", code=code, cwd=cwd, env=env).stdout)

    def refused(self, *words: str, env: Mapping[str, str | None] | None = None, cwd: Path | None = None) -> str:
        """Return message and hint of a command that ends with 1; its JSON has to be the contract's error."""
        tree = self.json(*words, code=1, env=env, cwd=cwd)
        assert tree["format"] == 1
        assert set(tree["error"]) == {"message", "hint", "file", "line"}
        return f"{tree['error']['message']}\n{tree['error']['hint']}"

    def action(self, job: str, *words: str) -> Any:
        """Return the plan's action for ``job``, None when it has none."""
        actions = self.json("plan", *words)["actions"]
        return next((action for action in actions if action["job"] == job), None)

    def wait_for(self, target: str, *states: str) -> Any:
        """Look until a version is in one of ``states``; return what ``show`` says. Starts nothing."""

        def seen() -> Any:
            shown = self.json("show", target)
            return shown if shown["state"] in states else None

        return wait_until(seen, within_s=120, every_s=0.1)

    def ledger(self, path: str) -> str:
        """Return a file of the ledger as git has it."""
        return self.repo.git("show", f"refs/espalier/ledger:{path}")

    def rows(self, path: str) -> list[Any]:
        """Return the lines of a .jsonl file of the ledger."""
        return [json.loads(line) for line in self.ledger(path).splitlines()]

    def job(self, name: str, text: str) -> None:
        """Write a job's file."""
        self.repo.write(f"conf/job/{name}.yaml", text)


def finish(process: subprocess.Popen[str], code: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Wait for a command, which has to end with ``code``."""
    try:
        out, told = process.communicate(timeout=180)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    assert code is None or process.returncode == code, f"{process.args!r} gave {process.returncode}\n{out}\n{told}"
    assert "Traceback" not in told, told
    return subprocess.CompletedProcess(process.args, process.returncode, out, told)


def _is_held(pid: int) -> bool:
    """Return whether the process waits for a lock."""
    return any("->" in line and str(pid) in line.split() for line in Path("/proc/locks").read_text().splitlines())


def bare(repo: Repository) -> None:
    """Take the jobs of the template away."""
    repo.remove("conf/job/single.yaml")
    repo.remove("conf/job/group/sweep.yaml")


def processes(state: Path, word: str) -> list[int]:
    """Return the ids of the processes that have both ``state`` (or its repository) and ``word`` in their arguments."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        text = shlex.join(words)
        if word in text and (str(state) in text or str(state.parent) in text):
            found.append(int(folder.name))
    return found


def kill(pids: list[int]) -> None:
    """SIGKILL processes of ours, those that have gone aside."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
