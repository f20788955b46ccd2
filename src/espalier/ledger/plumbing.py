"""git's plumbing for the ledger: read many files of a commit, append one commit. Never decides what.

No command here touches the working tree, the index, a branch or the user's configuration, runs a
hook, or depends on where the caller's environment points git.
"""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from espalier.core.errors import InputError, UnavailableError

REF = "refs/espalier/ledger"
REMOTE_REFS = "refs/remotes/*/espalier/ledger"
FALLBACK_IDENTITY = "espalier <espalier@localhost>"
TIME_LIMIT_S = 600.0
"""Longer than any import of ours; a git that hangs on a dead network disk must not hang us for ever."""

_KEPT = re.compile(
    r"GIT_(AUTHOR|COMMITTER)_(NAME|EMAIL)\Z|GIT_CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_\d+|VALUE_\d+)\Z"
    r"|GIT_(SSH|SSH_COMMAND|ASKPASS|EXEC_PATH|SSL_[A-Z]+|CEILING_DIRECTORIES)\Z"
)
_FIXED = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_REPLACE_OBJECTS": "1"}
_OPTIONS = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.logAllRefUpdates=false"),
    # a ref must not outlive its objects when the power fails; in one flush, not one for each object
    *("-c", "core.fsync=committed,loose-object,reference", "-c", "core.fsyncMethod=batch"),
)
_IDENTITY = re.compile(r"(?P<who>.*<[^<>\n]*>) \d+ [+-]\d{4}\Z")


class Found(NamedTuple):
    """A file of a commit: the id of its blob, and its content."""

    id: str
    content: bytes


class Changed(NamedTuple):
    """A file that a commit changed: its mode and blob there (None: removed), and whether it is new."""

    path: str
    mode: str
    blob: str | None
    added: bool


class Tips(NamedTuple):
    """Our own ref (None: there is none) and the tip that is read: a remote-tracking branch may be ahead of ours."""

    own: str | None
    read: str | None


class Appended(NamedTuple):
    """A commit that was made; ``refused`` is what git said where our ref was not moved to it."""

    id: str
    refused: str = ""


class Git:
    """The git of one repository (its top, a worktree, or a bare one)."""

    def __init__(self, repository: Path, environ: Mapping[str, str] | None = None) -> None:
        self.repository = repository
        self._who: str | None = None
        given = os.environ if environ is None else environ
        self._environ = {k: v for k, v in given.items() if not k.startswith("GIT_") or _KEPT.match(k)} | _FIXED

    def run(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        """Return what git prints; raise UnavailableError with what it says when it fails."""
        done = self.answer(*arguments, stdin=stdin)
        if done.returncode:
            raise self._failed(arguments, done)
        return done.stdout

    def answer(self, *arguments: str, stdin: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
        """Return git's answer, whatever its exit code."""
        command = ["git", *_OPTIONS, *arguments]
        try:
            return subprocess.run(
                command,
                cwd=self.repository,
                env=self._environ,
                input=b"" if stdin is None else stdin,
                capture_output=True,
                timeout=TIME_LIMIT_S,
                start_new_session=True,  # Ctrl-C is for us: git ends what it began
                check=False,
            )
        except FileNotFoundError as error:
            missing = "git" if self.repository.is_dir() else str(self.repository)
            raise InputError(f"{missing} is not there", hint="install git, and name a folder that exists") from error
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(
                f"git {arguments[0]} did not answer within {TIME_LIMIT_S:.0f} s", hint="is the disk reachable?"
            ) from error

    def tips(self) -> Tips:
        """Return where the ledger stands; a fresh clone has it only as a remote-tracking branch."""
        listed = self.run("for-each-ref", "--format=%(refname) %(objectname)", REF, REMOTE_REFS).decode()
        refs = dict(line.split(" ") for line in listed.splitlines())
        own = refs.pop(REF, None)
        theirs = sorted(refs, key=lambda name: (not name.startswith("refs/remotes/origin/"), name))
        if not theirs:
            return Tips(own, own)
        tip = refs[theirs[0]]
        if own is None or (own != tip and self.descends(tip, own)):
            return Tips(own, tip)
        return Tips(own, own)

    def descends(self, commit: str, ancestor: str) -> bool:
        """Return whether ``ancestor`` is in the history of ``commit``."""
        return self.answer("merge-base", "--is-ancestor", ancestor, commit).returncode == 0

    def files(self, names: Iterable[str]) -> dict[str, Found]:
        """Return the blobs of ``names`` (``<commit>:<path>`` or ids) that exist, all by one process."""
        return self._objects(names, b"blob")

    def present(self, ids: Iterable[str]) -> set[str]:
        """Return those of ``ids`` that this repository has."""
        asked = "".join(f"{name}\n" for name in dict.fromkeys(ids))
        listed = self.run("cat-file", "--batch-check", stdin=asked.encode()).decode().splitlines()
        return {line.split(" ")[0] for line in listed if not line.endswith(" missing")}

    def messages(self, commits: Iterable[str]) -> dict[str, str]:
        """Return the messages of ``commits``."""
        found = self._objects(commits, b"commit")
        return {name: each.content.partition(b"\n\n")[2].decode("utf-8", "replace") for name, each in found.items()}

    def _objects(self, names: Iterable[str], kind: bytes) -> dict[str, Found]:
        asked = list(dict.fromkeys(names))
        if not asked:
            return {}
        out = self.run("cat-file", "--batch", "--buffer", stdin="".join(f"{name}\n" for name in asked).encode())
        found, at = {}, 0
        for name in asked:
            end = out.index(b"\n", at)
            head = out[at:end].split(b" ")
            at = end + 1
            if head[-1] == b"missing":
                continue
            size = int(head[2])
            if head[1] == kind:
                found[name] = Found(head[0].decode(), out[at : at + size])
            at += size + 1
        return found

    def chain(self, tip: str) -> list[tuple[str, tuple[str, ...]]]:
        """Return each commit of the history of ``tip`` with its parents, oldest first."""
        listed = self.run("rev-list", "--parents", "--topo-order", "--reverse", tip).decode().splitlines()
        return [(ids[0], tuple(ids[1:])) for ids in (line.split(" ") for line in listed)]

    def changes(self, commits: Iterable[str]) -> dict[str, list[Changed]]:
        """Return the files that each of ``commits`` changed against its parent."""
        asked = "".join(f"{commit}\n" for commit in commits).encode()
        out = self.run("diff-tree", "--stdin", "--root", "-r", "-m", "-z", "--raw", "--no-renames", stdin=asked)
        parts = iter(os.fsdecode(out).split("\0"))
        found: dict[str, list[Changed]] = {}
        rows: list[Changed] = []
        for part in parts:
            if part.startswith(":"):
                _, mode, _, blob, how = part.split(" ")
                rows.append(Changed(next(parts), mode, None if how == "D" else blob, how == "A"))
            elif part:
                rows = found.setdefault(part.strip("\n"), [])
        return found

    def is_shallow(self) -> bool:
        """Return whether this clone lacks the older history."""
        return self.run("rev-parse", "--is-shallow-repository").strip() == b"true"

    def identity(self) -> str:
        """Return ``Name <email>`` of who commits here, ours where git has none."""
        if self._who is None:
            done = self.answer("var", "GIT_COMMITTER_IDENT")
            match = _IDENTITY.match(done.stdout.decode("utf-8", "replace").strip())
            known = done.returncode == 0 and match and not match["who"].startswith("<")
            self._who = match["who"].strip() if match and known else FALLBACK_IDENTITY
        return self._who

    def append(
        self, parent: str | None, files: Mapping[str, bytes | None], message: str, who: str, seconds: int
    ) -> Appended:
        """Make a commit on ``parent`` with ``files`` written (None: removed), and move our ref to it.

        A compare-and-swap: fast-import moves a ref only from an ancestor of what it made, and only
        while it has the value that it read; so no ref of its own, no lock over more than that one rename,
        and nothing to clean up. The stream is a file, not a pipe: git has all of it whatever
        happens to us, and ``--done`` makes nothing of one that was cut.
        """
        import tempfile  # with what it imports as dear as git itself, and who only reads has no use for it

        with tempfile.TemporaryFile() as stream:
            stream.writelines(_stream(parent, files, message, who, seconds))
            stream.seek(0)
            process = subprocess.Popen(
                ["git", *_OPTIONS, "fast-import", "--done", "--quiet", "--date-format=raw"],
                cwd=self.repository,
                env=self._environ,
                stdin=stream,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for us: git ends what it began
            )
            try:
                out, err = process.communicate(timeout=TIME_LIMIT_S)
            except subprocess.TimeoutExpired as error:
                process.kill()
                process.communicate()
                raise UnavailableError("git fast-import does not end", hint="is the disk reachable?") from error
        made, said = out.decode().strip(), err.decode("utf-8", "replace")
        if process.returncode == 0 and made:
            return Appended(made)
        if process.returncode == 1 and made and ("Not updating" in said or "cannot lock ref" in said):
            return Appended(made, said)
        self._forget_crash(process.pid)
        raise self._failed(("fast-import",), subprocess.CompletedProcess((), process.returncode, out, err))

    def path(self, name: str) -> Path:
        """Return where git keeps ``name``, such as ``refs/espalier/ledger.lock``, for this worktree."""
        return self.repository / os.fsdecode(self.run("rev-parse", "--git-path", name).rstrip(b"\n"))

    def _forget_crash(self, pid: int) -> None:
        with contextlib.suppress(OSError, UnavailableError):
            self.path(f"fast_import_crash_{pid}").unlink()

    def _failed(
        self, arguments: Sequence[str], done: "subprocess.CompletedProcess[bytes]"
    ) -> UnavailableError | InputError:
        said = done.stderr.decode("utf-8", "replace").strip()
        last = said.splitlines()[-1] if said else f"exit code {done.returncode}"
        if "not a git repository" in said:
            return InputError(f"{self.repository} is no git repository", hint="run it inside one, or: git init")
        if "dubious ownership" in said:
            return InputError(f"git refuses {self.repository}: {last}", hint="see git's safe.directory setting")
        return UnavailableError(f"git {arguments[0]}: {last}", hint="see if git works here: git status, git fsck")


def _stream(
    parent: str | None, files: Mapping[str, bytes | None], message: str, who: str, seconds: int
) -> Iterator[bytes]:
    text = message.encode("utf-8", "replace")
    stamp = f"{who} {seconds} +0000"
    head = f"feature get-mark\nfeature done\ncommit {REF}\nmark :1\nauthor {stamp}\ncommitter {stamp}\n"
    yield f"{head}data {len(text)}\n".encode("utf-8", "replace") + text + b"\n"
    if parent:
        yield f"from {parent}\n".encode()
    for path, content in sorted(files.items()):
        if content is None:
            yield f"D {path}\n".encode()
    for path, content in sorted(files.items()):
        if content is not None:
            yield f"M 100644 inline {path}\ndata {len(content)}\n".encode()
            yield content + b"\n"
    yield b"get-mark :1\ndone\n"
