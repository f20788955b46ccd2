"""What the benchmarks share: one command measured whole, repositories to measure on, a table. Judges nothing.

Standard library alone and small on purpose: what ``wait4`` tells of a child's peak memory begins with the memory of
the process that started it.
"""

import argparse
import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

SOURCE = Path(__file__).resolve().parent.parent / "src"
ESPALIER = (sys.executable, "-c", "import sys; from espalier.cli.main import main; sys.exit(main())")
"""What the console script does, from this checkout whatever is installed."""

PASS = (sys.executable, "-c", "pass")
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_STEERING = ("GIT_", "ESPALIER_", "MLFLOW_", "HYDRA_", "PYTHON", "CI", "GITHUB_")


@dataclass(frozen=True)
class Cost:
    """Seconds of the clock and of CPU, children that ended included; peak memory of the largest process."""

    wall: float
    cpu: float
    peak_mb: float


class Place:
    """A folder that is removed at the end, and the environment in which everything in it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_STEERING)}
        self.environ = kept | {
            "HOME": str(folder / "home"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "PYTHONPATH": str(SOURCE),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **{f"GIT_{who}_{what}": text for who in ("AUTHOR", "COMMITTER") for what, text in _WHO.items()},
        }
        (folder / "home").mkdir()

    def run(self, command: Sequence[str], cwd: Path, *, code: int | None = 0) -> tuple[Cost, str]:
        """Run ``command`` to its end; return what it cost and what it printed. Anything but ``code`` stops us."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            began = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=cwd, env=self.environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
            _, status, used = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            text = out.read().decode()
            if code is not None and process.returncode != code:
                err.seek(0)
                sys.exit(f"{' '.join(command)}: exit code {process.returncode}\n{text}{err.read().decode()}")
        return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024), text

    def best(self, command: Sequence[str], cwd: Path, repeat: int, *, code: int | None = 0) -> Cost:
        """Run ``command`` so often; return the median of each figure."""
        costs = [self.run(command, cwd, code=code)[0] for _ in range(repeat)]
        return Cost(*(median(getattr(cost, name) for cost in costs) for name in ("wall", "cpu", "peak_mb")))

    def espalier(self, repo: Path, *words: str) -> tuple[Cost, str]:
        """Run ``espalier WORDS`` in ``repo``."""
        return self.run([*ESPALIER, *words], repo)

    def repository(self, name: str, files: Mapping[str, str]) -> Path:
        """Return a new repository that holds ``files``, committed."""
        repo = self.folder / name
        repo.mkdir()
        self.git(repo, "init", "-q", "-b", "main")
        self.commit(repo, files, "Begin")
        return repo

    def commit(self, repo: Path, files: Mapping[str, str], message: str) -> None:
        """Write ``files`` and commit them."""
        for path, text in files.items():
            (repo / path).parent.mkdir(parents=True, exist_ok=True)
            (repo / path).write_text(text, "utf-8")
        self.git(repo, "add", "-A")
        self.git(repo, "commit", "-q", "-m", message)

    def git(self, repo: Path, *words: str) -> None:
        """Run git in ``repo``."""
        subprocess.run(["git", *words], cwd=repo, env=self.environ, check=True)


_WHO = {"NAME": "Bench", "EMAIL": "bench@localhost"}


@contextmanager
def place() -> Iterator[Place]:
    """Give a place to measure in; what was started there and still runs is ended with it."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # processes of the background become our children
    folder = Path(tempfile.mkdtemp(prefix="espalier-bench-"))
    try:
        yield Place(folder)
    finally:
        for pid in _children():
            os.kill(pid, 15)
        while True:
            try:
                os.wait()
            except ChildProcessError:
                break
        shutil.rmtree(folder, ignore_errors=True)


def background_cpu() -> float:
    """Return the CPU seconds so far of the processes that a command left behind, their children included."""
    ticks = os.sysconf("SC_CLK_TCK")
    used = 0.0
    for pid in _children():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used += sum(map(int, fields[11:15])) / ticks  # utime stime cutime cstime, proc(5)
    ended = os.times()
    return used + ended.children_user + ended.children_system


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def arguments(doc: str, add: Callable[[argparse.ArgumentParser], None] = lambda _: None) -> argparse.Namespace:
    """Return the options of a benchmark: ``--json``, ``--repeat`` and its own."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="measure so often, take the median")
    add(parser)
    return parser.parse_args()


def show(rows: Sequence[Mapping[str, object]], options: argparse.Namespace, notes: Sequence[str] = ()) -> None:
    """Print ``rows``, all with the same keys, as a table or JSON, with the machine that they are of."""
    machine = f"{os.cpu_count()} CPUs, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if options.json:
        print(json.dumps({"machine": machine, "rows": rows, "notes": notes}, indent=1))
        return
    table = [list(rows[0]), *([_shown(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[n]) for line in table) for n in range(len(table[0]))]
    for line in table:
        cells = [cell.ljust(widths[0]) if n == 0 else cell.rjust(widths[n]) for n, cell in enumerate(line)]
        print("  ".join(cells).rstrip())
    for text in (*notes, machine):
        print(f"  {text}")


def _shown(value: object) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
