"""The ledger as git has it: what lies where, what commits say, and that fsck finds it sound. Reads with git alone."""

import hashlib
import json
import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import NewDesk
from tests.e2e.desk import GATED, Desk, finish
from tests.e2e.test_apply import TRIAL_KEYS, VERSION_KEYS, gates, open_gate
from tests.wait import wait_until

LEDGER = "refs/espalier/ledger"
JOB = "digits/mlp"


def shard(job: str) -> str:
    return hashlib.sha256(job.encode()).hexdigest()[:2]


def below(job: str) -> str:
    return f"jobs/{shard(job)}/{job}"


def names(desk: Desk) -> list[str]:
    return desk.repo.git("ls-tree", "-r", "--name-only", LEDGER).splitlines()


def trailers(message: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(Espalier-[A-Za-z]+): (.*)$", message, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


@pytest.fixture(scope="module")
def kept(new_desk: NewDesk) -> Desk:
    """A swept job at its third version, a failed one, and one that was retired."""
    swept = "command: sh t.sh\ncode: [t.sh]\nsweep: {params: {a: 'choice(1,2)'}}\n"
    desk = new_desk(
        {JOB: swept, "bad": "command: sh bad.sh\ncode: [bad.sh]\n", "old": "command: sh t.sh\ncode: [t.sh]\n"},
        {"t.sh": "echo done\n", "bad.sh": "exit 4\n"},
    )
    desk.run("apply", code=3)
    for number, values in ((2, "choice(1,2,3)"), (3, "choice(1,2)")):
        desk.job(JOB, swept.replace("choice(1,2)", values))
        if number == 3:
            desk.repo.remove("conf/job/old.yaml")
        desk.repo.commit(f"Number {number}")
        desk.run("apply")
    return desk


def test_it_is_a_chain_of_commits_that_lies_among_no_branches(kept: Desk) -> None:
    assert "ledger" not in kept.repo.git("branch", "--list", "--all")
    assert kept.repo.git("log", "--format=%H", "espalier/ledger") == kept.repo.git("log", "--format=%H", LEDGER)
    parents = kept.repo.git("log", "--format=%P", LEDGER).splitlines()
    assert all(len(line.split()) <= 1 for line in parents)
    assert parents.count("") <= 1


def test_each_commit_says_what_it_is_about_in_trailers(kept: Desk) -> None:
    messages = kept.repo.git("log", "--reverse", "--format=%B%x00", LEDGER).split("\0")[:-1]
    told = [trailers(message) for message in messages]
    kinds = [one["Espalier-Kind"][0] for one in told if "Espalier-Kind" in one]
    assert set(kinds) <= {"founded", "intent", "submitted", "observed", "retired"}
    first = next(one for one in told if one.get("Espalier-Kind") == ["intent"])
    assert first["Espalier-Job"] == ["bad", JOB, "old"]
    assert first["Espalier-Version"] == ["1", "1", "1"]
    assert first["Espalier-Source"] == [kept.repo.git("rev-parse", "HEAD~2")]
    assert first["Espalier-Actor"] == ["Tess Ter <tess@example.invalid>"]
    transactions = [one["Espalier-Tx"][0] for one in told]
    assert len(set(transactions)) == len(transactions)
    story = kept.repo.git("log", "--format=%B", LEDGER, "--", "jobs/*/digits/mlp/*")
    assert f"Espalier-Job: {JOB}" in story
    assert len(kinds) <= 12, "the number of commits does not grow with the jobs of a pass"


def test_the_files_are_those_of_the_contract(kept: Desk) -> None:
    job, bad, old = below(JOB), below("bad"), below("old")
    assert set(names(kept)) == {
        *("FORMAT", "cursor.json"),
        *(f"heads/{shard(name)}.jsonl" for name in (JOB, "bad", "old")),
        *(f"{job}/{name}" for name in ("spec.yaml", "trials.jsonl", "versions.jsonl", "reuse.jsonl")),
        *(f"{bad}/{name}" for name in ("spec.yaml", "trials.jsonl")),
        *(f"{old}/{name}" for name in ("spec.yaml", "trials.jsonl", "reuse.jsonl")),
    }
    form = json.loads(kept.ledger("FORMAT"))
    assert set(form) == {"format", "id", "project"}
    assert form["format"] == 1
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", form["id"])
    cursor = json.loads(kept.ledger("cursor.json"))
    assert set(cursor) == {"main"}
    assert cursor["main"]["commit"] == kept.repo.git("rev-parse", "HEAD")
    assert f"Espalier-Tx: {cursor['main']['tx']}" in kept.repo.git("log", "--format=%B", LEDGER)


def test_a_head_is_the_last_version_and_all_that_planning_reads(kept: Desk) -> None:
    [head] = [row for row in kept.rows(f"heads/{shard(JOB)}.jsonl") if row["job"] == JOB]
    assert list(head)[: len(VERSION_KEYS)] == VERSION_KEYS
    assert (head["version"], head["parent"], head["scheme"], head["tracked"]) == (3, 2, 1, True)
    assert set(head["policy"]) == {"retries", "recoveries", "max_failures", "on_supersede", "reuse"}
    assert set(head["lease"]) == {"owner", "epoch", "until"}
    assert (head["unanswered"], head["retryable"]) == (0, 0)
    [bad] = [row for row in kept.rows(f"heads/{shard('bad')}.jsonl") if row["job"] == "bad"]
    assert (bad["state"], bad["exit_code"]) == ("failed", 4)
    [old] = [row for row in kept.rows(f"heads/{shard('old')}.jsonl") if row["job"] == "old"]
    assert (old["state"], old["retired"]) == ("succeeded", True)


def test_trials_results_and_earlier_versions_are_lines_of_json(kept: Desk) -> None:
    trials = kept.rows(f"{below(JOB)}/trials.jsonl")
    shown = kept.json("show", JOB)["trials"]
    more = {"content", "key", "place", "retried", "recovered", "waits_for", "cancel_requested_at", "tracked"}
    for trial, one in zip(trials, shown, strict=True):
        assert list(trial)[: len(TRIAL_KEYS)] == TRIAL_KEYS
        assert more | {"tracking_uri"} <= set(trial)
        assert {key: trial[key] for key in TRIAL_KEYS} == {key: one[key] for key in TRIAL_KEYS}
    [bad] = kept.rows(f"{below('bad')}/trials.jsonl")
    ledger_id = json.loads(kept.ledger("FORMAT"))["id"]
    key = hashlib.sha256("\n".join([ledger_id, "bad", "1", bad["id"], "1"]).encode()).hexdigest()[:40]
    assert (bad["key"], bad["handle"], bad["attempt"]) == (key, key, 1)
    assert bad["place"].endswith(f":{kept.state / 'queue.sqlite'}")
    reuse = kept.rows(f"{below(JOB)}/reuse.jsonl")
    assert len(reuse) == 3
    assert all(JOB in json.dumps(row) for row in reuse)
    earlier = kept.rows(f"{below(JOB)}/versions.jsonl")
    assert [row["version"] for row in earlier] == [1, 2]
    assert [row["state"] for row in earlier] == ["succeeded", "succeeded"]
    blobs = [value for value in earlier[0].values() if isinstance(value, str) and re.fullmatch("[0-9a-f]{40}", value)]
    assert any(kept.repo.git("cat-file", "-t", blob) == "blob" for blob in blobs), "the blob id of its spec"


def test_a_spec_is_canonical_and_its_digest_can_be_had_without_us(kept: Desk) -> None:
    spec = yaml.safe_load(kept.ledger(f"{below(JOB)}/spec.yaml"))
    assert set(spec) == {"command", "code", "sweep"}, "nothing that equals its default"
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == kept.json("show", JOB)["digest"]
    assert spec["code"] == {"t.sh": kept.repo.git("rev-parse", "HEAD:t.sh")}
    trial = kept.json("show", JOB)["trials"][0]
    assert hashlib.sha256(b'{"a":1}').hexdigest()[:12] == trial["id"]


def test_fsck_finds_it_sound_and_says_what_is_not(kept: Desk, new_desk: NewDesk) -> None:
    assert kept.json("fsck") == {"format": 1, "ok": True, "problems": []}
    desk = new_desk({"a": "command: sh t.sh\ncode: [t.sh]\n"}, {"t.sh": "echo\n"})
    assert desk.json("fsck")["ok"] is True
    desk.run("apply")
    tree = stray(desk)
    commit = desk.repo.git("commit-tree", tree, "-p", LEDGER, "-m", "by hand")
    desk.repo.git("update-ref", LEDGER, commit)
    found = desk.json("fsck", code=1)
    assert (found["format"], found["ok"]) == (1, False)
    assert all(set(problem) == {"message", "hint"} for problem in found["problems"])
    assert any("stray.txt" in problem["message"] for problem in found["problems"])


def stray(desk: Desk) -> str:
    """Return a tree like the ledger's with a file that nobody knows."""
    desk.repo.write("stray.txt", "hello\n")
    blob = desk.repo.git("hash-object", "-w", "stray.txt")
    index = {"GIT_INDEX_FILE": str(desk.state / "index")}
    for words in (["read-tree", LEDGER], ["update-index", "--add", "--cacheinfo", f"100644,{blob},stray.txt"]):
        subprocess.run(["git", *words], cwd=desk.path, env={**desk.environ, **index}, check=True)
    done = subprocess.run(
        ["git", "write-tree"], cwd=desk.path, env={**desk.environ, **index}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_a_superseded_version_lies_below_open_while_it_runs(new_desk: NewDesk) -> None:
    text = "command: python gate.py\ncode: [gate.py]\nresources: {cpus: 0.1}\n"
    desk = new_desk({"a": f"{text}params: {{a: 1}}\n"}, {"gate.py": GATED})
    desk.run("apply", "--no-wait")
    wait_until(lambda: gates(desk), within_s=60)
    desk.job("a", f"{text}params: {{a: 2}}\n")
    desk.repo.commit("Supersede it")
    desk.run("apply", "--no-wait")
    folder = f"{below('a')}/open/v1"
    assert {f"{folder}/version.json", f"{folder}/spec.yaml", f"{folder}/trials.jsonl"} <= set(names(desk))
    version: Any = json.loads(desk.ledger(f"{folder}/version.json"))
    assert (version["version"], version["state"]) == (1, "running")
    assert desk.json("show", "a@v1")["state"] == "running"
    open_gate(desk)
    finish(desk.start("follow"))
    assert desk.json("show", "a@v1")["state"] == "succeeded"
    [earlier] = desk.rows(f"{below('a')}/versions.jsonl")
    assert (earlier["version"], earlier["state"]) == (1, "succeeded")
    assert desk.json("fsck")["ok"] is True


def test_a_newer_format_is_refused_with_a_clear_message(new_desk: NewDesk) -> None:
    desk = new_desk({"a": "command: sh t.sh\ncode: [t.sh]\n"}, {"t.sh": "echo\n"})
    blob = desk.repo.path / "FORMAT.new"
    blob.write_text('{"format": 99, "id": "x", "project": "p"}')
    made = desk.repo.git("hash-object", "-w", str(blob))
    blob.unlink()
    tree = subprocess.run(
        ["git", "mktree"],
        cwd=desk.path,
        input=f"100644 blob {made}\tFORMAT\n",
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    desk.repo.git("update-ref", LEDGER, desk.repo.git("commit-tree", tree, "-m", "newer"))
    for words in (["status"], ["plan"], ["apply"]):
        assert "99" in desk.refused(*words)
