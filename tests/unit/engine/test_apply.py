"""Carrying a plan out: what is refused before anything is recorded, what is recorded, what is sent."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from espalier.core.errors import InputError, RejectedError, StaleError, UnavailableError
from espalier.core.model import Data, JobError, Policy
from espalier.core.names import attempt_key
from espalier.core.plan import Plan
from espalier.engine.apply import Options, apply_plan, check_saved, plan_at
from espalier.ledger.gitref import GitLedger
from tests.builders import a_job
from tests.unit.engine.parts import Bench

BROKEN = JobError("broken", "bad", "mend it", "conf/job/broken.yaml", 1)


def untouched(bench: Bench) -> bool:
    return not bench.ledger.store.appends and not bench.backend.launches and not bench.tracker.runs


def test_one_append_has_all_intents_and_one_all_handles_whatever_the_number_of_jobs() -> None:
    bench = Bench()
    bench.commit(*(a_job(f"job{n}") for n in range(20)))
    bench.apply()
    assert [kind for kind, _ in bench.ledger.store.appends] == ["intent", "submitted"]
    assert len(bench.backend.launches) == 20


def test_an_attempt_is_sent_under_its_key_with_its_run() -> None:
    bench = Bench()
    bench.commit(a_job())
    bench.apply()
    record = bench.last()
    (trial,) = record.trials
    ledger_id = bench.ledger.read().ledger_id
    assert ledger_id
    assert trial.key == attempt_key(ledger_id, "digits/mlp", None, 1, trial.id, 1)
    launch = bench.backend.launches[trial.key]
    assert (launch.variables["MLFLOW_RUN_ID"], trial.handle) == (trial.run_id, trial.key)
    assert (record.version.run_id, record.version.state) == (trial.run_id, "running")


def test_the_trials_of_a_sweep_have_runs_of_their_own_below_the_versions() -> None:
    bench = Bench()
    bench.commit(a_job(grid={"lr": (0.1, 0.01)}))
    bench.apply()
    record = bench.last()
    assert len({record.version.run_id, *(trial.run_id for trial in record.trials)}) == 3
    assert {bench.tracker.runs[trial.run_id or ""].parent for trial in record.trials} == {record.version.run_id}


def test_applying_the_same_commit_again_does_nothing() -> None:
    bench = Bench()
    bench.finish(a_job())
    appends = len(bench.ledger.store.appends)
    applied = bench.apply()
    assert (applied.started, applied.versions) == (False, (("digits/mlp", 1),))
    assert len(bench.ledger.store.appends) == appends


def test_errors_refuse_the_whole_apply_unless_they_are_skipped() -> None:
    bench = Bench()
    bench.commit(a_job(), errors=(BROKEN,))
    with pytest.raises(InputError, match="broken"):
        bench.apply()
    assert untouched(bench)
    bench.apply(skip_errors=True)
    assert len(bench.backend.launches) == 1
    assert bench.ledger.read().cursor == {}  # the commit is not reconciled


def test_a_mass_retirement_is_refused_before_anything_is_recorded() -> None:
    bench = Bench()
    bench.finish(a_job())
    appends = list(bench.ledger.store.appends)
    bench.commit()
    with pytest.raises(RejectedError, match="would retire"):
        bench.apply()
    assert bench.ledger.store.appends == appends
    bench.apply(allow_retire=True)
    assert bench.last().version.retired
    assert bench.actions() == []


def test_a_variable_that_is_not_set_is_named_before_anything_is_recorded() -> None:
    bench = Bench()
    bench.commit(a_job(secrets=("HF_TOKEN",)))
    with pytest.raises(InputError, match="HF_TOKEN"):
        bench.apply()
    assert untouched(bench)
    bench.environ["HF_TOKEN"] = "x"
    bench.apply()
    assert len(bench.backend.launches) == 1


def test_a_tracker_that_is_away_refuses_before_anything_is_recorded() -> None:
    bench = Bench()
    bench.commit(a_job())
    bench.tracker.down = True
    with pytest.raises(UnavailableError):
        bench.apply()
    assert untouched(bench)


def test_a_place_that_is_away_leaves_the_attempt_intended_and_the_next_apply_sends_it_once() -> None:
    bench = Bench()
    bench.commit(a_job())
    bench.backend.down = True
    with pytest.raises(UnavailableError):
        bench.apply()
    assert bench.actions() == ["resume"]
    bench.backend.down = False
    bench.apply()
    assert bench.follow().heads["digits/mlp"].state == "succeeded"
    assert len(bench.backend.launches) == 1


def test_a_definite_refusal_is_recorded_as_failed_and_not_retried_by_policy() -> None:
    bench = Bench()
    bench.commit(a_job(policy=Policy(retries=3)))
    bench.backend.refuses = "64 GPUs are more than there are"
    bench.apply()
    (trial,) = bench.last().trials
    assert (trial.state, trial.message) == ("failed", "64 GPUs are more than there are (ask for less)")
    bench.follow()
    assert bench.actions() == ["keep"]


def test_raised_retries_are_recorded_and_used() -> None:
    bench = Bench()
    failing = a_job(command=("python", "-c", "sys.exit(3)"))
    bench.finish(failing)
    assert bench.actions() == ["keep"]
    bench.finish(replace(failing, policy=Policy(retries=1)))
    (trial,) = bench.last().trials
    assert (trial.attempt, trial.retried, bench.last().version.policy.retries) == (2, 1, 1)


def test_a_saved_plan_is_stale_once_a_record_that_it_touches_moved() -> None:
    bench = Bench()
    bench.commit(a_job())
    _, saved, _ = plan_at(bench.world, "HEAD")
    check_saved(bench.world, saved)
    bench.apply()
    with pytest.raises(StaleError, match="stale"):
        check_saved(bench.world, saved)


def test_a_saved_plan_survives_what_moves_elsewhere() -> None:
    bench = Bench()
    bench.finish(a_job("a"))
    bench.commit(a_job("a"), a_job("b"))
    _, saved, _ = plan_at(bench.world, "HEAD")
    bench.apply(globs=("a",))
    assert check_saved(bench.world, saved)[1].actions == saved.actions


@pytest.mark.parametrize("other", [{"commit": "f" * 40}, {"ledger_id": "another"}])
def test_a_plan_of_another_repository_is_not_ours(other: dict[str, str]) -> None:
    bench = Bench()
    bench.finish(a_job())
    _, saved, _ = plan_at(bench.world, "HEAD")
    strange: Plan = replace(saved, **other)  # type: ignore[arg-type]
    with pytest.raises(RejectedError):
        check_saved(bench.world, strange)


def test_the_loser_of_a_race_on_one_job_is_stale_and_reaches_neither_backend_nor_tracker() -> None:
    bench = Bench()
    bench.commit(a_job())
    found, plan, snapshot = plan_at(bench.world, "HEAD")
    bench.apply()
    sent, runs = dict(bench.backend.launches), dict(bench.tracker.runs)
    with pytest.raises(StaleError):
        apply_plan(bench.world, found, plan, snapshot, Options())
    assert (bench.backend.launches, bench.tracker.runs) == (sent, runs)


def test_the_loser_of_a_race_for_the_first_version_of_a_git_ledger_is_stale(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    bench = Bench()
    bench.ledger = GitLedger(tmp_path, "digits")  # type: ignore[assignment]
    bench.commit(a_job())
    found, plan, snapshot = plan_at(bench.world, "HEAD")
    bench.apply()
    with pytest.raises(StaleError):
        apply_plan(bench.world, found, plan, snapshot, Options())
    assert len(bench.backend.launches) == 1


def test_an_older_commit_is_behind_and_applies_nothing() -> None:
    bench = Bench()
    bench.finish(a_job(params={"hidden": 1}))
    older = bench.source.resolve("HEAD").id
    bench.finish(a_job(params={"hidden": 2}))
    _, plan, _ = plan_at(bench.world, older)
    assert plan.behind
    assert bench.apply(older).versions == ()
    assert bench.last().version.version == 2


def test_retiring_ends_what_is_queued_and_lets_what_runs_go_on() -> None:
    bench = Bench()
    bench.commit(a_job(grid={"lr": (0.1, 0.2)}))
    bench.apply()
    running, queued = bench.last().trials
    bench.backend.start(running.key or "")
    from espalier.engine.follow import one_pass

    one_pass(bench.world)
    bench.commit()
    bench.apply(allow_retire=True)
    one_pass(bench.world)
    assert bench.backend.cancelled == [queued.key]
    bench.follow()
    assert [trial.state for trial in bench.last().trials] == ["succeeded", "cancelled"]


def test_unpinned_data_runs_again_in_a_new_version() -> None:
    bench = Bench()
    data = {"eval": Data(uri="gs://bucket/eval")}
    bench.finish(a_job(data=data))
    bench.finish(a_job(data=data, grace_s=60.0))
    assert len(bench.backend.launches) == 2
