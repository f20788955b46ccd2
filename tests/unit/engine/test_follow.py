"""Looking after what was applied: ends, further attempts, waiting trials, and MLflow that is away."""

from pathlib import Path

import pytest

from espalier.core.errors import InputError
from espalier.core.model import Policy
from espalier.core.names import Target
from espalier.core.ports import Launch
from espalier.engine import act
from espalier.engine.follow import one_pass
from espalier.testing.fakes import Ending, FakeBackend
from tests.builders import a_job
from tests.unit.engine.parts import Bench


def fails_first(launch: Launch) -> Ending:
    return Ending("failed", 1, "boom") if launch.attempt == 1 else Ending()


def test_ends_and_last_metrics_are_recorded_after_mlflow_was_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda _: Ending(metrics={"score": 0.9}))
    snapshot = bench.finish(a_job())
    (trial,) = bench.last().trials
    assert (trial.state, trial.tracked, trial.metrics) == ("succeeded", True, {"score": 0.9})
    assert (snapshot.heads["digits/mlp"].state, snapshot.heads["digits/mlp"].tracked) == ("succeeded", True)
    assert bench.tracker.runs[trial.run_id or ""].status == "FINISHED"


def test_the_append_that_ends_an_attempt_intends_the_next() -> None:
    bench = Bench(ending=fails_first)
    bench.commit(a_job(policy=Policy(retries=1)))
    bench.apply()
    bench.backend.run()
    one_pass(bench.world)
    (trial,) = bench.last().trials
    assert (trial.state, trial.attempt, trial.retried) == ("queued", 2, 1)
    assert bench.last().version.state == "running"  # nobody saw it failed in between
    bench.follow()
    (trial,) = bench.last().trials
    assert (trial.state, trial.attempt) == ("succeeded", 2)
    assert len(bench.tracker.runs) == 1  # one run over all attempts


def test_a_lost_trial_gets_its_recoveries_and_then_stays_lost() -> None:
    bench = Bench(ending=lambda _: Ending("lost", None, "the machine is gone"))
    bench.finish(a_job(policy=Policy(recoveries=2)))
    (trial,) = bench.last().trials
    assert (trial.state, trial.attempt, trial.recovered) == ("lost", 3, 2)
    assert bench.last().version.state == "failed"


def test_a_waiting_trial_takes_over_the_result_it_waited_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda _: Ending(metrics={"score": 1.0}))
    bench.commit(a_job(grid={"lr": (0.1,)}))
    bench.apply()
    bench.commit(a_job(grid={"lr": (0.1, 0.2)}))
    bench.apply()
    assert len(bench.backend.launches) == 2
    bench.follow()
    waited, _ = bench.last().trials
    assert (waited.state, waited.metrics, waited.reused_from) == (
        "reused",
        {"score": 1.0},
        f"digits/mlp@v1/{waited.id}",
    )
    assert waited.tracked
    assert bench.tracker.runs[waited.run_id or ""].metrics == {"score": 1.0}


def test_a_waiting_trial_is_sent_when_the_one_it_waited_for_fails() -> None:
    bench = Bench(ending=lambda launch: Ending("failed", 1) if launch.version == 1 else Ending())
    bench.commit(a_job(grid={"lr": (0.1,)}))
    bench.apply()
    bench.commit(a_job(grid={"lr": (0.1, 0.2)}))
    bench.apply()
    bench.follow()
    assert [trial.state for trial in bench.last().trials] == ["succeeded", "succeeded"]
    assert len(bench.backend.launches) == 3


def test_results_that_mlflow_could_not_be_told_are_told_by_the_next_pass(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda _: Ending(metrics={"score": 0.5}))
    bench.commit(a_job(grid={"lr": (0.1, 0.2)}))
    bench.apply()
    bench.tracker.down = True
    bench.follow()
    record = bench.last()
    assert record.version.state == "succeeded"
    assert not any(trial.tracked for trial in record.trials)
    bench.tracker.down = False
    one_pass(bench.world)
    record = bench.last()
    assert record.version.tracked
    assert [(trial.tracked, trial.metrics) for trial in record.trials] == [(True, {"score": 0.5})] * 2
    assert {run.status for run in bench.tracker.runs.values()} == {"FINISHED"}


def test_following_twice_writes_nothing_the_second_time() -> None:
    bench = Bench()
    bench.finish(a_job())
    appends = len(bench.ledger.store.appends)
    assert not one_pass(bench.world).moved
    assert len(bench.ledger.store.appends) == appends


def test_a_pass_asks_a_backend_once_whatever_the_number_of_trials() -> None:
    bench = Bench()
    bench.commit(*(a_job(f"job{n}", grid={"lr": (0.1, 0.2)}) for n in range(5)))
    bench.apply()
    bench.backend.asked = 0
    one_pass(bench.world)
    assert bench.backend.asked == 1


def test_cancel_is_a_wish_that_every_pass_asks_for_until_it_is_final() -> None:
    bench = Bench()
    bench.commit(a_job())
    bench.apply()
    assert act.cancel(bench.world, Target("digits/mlp")) == (("digits/mlp", 1),)
    assert bench.last().trials[0].cancel_requested_at
    one_pass(bench.world)
    bench.follow()
    assert bench.last().version.state == "cancelled"
    with pytest.raises(InputError, match="nothing of digits/mlp@v1 is running"):
        act.cancel(bench.world, Target("digits/mlp"))


def test_a_cancelled_trial_gets_no_further_attempt_by_policy_and_one_by_retry() -> None:
    bench = Bench()
    bench.commit(a_job(policy=Policy(retries=5, recoveries=5)))
    bench.apply()
    act.cancel(bench.world, Target("digits/mlp"))
    bench.follow()
    assert bench.actions() == ["keep"]
    act.retry(bench.world, Target("digits/mlp"))
    bench.follow()
    (trial,) = bench.last().trials
    assert (trial.state, trial.attempt) == ("succeeded", 2)


def test_retry_takes_the_trials_that_did_not_succeed_and_refuses_when_there_are_none() -> None:
    bench = Bench(ending=lambda launch: Ending("failed", 1) if launch.params.get("lr") == 0.1 else Ending())
    bench.finish(a_job(grid={"lr": (0.1, 0.2)}))
    act.retry(bench.world, Target("digits/mlp"))
    bench.follow()
    assert [trial.attempt for trial in bench.last().trials] == [2, 1]
    bench.finish(a_job("fine"))
    with pytest.raises(InputError, match="no trial of fine@v1 failed"):
        act.retry(bench.world, Target("fine"))


def test_what_runs_at_a_place_that_is_gone_is_sent_again_when_a_person_says_so() -> None:
    bench = Bench()
    bench.commit(a_job())
    bench.apply()
    with pytest.raises(InputError, match="runs at another place"):
        act.retry(bench.world, Target("digits/mlp"), lost=True)  # it is here, and can be asked
    bench.backend = FakeBackend(place="moved")
    bench.clock.asleep = bench.backend.run
    bench.follow()
    assert bench.last().version.state == "running"
    act.retry(bench.world, Target("digits/mlp"), lost=True)
    bench.follow()
    (trial,) = bench.last().trials
    assert (trial.state, trial.attempt, trial.place) == ("succeeded", 2, "moved")


def test_a_target_that_is_not_there_is_named_with_what_there_is() -> None:
    bench = Bench()
    bench.finish(a_job())
    for target, message in (
        (Target("nobody"), "nobody has no version"),
        (Target("digits/mlp", version=7), "has no v7"),
        (Target("digits/mlp", version=1, trial="000000000000"), "is no trial"),
    ):
        with pytest.raises(InputError, match=message):
            act.find(bench.ledger, target)


def test_superseded_trials_are_cancelled_when_the_new_version_says_so_but_not_those_it_waits_for() -> None:
    bench = Bench()
    bench.commit(a_job(grid={"lr": (0.1, 0.2)}))
    bench.apply()
    dropped, waited = bench.last().trials
    bench.commit(a_job(grid={"lr": (0.2, 0.3)}, policy=Policy(on_supersede="cancel")))
    bench.apply()
    bench.follow()
    assert bench.backend.cancelled
    first = bench.ledger.version("digits/mlp", 1)
    assert first
    assert {trial.id: trial.state for trial in first.trials} == {dropped.id: "cancelled", waited.id: "succeeded"}
    assert [trial.state for trial in bench.last().trials] == ["reused", "succeeded"]
