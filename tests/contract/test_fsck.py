"""What fsck finds: one damage each, made with git by hand."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from espalier.core.events import Created, CursorMoved, Intended, Intent, Observed
from espalier.core.model import Lease
from espalier.core.names import attempt_key, shard
from espalier.ledger.fsck import check
from espalier.ledger.gitref import GitLedger
from espalier.testing.ledger import LATER, NOW, PLACE, a_record, over
from tests.repos import ENVIRON, LEDGER, git, new_repo, write_file

JOB = "digits/mlp"
HH = shard(JOB)
HEADS, FOLDER = f"heads/{HH}.jsonl", f"jobs/{HH}/{JOB}"
AFTER = "2026-01-02T05:04:05.000Z"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with an ended version, a running one that was superseded, a last one with a lease, and a side line."""
    place = new_repo(tmp_path_factory.mktemp("template") / "place")
    ledger = GitLedger(place, "digits", ENVIRON)
    base = ledger.found()
    for number in (1, 2):
        record = a_record(number=number, sent=False)
        base = ledger.append(base, [Created(record), CursorMoved("main", "c" * 40)], "intent", "G")
        base = ledger.append(base, over(record), "observed", "G")
    base = ledger.append(base, [Created(a_record(number=3, sent=False))], "intent", "G")
    last = a_record(number=4, sent=False)
    side = a_record(line="scan", base=f"{JOB}@v1", sent=False)
    base = ledger.append(base, [Created(last), Created(side), Created(a_record("other", sent=False))], "intent", "G")
    one, two = (trial.id for trial in last.trials)
    keys = [attempt_key(base.ledger_id or "", JOB, None, 4, trial, 1) for trial in (one, two)]
    intents = (Intent(one, 1, keys[0], PLACE), Intent(two, 1, keys[1], PLACE))
    base = ledger.append(base, [Intended(JOB, 4, intents, Lease("me", 1, LATER))], "intent", "G")
    ledger.append(base, [Observed(JOB, 4, one, 1, "running")], "observed", "G")
    return place


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "place"))


def problems(place: Path, now: str | None = NOW) -> list[str]:
    found = check(place, now, ENVIRON)
    assert all(problem.hint for problem in found)
    return [problem.message for problem in found]


def text(place: Path, path: str) -> str:
    return git(place, "show", f"{LEDGER}:{path}") + "\n"


def change(place: Path, path: str, line: int, edit: Callable[[dict[str, Any]], object]) -> None:
    """Let ``edit`` change one row of a file of JSON lines."""
    lines = text(place, path).splitlines()
    row = json.loads(lines[line])
    edit(row)
    lines[line] = json.dumps(row)
    write_file(place, path, "\n".join(lines) + "\n")


def test_a_sound_ledger_has_no_problem(place: Path) -> None:
    assert problems(place) == []


def test_where_there_is_no_ledger_there_is_no_problem(tmp_path: Path) -> None:
    assert problems(new_repo(tmp_path / "empty")) == []


def test_an_intent_without_an_answer_and_without_a_valid_lease_is_named_and_how_to_send_it(place: Path) -> None:
    (problem,) = check(place, AFTER, ENVIRON)
    trial = a_record(number=4).trials[1].id
    assert problem.message.startswith(f"{JOB}@v4/{trial}: attempt 1 was intended")
    assert problem.hint == f"send or adopt it: espalier follow {JOB} --once"


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a commit that is not ours": (lambda p: write_file(p, "cursor.json", "{}", "hello"), "not made by espalier"),
    "an unknown path": (lambda p: write_file(p, "notes.txt", "x"), "'notes.txt' is no path of a ledger"),
    "a file of another kind": (lambda p: write_file(p, "cursor.json", "a", mode="120000"), "has mode 120000"),
    "an illegal job": (lambda p: write_file(p, f"jobs/{HH}/a b/spec.yaml", "{}"), "'a b' is not letters"),
    "an illegal side line": (lambda p: write_file(p, f"jobs/{HH}/a+B/spec.yaml", "{}"), "'B' is no name of a side"),
    "a job in another's folder": (lambda p: write_file(p, f"jobs/zz/{JOB}/spec.yaml", "{}"), "is no path of a ledger"),
    "a job in the wrong folder": (lambda p: write_file(p, f"jobs/00/{JOB}/spec.yaml", "{}"), f"its job's is {HH}"),
    "another id": (lambda p: write_file(p, "FORMAT", '{"format":1,"id":"x","project":"d"}'), "id changed from"),
    "a later format": (lambda p: write_file(p, "FORMAT", '{"format":2,"id":"x","project":"d"}'), "has format 2"),
    "a job that is gone": (lambda p: write_file(p, f"heads/{shard('other')}.jsonl", None), "other is gone"),
    "a version that went back": (lambda p: change(p, HEADS, 0, lambda r: r.update(version=3, parent=2)), "went back"),
    "a gap in the numbers": (lambda p: change(p, HEADS, 0, lambda r: r.update(version=6, parent=5)), "its last is v6"),
    "a wrong parent": (lambda p: change(p, HEADS, 0, lambda r: r.update(parent=2)), "@v4 has parent 2"),
    "a head that was rewritten": (lambda p: change(p, HEADS, 0, lambda r: r.update(author="x")), "@v4 was rewritten"),
    "a head in another's file": (
        lambda p: write_file(p, "heads/00.jsonl", text(p, HEADS)),
        "heads/00.jsonl, where it does not belong",
    ),
    "a head that is no JSON": (lambda p: write_file(p, HEADS, "{"), "cannot be read"),
    "a spec that was rewritten": (
        lambda p: write_file(p, f"{FOLDER}/spec.yaml", text(p, f"{FOLDER}/spec.yaml") + "secrets: [A]\n"),
        f"the spec of {JOB}@v4 was rewritten",
    ),
    "a spec with another digest": (
        lambda p: write_file(p, f"{FOLDER}/spec.yaml", text(p, f"{FOLDER}/spec.yaml") + "secrets: [A]\n"),
        f"{JOB}@v4: its spec has another digest",
    ),
    "an open spec that was rewritten": (
        lambda p: write_file(p, f"{FOLDER}/open/v3/spec.yaml", "command: [x]\n"),
        f"the spec of {JOB}@v3 was rewritten",
    ),
    "a spec that is no YAML": (lambda p: write_file(p, f"{FOLDER}/spec.yaml", "a: b: c"), "cannot be read"),
    "a spec that is gone": (lambda p: write_file(p, f"{FOLDER}/spec.yaml", None), "spec.yaml: the ledger cannot be"),
    "an open version that is gone": (lambda p: write_file(p, f"{FOLDER}/open/v3/version.json", None), "it is missing"),
    "an ended version that was rewritten": (
        lambda p: change(p, f"{FOLDER}/versions.jsonl", 0, lambda r: r.update(state="failed")),
        f"{JOB}@v1 was rewritten after it had ended",
    ),
    "an earlier version that is gone": (
        lambda p: write_file(p, f"{FOLDER}/versions.jsonl", text(p, f"{FOLDER}/versions.jsonl").split("\n", 1)[1]),
        f"{JOB}@v1 is gone",
    ),
    "another spec of an earlier version": (
        lambda p: change(p, f"{FOLDER}/versions.jsonl", 0, lambda r: r.update(spec_blob="0" * 40)),
        f"{JOB}@v1: its spec or its trials are not in this repository",
    ),
    "trials that the head counts otherwise": (
        lambda p: change(p, f"{FOLDER}/trials.jsonl", 1, lambda r: r.update(state="failed")),
        "not as its head counts them",
    ),
    "a trial with another's id": (
        lambda p: change(p, f"{FOLDER}/trials.jsonl", 1, lambda r: r["params"].update(lr=7)),
        "its id is not that of its parameters",
    ),
    "a key that is not the attempt's": (
        lambda p: change(p, f"{FOLDER}/trials.jsonl", 1, lambda r: r.update(attempt=2)),
        "its key is not that of attempt 2",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_is_found(place: Path, damage: str) -> None:
    make, message = DAMAGES[damage]
    make(place)
    found = problems(place)
    assert any(message in problem for problem in found), found


def test_a_merge_is_no_chain(place: Path) -> None:
    tree = git(place, "rev-parse", f"{LEDGER}^{{tree}}")
    both = git(place, "commit-tree", tree, "-p", LEDGER, "-p", f"{LEDGER}~2", "-m", "Espalier-Kind: x\nEspalier-Tx: y")
    git(place, "update-ref", LEDGER, both)
    assert any("not linear" in problem for problem in problems(place))


def test_a_first_commit_without_format_is_no_ledger(tmp_path: Path) -> None:
    place = new_repo(tmp_path / "place")
    git(place, "commit", "-q", "--allow-empty", "-m", "one")
    git(place, "update-ref", LEDGER, "HEAD")
    assert any("the first commit has no FORMAT" in problem for problem in problems(place))


def test_checking_changes_nothing(place: Path) -> None:
    before = git(place, "for-each-ref")
    problems(place)
    assert git(place, "for-each-ref") == before
