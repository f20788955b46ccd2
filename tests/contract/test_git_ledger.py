"""The ledger of a repository keeps what the port promises, in every kind of repository and through every death."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from espalier.core.errors import InputError, RejectedError, StaleError, UnavailableError
from espalier.core.events import Created, CursorMoved, Observed, Retired, Submitted
from espalier.core.names import shard
from espalier.engine.apply import Options, apply_plan, plan_at
from espalier.ledger.fsck import check
from espalier.ledger.gitref import GitLedger
from espalier.testing.ledger import LedgerContract, a_record, ended, over
from tests.builders import a_job
from tests.repos import ENVIRON, PERSON, git, new_repo, write_file
from tests.unit.engine.parts import Bench
from tests.wait import wait_until

REF = "refs/espalier/ledger"


class TestGitLedger(LedgerContract):
    @pytest.fixture
    def another(self, tmp_path: Path) -> Callable[[], GitLedger]:
        repo = new_repo(tmp_path / "repo")
        return lambda: GitLedger(repo, "digits", ENVIRON)


class TestGitLedgerOfSha256(LedgerContract):
    @pytest.fixture
    def another(self, tmp_path: Path) -> Callable[[], GitLedger]:
        repo = new_repo(tmp_path / "repo", "--object-format=sha256")
        return lambda: GitLedger(repo, "digits", ENVIRON)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return new_repo(tmp_path / "place")


def ledger_of(place: Path, **environ: str) -> GitLedger:
    return GitLedger(place, "digits", ENVIRON | environ)


def text(place: Path, path: str, tip: str = REF) -> str:
    return git(place, "show", f"{tip}:{path}")


def state(place: Path) -> dict[str, str]:
    """Everything of a repository that an append must leave alone."""
    return {
        "refs": "\n".join(line for line in git(place, "for-each-ref").splitlines() if REF not in line),
        "status": git(place, "status", "--porcelain"),
        "config": (place / ".git/config").read_text("utf-8"),
        "head": (place / ".git/HEAD").read_text("utf-8"),
    }


def leftovers(place: Path) -> list[str]:
    """Locks, crash reports and names of ours that something left in the git directory."""
    return [
        str(path)
        for path in (place / ".git").rglob("*")
        if path.name.endswith(".lock")
        or "crash" in path.name
        or ("espalier" in path.parts[:-1] and path.name != "ledger")
    ]


def test_the_layout_is_that_of_the_contract(place: Path) -> None:
    first, second = a_record(), a_record(number=2, rates=(0.5,))
    side = a_record(line="lr-scan", base="digits/mlp@v1", rates=(0.7,))
    ledger = ledger_of(place)
    base = ledger.append(ledger.found(), [Created(first), Created(side), CursorMoved("main", "c" * 40)], "intent", "G")
    base = ledger.append(base, ended(side), "observed", "G")
    ledger.append(base, [Created(second)], "intent", "G")
    hh = shard("digits/mlp")
    job = f"jobs/{hh}/digits/mlp"
    assert git(place, "ls-tree", "-r", "--name-only", REF).splitlines() == sorted(
        [
            "FORMAT",
            "cursor.json",
            f"heads/{hh}.jsonl",
            f"{job}/open/v1/spec.yaml",
            f"{job}/open/v1/trials.jsonl",
            f"{job}/open/v1/version.json",
            f"{job}/reuse.jsonl",
            f"{job}/spec.yaml",
            f"{job}/trials.jsonl",
            f"{job}/versions.jsonl",
            f"{job}+lr-scan/spec.yaml",
            f"{job}+lr-scan/trials.jsonl",
        ]
    )
    assert json.loads(text(place, "FORMAT")).keys() == {"format", "id", "project"}
    cursor = json.loads(text(place, "cursor.json"))
    assert cursor["main"]["commit"] == "c" * 40
    assert f"Espalier-Tx: {cursor['main']['tx']}" in git(place, "log", "--format=%B", REF)
    heads = [json.loads(line) for line in text(place, f"heads/{hh}.jsonl").splitlines()]
    assert [(head["job"], head["line"], head["version"]) for head in heads] == [
        ("digits/mlp", None, 2),
        ("digits/mlp", "lr-scan", 1),
    ]
    (earlier,) = [json.loads(line) for line in text(place, f"{job}/versions.jsonl").splitlines()]
    assert earlier["spec_blob"] == git(place, "rev-parse", f"{REF}:{job}/open/v1/spec.yaml")
    assert earlier["trial_blobs"] == [git(place, "rev-parse", f"{REF}:{job}/open/v1/trials.jsonl")]
    (reusable,) = [json.loads(line) for line in text(place, f"{job}/reuse.jsonl").splitlines()]
    assert reusable["trial"] == f"digits/mlp+lr-scan@v1/{side.trials[0].id}"


def test_an_append_writes_the_files_that_changed_and_no_other(place: Path) -> None:
    ledger = ledger_of(place)
    base = ledger.append(ledger.found(), [Created(a_record(f"job-{n}")) for n in range(5)], "intent", "G")
    ledger.append(base, [Submitted("job-3", 1, {a_record().trials[0].id: (1, "h")})], "submitted", "G")
    changed = git(place, "diff-tree", "-r", "--name-only", "--no-commit-id", REF).splitlines()
    assert changed == [f"heads/{shard('job-3')}.jsonl", f"jobs/{shard('job-3')}/job-3/trials.jsonl"]


def test_a_sweep_of_more_than_a_thousand_trials_goes_on_in_further_files(place: Path) -> None:
    record = a_record(rates=tuple(n / 7 for n in range(2100)))
    ledger = ledger_of(place)
    base = ledger.append(ledger.found(), [Created(record)], "intent", "G")
    folder = f"jobs/{shard('digits/mlp')}/digits/mlp"
    counts = [len(text(place, f"{folder}/{name}.jsonl").splitlines()) for name in ("trials", "trials-2", "trials-3")]
    assert counts == [1000, 1000, 100]
    base = ledger.append(base, [ended(record)[1500]], "observed", "G")
    changed = git(place, "diff-tree", "-r", "--name-only", "--no-commit-id", REF, f"{folder}/trials*").splitlines()
    assert [path for path in changed if "trials" in path] == [f"{folder}/trials-2.jsonl"]
    base = ledger.append(base, over(record), "observed", "G")
    base = ledger.append(base, [Created(a_record(number=2))], "intent", "G")
    assert ledger.read(None) == base
    whole = ledger.version("digits/mlp", 1)
    assert whole is not None
    assert len(whole.trials) == 2100
    names = git(place, "ls-tree", "-r", "--name-only", REF)
    assert "trials-2" not in names


def test_git_log_tells_the_story_of_a_job(place: Path) -> None:
    ledger = ledger_of(place, **PERSON)
    base = ledger.append(ledger.found(), [Created(a_record())], "intent", "Ada <ada@example.org>")
    base = ledger.append(base, [Created(a_record("other"))], "intent", "Ada")
    base = ledger.append(base, ended(a_record()), "observed", "Ada")
    ledger.append(base, [Retired("digits/mlp", 1), Retired("other", 1)], "retired", "Ada")
    story = git(place, "log", "--format=%s", "espalier/ledger", "--", "jobs/*/digits/mlp/*")
    assert story.splitlines() == ["digits/mlp@v1: 2 succeeded", "digits/mlp@v1: new job (2 trials)"]
    trailers = git(place, "log", "-1", "--format=%(trailers:only,unfold)", REF).splitlines()
    assert trailers[:-1] == [
        "Espalier-Kind: retired",
        "Espalier-Job: digits/mlp",
        "Espalier-Version: 1",
        "Espalier-Job: other",
        "Espalier-Version: 1",
        "Espalier-Actor: Ada",
    ]
    assert re.fullmatch("Espalier-Tx: [0-9a-f]{32}", trailers[-1])
    assert "[skip ci]" in git(place, "log", "-1", "--format=%B", REF)
    assert git(place, "log", "-1", "--format=%an <%ae> %cn", REF) == "Grace <grace@example.org> Grace"


def test_no_foreign_text_reaches_the_trailers(place: Path) -> None:
    evil = "x\n\nEspalier-Kind: forged\r\nEspalier-Job: forged\u2028Espalier-Job: forged\n"
    ledger = ledger_of(place)
    ledger.append(ledger.found(), [Created(a_record(reason=evil, subject=evil, commit=evil))], f"intent{evil}", evil)
    keys = git(place, "log", "-1", "--format=%(trailers:key=Espalier-Job,valueonly)", REF).split()
    assert keys == ["digits/mlp"]
    assert git(place, "log", "-1", "--format=%B", REF).count("\nEspalier-Kind:") == 1


def test_a_user_without_an_identity_can_append(place: Path) -> None:
    git(place, "config", "user.useConfigOnly", "true")
    ledger_of(place).found()
    assert git(place, "log", "-1", "--format=%an <%ae>", REF) == "espalier <espalier@localhost>"


def test_an_append_leaves_everything_else_in_the_repository_alone(place: Path) -> None:
    (place / "a.txt").write_text("a", "utf-8")
    git(place, "add", "a.txt")
    git(place, "commit", "-qm", "one")
    (place / "a.txt").write_text("b", "utf-8")
    before = state(place)
    ledger = ledger_of(place)
    ledger.append(ledger.found(), [Created(a_record())], "intent", "G")
    assert state(place) == before
    assert leftovers(place) == []


def test_hooks_signing_and_odd_settings_of_the_user_do_not_matter(place: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("reference-transaction", "post-commit", "pre-commit", "commit-msg"):
        (hooks / name).write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/ran\nexit 1\n", "utf-8")
        (hooks / name).chmod(0o755)
    for key, value in {
        "core.hooksPath": str(hooks),
        "commit.gpgsign": "true",
        "gpg.program": "false",
        "gc.auto": "1",
        "fastimport.unpackLimit": "1",
        "core.autocrlf": "true",
        "core.quotePath": "true",
        "core.logAllRefUpdates": "always",
        "diff.noprefix": "true",
        "log.showSignature": "true",
        "core.abbrev": "4",
        "i18n.commitEncoding": "latin1",
    }.items():
        git(place, "config", key, value)
    ledger = ledger_of(place)
    after = ledger.append(ledger.found(), [Created(a_record())], "intent", "G")
    assert ledger_of(place).read(None) == after
    assert not (tmp_path / "ran").exists()


def test_the_callers_environment_does_not_lead_elsewhere(place: Path, tmp_path: Path) -> None:
    other = new_repo(tmp_path / "other")
    steered = {
        "GIT_DIR": str(other / ".git"),
        "GIT_WORK_TREE": str(other),
        "GIT_INDEX_FILE": str(other / "index"),
        "GIT_OBJECT_DIRECTORY": str(other / ".git/objects"),
        "GIT_NAMESPACE": "x",
        "GIT_COMMON_DIR": str(other / ".git"),
        "LC_ALL": "de_DE.UTF-8",
    }
    after = ledger_of(place, **steered).found()
    assert ledger_of(place).read() == after
    assert git(other, "for-each-ref") == ""


def test_worktrees_and_folders_of_a_repository_share_its_ledger(place: Path, tmp_path: Path) -> None:
    git(place, "commit", "-q", "--allow-empty", "-m", "one")
    git(place, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    (place / "below").mkdir()
    after = ledger_of(tmp_path / "tree").append(ledger_of(place).found(), [Created(a_record())], "intent", "G")
    assert ledger_of(place).read(None) == ledger_of(place / "below").read(None) == after


def test_a_fresh_clone_reads_the_ledger_of_its_remote_and_goes_on_from_it(place: Path, tmp_path: Path) -> None:
    first = ledger_of(place).append(ledger_of(place).found(), [Created(a_record())], "intent", "G")
    git(place, "update-ref", "refs/heads/espalier/ledger", REF)
    git(place, "commit", "-q", "--allow-empty", "-m", "one")
    git(tmp_path, "clone", "-q", str(place), "clone")
    clone = tmp_path / "clone"
    assert ledger_of(clone).read(None) == first
    after = ledger_of(clone).append(first, ended(a_record()), "observed", "G")
    assert git(clone, "rev-parse", f"{REF}^") == first.tip
    assert ledger_of(clone).read(None) == after
    ahead = ledger_of(place).append(first, [Created(a_record("b"))], "intent", "G")
    git(place, "update-ref", "refs/heads/espalier/ledger", REF)
    git(clone, "fetch", "-q")
    assert ledger_of(clone).read().tip == after.tip  # they have parted: ours stays ours
    git(clone, "update-ref", "-d", REF)
    git(clone, "update-ref", REF, str(first.tip))
    assert ledger_of(clone).read().tip == ahead.tip  # ahead of ours


def test_a_ledger_of_a_later_format_is_refused(place: Path) -> None:
    ledger_of(place).found()
    write_file(place, "FORMAT", '{"format": 2, "id": "x", "project": "digits"}\n')
    with pytest.raises(RejectedError, match="format 2"):
        ledger_of(place).read()


def test_a_ref_of_somebody_else_is_refused(place: Path) -> None:
    git(place, "commit", "-q", "--allow-empty", "-m", "one")
    git(place, "update-ref", REF, "HEAD")
    with pytest.raises(RejectedError, match="no ledger"):
        ledger_of(place).read()


def test_what_a_later_release_adds_to_a_line_stays_there(place: Path) -> None:
    ledger = ledger_of(place)
    names = ["digits/mlp", "digits/mlp+scan"]
    side = a_record(line="scan", base="digits/mlp@v1")
    ledger.append(ledger.found(), [Created(a_record()), Created(side)], "intent", "G")
    path = f"heads/{shard('digits/mlp')}.jsonl"
    write_file(place, path, text(place, path).replace('"job"', '"later":1,"job"') + "\n")
    ledger.append(ledger.read(), ended(side), "observed", "G")
    rows = [json.loads(line) for line in text(place, path).splitlines()]
    assert [(row["line"], "later" in row) for row in rows] == [(None, True), ("scan", False)]
    assert list(ledger.read(names).lines) == names


def test_a_ledger_that_cannot_be_read_names_the_file_and_the_line(place: Path) -> None:
    ledger = ledger_of(place)
    ledger.append(ledger.found(), [Created(a_record())], "intent", "G")
    path = f"heads/{shard('digits/mlp')}.jsonl"
    write_file(place, path, text(place, path) + "\n{}\n")
    with pytest.raises(RejectedError) as caught:
        ledger.read()
    assert (caught.value.file, caught.value.line, "fsck" in caught.value.hint) == (path, 2, True)


def test_a_ledger_that_was_made_anew_is_stale_for_those_who_knew_the_old_one(place: Path) -> None:
    base = ledger_of(place).found()
    git(place, "update-ref", "-d", REF)
    with pytest.raises(StaleError, match="gone"):
        ledger_of(place).append(base, [Created(a_record())], "intent", "G")
    ledger_of(place).found()
    with pytest.raises(StaleError, match="another one"):
        ledger_of(place).append(base, [Created(a_record())], "intent", "G")


def test_where_git_or_the_repository_is_missing_the_error_says_so(tmp_path: Path, place: Path) -> None:
    with pytest.raises(InputError, match="no git repository"):
        ledger_of(tmp_path).read()
    with pytest.raises(InputError, match="is not there"):
        ledger_of(tmp_path / "gone").read()
    with pytest.raises(InputError, match="git is not there"):
        ledger_of(place, PATH=str(tmp_path)).read()


def test_a_lock_that_a_killed_git_left_is_broken_once_it_is_old(place: Path) -> None:
    base = ledger_of(place).found()
    lock = place / ".git/refs/espalier/ledger.lock"
    lock.touch()
    os.utime(lock, (time.time() - 3600, time.time() - 3600))
    after = ledger_of(place).append(base, [Created(a_record())], "intent", "G")
    assert ledger_of(place).read(None) == after
    assert leftovers(place) == []


def test_a_version_whose_files_a_shallow_clone_lacks_is_unavailable(place: Path, tmp_path: Path) -> None:
    ledger = ledger_of(place)
    base = ledger.append(ledger.found(), [Created(a_record())], "intent", "G")
    base = ledger.append(base, over(a_record()), "observed", "G")
    base = ledger.append(base, [Created(a_record(number=2, rates=(0.7,)))], "intent", "G")
    ledger.append(base, over(a_record(number=2, rates=(0.7,))), "observed", "G")
    git(place, "update-ref", "refs/heads/espalier/ledger", REF)
    git(tmp_path, "clone", "-q", "--depth=1", "--branch=espalier/ledger", f"file://{place}", "clone")
    clone = ledger_of(tmp_path / "clone")
    assert clone.version("digits/mlp", 2) == ledger.version("digits/mlp", 2)
    with pytest.raises(UnavailableError, match="does not have"):
        clone.version("digits/mlp", 1)
    assert [p.message for p in check(tmp_path / "clone", environ=ENVIRON) if "key" not in p.message] == []


# Death


WRITER = """
import sys
from pathlib import Path
from espalier.core.events import Created
from espalier.ledger.gitref import GitLedger
from espalier.testing.ledger import a_record
from tests.builders import a_job
from tests.repos import ENVIRON
ledger = GitLedger(Path(sys.argv[1]), "digits", ENVIRON)
ledger.append(ledger.read(), [Created(a_record(name)) for name in sys.argv[2:]], "intent", "G")
"""
ROOT = Path(__file__).resolve().parents[2]


def writer(place: Path, *names: str, before: tuple[str, ...] = ()) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*before, sys.executable, "-c", WRITER, str(place), *names],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def survives(place: Path, names: list[str]) -> bool:
    """Check that the ledger is as it was or has all of ``names``, and can be written; return which."""
    snapshot = ledger_of(place).read(None)
    there = [name for name in names if name in snapshot.heads]
    assert there in ([], names)
    after = ledger_of(place).append(snapshot, [Retired(name, 1) for name in there], "retired", "G")
    assert ledger_of(place).read(None) == after
    git(place, "fsck", "--strict")
    assert leftovers(place) == []
    return bool(there)


@pytest.mark.needs("strace")
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.parametrize(
    ("who", "calls"),
    [
        ("the writer", "vfork,clone,clone3,fork"),  # before each git that it starts
        ("git", "rename,link,linkat,renameat"),  # before each change of the disk that another process can see
    ],
)
def test_a_death_at_any_step_leaves_the_old_ledger_or_the_new_one(place: Path, who: str, calls: str) -> None:
    ledger_of(place).found()
    lock = place / ".git/refs/espalier/ledger.lock"
    landed = []
    for number in range(1, 40):
        names = [f"job-{number}-{each}" for each in range(3)]
        inject = f"inject={calls}:signal=KILL:when={number}"
        strace = ("strace", "-qq", "-o", os.devnull, "-e", f"trace={calls}", "-e", inject)
        code = writer(place, *names, before=(*strace, "-f") if who == "git" else strace).wait(60)
        settled(place)
        if lock.exists():
            os.utime(lock, (0, 0))  # the next append breaks it, once it is old
            ledger = ledger_of(place)
            ledger.append(ledger.read(), [Created(a_record(f"after-{number}"))], "intent", "G")
        landed.append(survives(place, names))
        if code == 0:
            break
    assert landed[-1]  # every step was reached
    assert landed.count(False) >= 2


def test_a_writer_that_is_killed_at_any_moment_leaves_the_old_ledger_or_the_new_one(place: Path) -> None:
    ledger_of(place).found()
    landed = []
    for number in range(4):
        names = [f"job-{number}-{each}" for each in range(20)]
        process = writer(place, *names)
        objects = count_objects(place)
        while process.poll() is None and number % 2 and count_objects(place) == objects:
            pass  # until it begins to write
        if number % 3:
            process.send_signal(signal.SIGKILL)
        process.wait(60)
        settled(place)
        landed.append(survives(place, names))
    assert landed[0]
    assert landed[3]  # not killed


def count_objects(place: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(place / ".git/objects"))


def settled(place: Path) -> None:
    """Wait until no git works there, for one may outlive its writer; remove what git itself leaves to its gc."""
    wait_until(lambda: not any(works_in(place, process) for process in Path("/proc").glob("[0-9]*")))
    for temporary in (place / ".git").rglob("tmp_*"):
        shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()


def works_in(place: Path, process: Path) -> bool:
    try:
        return (process / "cwd").resolve() == place.resolve()
    except OSError:
        return False


def test_a_stream_that_is_cut_changes_nothing(place: Path) -> None:
    before = ledger_of(place).found()
    stream = f"feature done\ncommit {REF}\ncommitter a <a@b> 1 +0000\ndata 0\nfrom {before.tip}\n"
    stream += "M 100644 inline a\ndata 1\na\n"
    done = subprocess.run(
        ["git", "fast-import", "--done", "--quiet"], cwd=place, env=ENVIRON, input=stream.encode(), check=False
    )
    assert done.returncode != 0
    assert ledger_of(place).read() == before


def test_writers_in_processes_of_their_own_lose_nothing(place: Path) -> None:
    ledger_of(place).found()
    writers = [writer(place, f"a-{number}", f"b-{number}") for number in range(5)]
    assert [each.wait(120) for each in writers] == [0] * 5
    assert len(ledger_of(place).read().heads) == 10
    git(place, "fsck", "--strict")
    assert leftovers(place) == []


def test_an_end_that_is_observed_after_a_lost_race_is_not_lost(place: Path) -> None:
    record = a_record()
    ledger = ledger_of(place)
    base = ledger.append(ledger.found(), [Created(record)], "intent", "G")
    for number in range(3):
        ledger_of(place).append(ledger_of(place).read(), [Created(a_record(f"x-{number}"))], "intent", "G")
    after = ledger.append(base, [Observed("digits/mlp", 1, record.trials[0].id, 1, "failed")], "observed", "G")
    assert after.heads["digits/mlp"].counts.failed == 1
    assert len(after.heads) == 4


def test_of_two_first_applies_at_once_the_slower_one_is_stale_and_rewrites_nothing(place: Path) -> None:
    bench = Bench()
    bench.ledger = ledger_of(place)  # type: ignore[assignment]
    bench.commit(a_job())
    slower = plan_at(bench.world, "HEAD")
    bench.apply()
    before = text(place, f"heads/{shard('digits/mlp')}.jsonl")
    with pytest.raises(StaleError):
        apply_plan(bench.world, *slower, Options())
    assert text(place, f"heads/{shard('digits/mlp')}.jsonl") == before
    assert check(place, environ=ENVIRON) == []
