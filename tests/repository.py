"""A small git repository for tests: jobs whose trials are standard-library scripts. Never the project's own."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

FILES = {
    "conf/config.yaml": """\
        defaults:
          - backend@job.backend: local
          - job: ???
          - _self_
        project: demo
        """,
    "conf/backend/local.yaml": "kind: local\n",
    "conf/optim/sgd.yaml": """\
        lr: 0.1
        momentum: 0.0
        """,
    "conf/optim/adam.yaml": """\
        lr: 0.001
        beta: 0.9
        """,
    "conf/job/single.yaml": """\
        defaults:
          - /optim@params.optim: sgd
        command: python train.py
        code: [train.py]
        params:
          width: 4
        """,
    "conf/job/group/sweep.yaml": """\
        defaults:
          - /optim@params.optim: adam
        command: python train.py
        code: [train.py]
        params:
          width: 4
        sweep:
          params:
            width: choice(1,2,3)
          objective: {metric: score, goal: maximize}
        """,
    "train.py": """\
        import json, os, pathlib, sys
        params = json.loads(pathlib.Path(os.environ["ESPALIER_PARAMS"]).read_text())
        with open(pathlib.Path(os.environ["ESPALIER_OUTPUT_DIR"]) / "metrics.jsonl", "w") as metrics:
            for step in range(3):
                print(json.dumps({"step": step, "score": params["width"] * (step + 1)}), file=metrics, flush=True)
        print("trained", *sys.argv[1:])
        """,
}


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository at ``path``, on the branch main."""

    path: Path

    def git(self, *arguments: str) -> str:
        """Return what git prints, stripped; fail with what it says."""
        done = subprocess.run(["git", *arguments], cwd=self.path, capture_output=True, text=True)
        assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()

    def write(self, name: str, text: str) -> None:
        """Write a file; its text may be indented as the test is."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text), "utf-8")

    def replace(self, name: str, old: str, new: str) -> None:
        """Put ``new`` in the place of ``old``, which the file holds once."""
        text = (self.path / name).read_text("utf-8")
        assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
        (self.path / name).write_text(text.replace(old, new), "utf-8")

    def remove(self, name: str) -> None:
        os.unlink(self.path / name)

    def commit(self, subject: str = "Change it") -> str:
        """Commit everything, and return the commit's id."""
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", subject)
        return self.git("rev-parse", "HEAD")


def new_repository(path: Path) -> Repository:
    """Make a repository with one commit that declares ``single`` and ``group/sweep``."""
    repository = Repository(path)
    path.mkdir(parents=True, exist_ok=True)
    repository.git("init", "-q", "-b", "main")
    for name, text in FILES.items():
        repository.write(name, text)
    repository.commit("Declare the jobs")
    return repository
