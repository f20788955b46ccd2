"""A real repository to commit config trees to."""

import subprocess
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from espalier.core.model import Declared, Job, JobError
from espalier.source.commit import GitSource

CONFIG = """
defaults:
  - backend@job.backend: local
  - job: ???
  - _self_
project: digits
"""


@dataclass
class Repo:
    """A repository; ``commit`` replaces every file by those given."""

    top: Path

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(self.top), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def write(self, files: Mapping[str, str | bytes | None]) -> None:
        for name, content in files.items():
            path = self.top / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str) and content.startswith("->"):
                path.unlink(missing_ok=True)
                path.symlink_to(content[2:])
            elif isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.write_text(textwrap.dedent(content).lstrip("\n"), "utf-8")

    def commit(self, files: Mapping[str, str | bytes | None] | None = None, message: str = "Change") -> str:
        self.write(files or {})
        self.git("add", "-A")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    @property
    def source(self) -> GitSource:
        return GitSource(self.top)

    def declared(self, *globs: str) -> Declared:
        return self.source.specs(self.source.resolve("HEAD"), globs)

    def job(self, name: str = "a") -> Job:
        found = self.declared(name)
        assert not found.errors, found.errors
        return found.jobs[0]

    def errors(self) -> tuple[JobError, ...]:
        return self.declared().errors

    def job_file(self, text: str, **more: str) -> None:
        """Commit one job ``a`` beside the usual config."""
        files = {name.replace("__", "/"): content for name, content in more.items()}
        self.commit({"conf/job/a.yaml": text, **files})
