"""The contract of a Tracker, as a suite: subclass ``TrackerContract`` with the fixtures it names."""

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from espalier.core.model import Artifacts, Json, Objective, Spec, State, Sweep, Trial, Version
from espalier.core.names import run_key
from espalier.core.ports import Report, Subject, Tracker
from espalier.testing.memory import STATUS, Shown

Look = Callable[[str], Shown]
CREATED = "2026-01-02T03:04:05Z"
ENDED = "2026-01-02T03:05:05Z"
LEDGER = "11111111-2222-3333-4444-555555555555"


def version(job: str, number: int = 1, **more: object) -> Version:
    """Return a version of ``job`` as a tracker is shown it."""
    made = Version(
        job=job,
        line=None,
        version=number,
        parent=number - 1 or None,
        base=None,
        digest="d" * 64,
        scheme=1,
        commit="c" * 40,
        subject="Try a wider layer",
        author="Ada Lovelace <ada@example.invalid>",
        actor="ada",
        reason="new job",
        created_at=CREATED,
        backend="local",
    )
    return replace(made, **more)  # type: ignore[arg-type]


def trial(lr: Json, **more: object) -> Trial:
    """Return a queued trial with a learning rate of ``lr``."""
    from espalier.core.content import trial_id

    params: dict[str, Json] = {"hidden": 64, "lr": lr}
    return replace(Trial(trial_id(params), params, "c" * 64, "s" * 64), **more)  # type: ignore[arg-type]


def subjects(of: Version, trials: Sequence[Trial], *, sweep: bool = True) -> list[Subject]:
    """Return the subject of a version and those of its trials; without a sweep the one of both."""
    space = Sweep(params={"lr": (0.1, 0.01)}, objective=Objective("accuracy", "maximize")) if sweep else None
    spec = Spec(command=("python", "train.py"), params={"hidden": 64, "lr": 0.1}, sweep=space)

    def subject(part: Trial | None) -> Subject:
        key = run_key(LEDGER, of.job, of.line, of.version, part.id if part and sweep else None)
        return Subject(
            key, LEDGER, f"contract/{of.job}", of, spec, trial=part, trials=trials, swept=("lr",) if sweep else ()
        )

    return [subject(None), *map(subject, trials)] if sweep else [subject(trials[0])]


def spool(folder: Path, points: Sequence[tuple[str, int, float | str]], name: str = "spool.jsonl") -> str:
    """Write (metric, step, value) as a file of metrics with fixed times; return its path."""
    file = folder / name
    lines = [
        json.dumps({"key": key, "value": value, "step": step, "timestamp": 1767323045000 + at})
        for at, (key, step, value) in enumerate(points)
    ]
    file.write_text("".join(line + "\n" for line in lines), "utf-8")
    return str(file)


class TrackerContract:
    """Subclass it with the fixtures ``tracker`` (one store may serve all tests) and ``look`` (a run by its id)."""

    @pytest.fixture
    def job(self) -> str:
        return f"vision/net-{uuid.uuid4().hex[:12]}"

    def test_a_store_that_is_there_can_be_probed(self, tracker: Tracker) -> None:
        tracker.probe()

    def test_opening_twice_gives_the_same_runs(self, tracker: Tracker, job: str) -> None:
        wanted = subjects(version(job), [trial(0.1), trial(0.01)])
        first, second = tracker.open(wanted), tracker.open(wanted)
        assert first == second
        assert set(first) == {subject.key for subject in wanted}
        assert len(set(first.values())) == 3

    def test_a_version_shows_its_trials_as_children(self, tracker: Tracker, look: Look, job: str) -> None:
        whole, one, _ = wanted = subjects(version(job), [trial(0.1), trial(0.01)])
        runs = tracker.open(wanted)
        shown, child = look(runs[whole.key]), look(runs[one.key])
        assert (shown.name, shown.status, shown.parent) == (f"{job}@v1", "RUNNING", None)
        assert (child.name, child.status, child.parent) == ("v1 lr=0.1", "SCHEDULED", runs[whole.key])
        assert child.params == {"hidden": "64", "lr": "0.1"}

    def test_a_child_finds_its_version_that_was_opened_before(self, tracker: Tracker, look: Look, job: str) -> None:
        whole, one = subjects(version(job), [trial(0.1)])
        runs = {**tracker.open([whole]), **tracker.open([one])}
        assert look(runs[one.key]).parent == runs[whole.key]

    def test_a_version_without_a_sweep_is_one_run(self, tracker: Tracker, look: Look, job: str) -> None:
        (both,) = subjects(version(job), [trial(0.1)], sweep=False)
        shown = look(tracker.open([both])[both.key])
        assert (shown.name, shown.status, shown.parent) == (f"{job}@v1", "SCHEDULED", None)
        assert shown.params == {"hidden": "64", "lr": "0.1"}
        assert shown.tags["espalier.version"] == "1"
        assert both.trial is not None
        assert shown.tags["espalier.trial"] == both.trial.id

    def test_tags_say_where_a_run_comes_from(self, tracker: Tracker, look: Look, job: str) -> None:
        _, one = wanted = subjects(version(job), [trial(0.1, attempt=2)])
        tags = look(tracker.open(wanted)[one.key]).tags
        assert one.trial is not None
        expected = {
            "espalier.key": one.key,
            "espalier.ledger": LEDGER,
            "espalier.job": job,
            "espalier.version": "1",
            "espalier.digest": "d" * 64,
            "espalier.commit": "c" * 40,
            "espalier.trial": one.trial.id,
            "espalier.attempt": "2",
        }
        assert expected.items() <= tags.items()
        assert "espalier.line" not in tags
        assert "espalier.parent" not in tags

    def test_variables_lead_a_program_to_its_run(self, tracker: Tracker, job: str) -> None:
        (both,) = subjects(version(job), [trial(0.1)], sweep=False)
        run_id = tracker.open([both])[both.key]
        found = tracker.variables(run_id)
        assert found["MLFLOW_RUN_ID"] == run_id
        assert found["MLFLOW_EXPERIMENT_ID"]
        assert found["MLFLOW_TRACKING_URI"]

    def test_metrics_arrive_while_it_runs_and_once(
        self, tracker: Tracker, look: Look, job: str, tmp_path: Path
    ) -> None:
        (both,) = subjects(version(job), [trial(0.1)], sweep=False)
        run_id = tracker.open([both])[both.key]
        points: list[tuple[str, int, float | str]] = [("loss", 0, 0.9), ("loss", 1, 0.5)]
        report = Report("running", started_at=CREATED, metrics=spool(tmp_path, points))
        tracker.log(run_id, report, 1)
        assert look(run_id).status == "RUNNING"
        spool(tmp_path, [*points, ("loss", 2, 0.25)])
        tracker.log(run_id, report, 1)
        tracker.log(run_id, report, 1)
        shown = look(run_id)
        assert sorted(shown.points) == [("loss", 0, 0.9), ("loss", 1, 0.5), ("loss", 2, 0.25)]
        assert shown.metrics["loss"] == 0.25

    @pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "lost"])
    def test_the_final_status_is_the_state(
        self, tracker: Tracker, look: Look, job: str, state: State, tmp_path: Path
    ) -> None:
        (both,) = subjects(version(job), [trial(0.1, attempt=1)], sweep=False)
        run_id = tracker.open([both])[both.key]
        log = tmp_path / "log"
        log.write_text("it went on\n")
        report = Report("running", ended_at=ENDED, metrics=spool(tmp_path, [("loss", 0, 0.5)]), log=str(log))
        metrics = tracker.close(both, run_id, report, state, Artifacts())
        assert metrics == {"loss": 0.5}
        shown = look(run_id)
        assert shown.status == STATUS[state]
        assert shown.artifacts["espalier/log.txt"] == "it went on\n"

    def test_closing_twice_changes_nothing(self, tracker: Tracker, look: Look, job: str, tmp_path: Path) -> None:
        (both,) = subjects(version(job), [trial(0.1, attempt=1)], sweep=False)
        run_id = tracker.open([both])[both.key]
        report = Report("succeeded", ended_at=ENDED, metrics=spool(tmp_path, [("loss", 0, 0.5), ("loss", 1, 0.4)]))
        first = tracker.close(both, run_id, report, "succeeded", Artifacts())
        seen = look(run_id)
        assert tracker.close(both, run_id, report, "succeeded", Artifacts()) == first
        assert look(run_id) == seen

    def test_a_further_attempt_goes_on_in_the_same_run(
        self, tracker: Tracker, look: Look, job: str, tmp_path: Path
    ) -> None:
        (both,) = subjects(version(job), [trial(0.1, attempt=1)], sweep=False)
        run_id = tracker.open([both])[both.key]
        first = Report("failed", metrics=spool(tmp_path, [("loss", 0, 0.5)], "1.jsonl"))
        tracker.close(both, run_id, first, "failed", Artifacts())
        assert both.trial is not None
        again = replace(both, trial=replace(both.trial, attempt=2, state="queued"))
        assert tracker.open([again])[both.key] == run_id
        assert look(run_id).status == "SCHEDULED"
        second = Report("running", metrics=spool(tmp_path, [("loss", 1, 0.4)], "2.jsonl"))
        tracker.log(run_id, second, 2)
        assert look(run_id).status == "RUNNING"
        assert look(run_id).tags["espalier.attempt"] == "2"
        tracker.close(again, run_id, second, "succeeded", Artifacts())
        shown = look(run_id)
        assert shown.status == "FINISHED"
        assert sorted(shown.points) == [("loss", 0, 0.5), ("loss", 1, 0.4)]

    def test_a_reused_trial_is_whole_when_opened(self, tracker: Tracker, look: Look, job: str) -> None:
        taken = trial(0.1, state="reused", metrics={"accuracy": 0.5}, reused_from=f"{job}@v1/0123456789ab")
        _, one = wanted = subjects(version(job, 2), [taken])
        run_id = tracker.open(wanted)[one.key]
        shown = look(run_id)
        assert shown.status == "FINISHED"
        assert shown.metrics == {"accuracy": 0.5}
        assert shown.tags["espalier.reused_from"] == f"{job}@v1/0123456789ab"
        assert tracker.close(one, run_id, None, "reused", Artifacts()) == {"accuracy": 0.5}
        assert look(run_id).status == "FINISHED"

    def test_numbers_that_are_none_come_back(self, tracker: Tracker, job: str, tmp_path: Path) -> None:
        (both,) = subjects(version(job), [trial(0.1)], sweep=False)
        run_id = tracker.open([both])[both.key]
        points: list[tuple[str, int, float | str]] = [("a", 7, "NaN"), ("b", 0, "Infinity"), ("c", 0, "-Infinity")]
        report = Report("succeeded", ended_at=ENDED, metrics=spool(tmp_path, points))
        metrics = tracker.close(both, run_id, report, "succeeded", Artifacts())
        assert metrics["a"] != metrics["a"]
        assert (metrics["b"], metrics["c"]) == (float("inf"), float("-inf"))

    def test_any_name_of_a_metric_comes_back(self, tracker: Tracker, job: str, tmp_path: Path) -> None:
        (both,) = subjects(version(job), [trial(0.1)], sweep=False)
        run_id = tracker.open([both])[both.key]
        names = ["acc@5", "a//b", "/a", "../a", "a[0]", "+x", "50%", "a_x40_b", "naïve loss", "val/loss"]
        report = Report("succeeded", ended_at=ENDED, metrics=spool(tmp_path, [(name, 0, 1.5) for name in names]))
        assert tracker.close(both, run_id, report, "succeeded", Artifacts()) == dict.fromkeys(names, 1.5)
