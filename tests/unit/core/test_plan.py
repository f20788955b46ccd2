"""The decision table, row by row, and what a new version's trials do."""

from dataclasses import replace

import pytest

from espalier.core.content import digest
from espalier.core.errors import InputError, RejectedError
from espalier.core.events import CancelRequested, Observed, Retired, Snapshot, fold
from espalier.core.model import Accepted, Data, Job, JobError, Lease, Policy
from espalier.core.plan import Action, draft_trials, guard_retirement, make_plan, needed_lines, superseded
from tests.builders import NOW, a_job, declared, recorded

SUCCEEDED = {"state": "succeeded", "ended_at": NOW}


def one(snapshot: Snapshot, *jobs: Job) -> Action:
    (action,) = make_plan(declared(*jobs), snapshot).actions
    return action


def ended(job: Job, state: str = "succeeded", snapshot: Snapshot | None = None, **fields: object) -> Snapshot:
    """The ledger after a version of ``job`` whose trials were observed to end in ``state``."""
    after = recorded(job, snapshot)
    record = after.lines[job.name].last
    return fold(
        after,
        [
            Observed(job.name, record.version.version, trial.id, 1, state, ended_at=NOW, **fields)  # type: ignore[arg-type]
            for trial in record.trials
            if trial.state == "queued" and trial.attempt
        ],
    )


def test_a_job_without_a_version_is_created() -> None:
    action = one(Snapshot(), a_job())
    assert (action.action, action.version, action.parent, action.reason) == ("create", 1, None, "new job")
    assert action.changes == ()
    assert (action.trials.total, action.trials.run) == (1, 1)


def test_another_digest_revises_and_says_which_leaf_changed() -> None:
    action = one(ended(a_job(params={"hidden": 64})), a_job(params={"hidden": 96}))
    assert (action.action, action.version, action.parent, action.reason) == ("revise", 2, 1, "params.hidden changed")
    (change,) = action.changes
    assert (change.path, change.old, change.new) == ("params.hidden", 64, 96)


def test_many_changes_are_counted_in_the_reason() -> None:
    before = a_job(params={"a": 1, "b": 1, "c": 1, "d": 1})
    action = one(ended(before), a_job(params={"a": 2, "b": 2, "c": 2, "d": 2}))
    assert action.reason == "params.a, params.b and 2 more changed"


def test_a_retired_job_that_comes_back_is_revised_with_an_equal_digest_too() -> None:
    retired = fold(ended(a_job()), [Retired("digits/mlp", 1)])
    action = one(retired, a_job())
    assert (action.action, action.version, action.parent, action.reason) == ("revise", 2, 1, "back again")
    assert action.trials.reused == 1


def test_an_intent_without_a_handle_is_resumed_and_says_who_may_send() -> None:
    job = a_job()
    snapshot = recorded(job, handle=None)
    head = replace(snapshot.heads[job.name], lease=Lease("host:1", 1, "2026-01-02T03:14:05Z"))
    action = one(replace(snapshot, heads={job.name: head}), job)
    assert (action.action, action.version, action.parent, action.trials.run) == ("resume", 1, None, 1)
    assert "host:1 may send until 2026-01-02T03:14:05Z" in action.reason


def test_a_failed_trial_with_attempts_left_is_retried() -> None:
    job = a_job(policy=Policy(retries=1))
    action = one(ended(job, "failed", exit_code=3, message="no such file"), job)
    assert (action.action, action.version, action.trials.run) == ("retry", 1, 1)
    assert "exit code 3" in action.reason
    assert "no such file" in action.reason


def test_a_lost_trial_is_retried_by_recoveries_and_not_by_retries() -> None:
    assert one(ended(a_job(), "lost"), a_job()).action == "retry"
    never = a_job(policy=Policy(retries=5, recoveries=0))
    assert one(ended(never, "lost"), never).action == "keep"


def test_raising_retries_in_a_commit_lets_a_failed_trial_be_retried() -> None:
    snapshot = ended(a_job(), "failed", exit_code=1)
    raised = a_job(policy=Policy(retries=2))
    assert needed_lines(declared(raised), snapshot.heads) == ("digits/mlp",)
    assert one(snapshot, raised).action == "retry"


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("succeeded", "up to date"),
        ("failed", "espalier retry digits/mlp@v1 to try again"),
        ("cancelled", "cancelled; espalier retry digits/mlp@v1 to try again"),
    ],
)
def test_an_equal_digest_is_kept_with_how_it_stands(state: str, reason: str) -> None:
    action = one(ended(a_job(), state), a_job())
    assert (action.action, action.version, action.trials.run) == ("keep", 1, 0)
    assert reason in action.reason


def test_a_running_version_is_kept_as_running() -> None:
    assert one(recorded(a_job()), a_job()).reason == "running"


def test_an_accepted_digest_is_kept() -> None:
    job, cosmetic = a_job(), a_job(params={"hidden": 65})
    snapshot = ended(job)
    accepted = Accepted(digest(cosmetic.spec), 1, "c" * 40, "Ada", "a comment in a string")
    head = replace(snapshot.heads[job.name], accepted=accepted)
    assert one(replace(snapshot, heads={job.name: head}), cosmetic).action == "keep"


def test_an_absent_job_is_retired_once() -> None:
    job = a_job()
    action = one(ended(job))
    assert (action.action, action.version, action.parent) == ("retire", 1, None)
    assert make_plan(declared(), fold(ended(job), [Retired(job.name, 1)])).actions == ()


def test_a_job_that_does_not_compose_has_no_action_and_is_never_retired() -> None:
    error = JobError("digits/mlp", "bad", "mend it", "conf/job/digits/mlp.yaml", 3)
    plan = make_plan(declared(errors=[error]), ended(a_job()))
    assert plan.actions == ()
    assert plan.errors == (error,)


def test_a_revert_reuses_the_older_versions_results_and_says_so() -> None:
    first, second = a_job(params={"hidden": 64}), a_job(params={"hidden": 96})
    action = one(ended(second, snapshot=ended(first)), first)
    assert (action.action, action.version, action.parent) == ("revise", 3, 2)
    assert (action.trials.reused, action.trials.run) == (1, 0)
    assert "same spec as v1" in action.notes


def test_widening_a_grid_runs_only_the_new_points_and_waits_for_unfinished_ones() -> None:
    narrow, wide = a_job(grid={"lr": (0.1, 0.01)}), a_job(grid={"lr": (0.1, 0.01, 0.001)})
    snapshot = recorded(narrow)
    first, second = snapshot.lines["digits/mlp"].last.trials
    snapshot = fold(snapshot, [Observed("digits/mlp", 1, first.id, 1, "succeeded", ended_at=NOW)])
    action = one(snapshot, wide)
    assert (action.trials.total, action.trials.reused, action.trials.waiting, action.trials.run) == (3, 1, 1, 1)
    reused, waiting, new = draft_trials(wide, snapshot)
    assert (reused.id, waiting.id) == (first.id, second.id)
    assert reused.reused_from == f"digits/mlp@v1/{first.id}"
    assert waiting.waits_for == f"digits/mlp@v1/{second.id}"
    assert (new.state, new.attempt) == ("queued", 0)


def test_failed_results_are_not_reused() -> None:
    narrow, wide = a_job(grid={"lr": (0.1,)}), a_job(grid={"lr": (0.1, 0.2)})
    assert one(ended(narrow, "failed"), wide).trials.run == 2


def test_reuse_false_neither_takes_over_nor_waits() -> None:
    policy = Policy(reuse="false")
    narrow, wide = a_job(grid={"lr": (0.1,)}, policy=policy), a_job(grid={"lr": (0.1, 0.2)}, policy=policy)
    assert one(ended(narrow), wide).trials.run == 2
    assert one(recorded(narrow), wide).trials.run == 2


def test_resources_do_not_repeat_what_succeeded_unless_reuse_is_strict() -> None:
    small, large = a_job(grace_s=30.0), a_job(grace_s=60.0)
    assert one(ended(small), large).trials.reused == 1
    strict = replace(large, policy=Policy(reuse="strict"))
    assert one(ended(small), strict).trials.run == 1


def test_unpinned_data_is_never_reused_and_the_plan_says_so() -> None:
    data = {"eval": Data(uri="gs://bucket/eval/")}
    action = one(ended(a_job(data=data)), a_job(params={"hidden": 64}, data=data, grace_s=31.0))
    assert action.trials.run == 1
    assert "data.eval is unpinned (no version): results are never reused" in action.notes


def test_on_supersede_cancel_ends_earlier_trials_but_those_that_are_waited_for() -> None:
    narrow = a_job(grid={"lr": (0.1, 0.01)})
    moved = a_job(grid={"lr": (0.01, 0.001)}, policy=Policy(on_supersede="cancel"))
    snapshot = recorded(narrow)
    dropped, waited = snapshot.lines["digits/mlp"].last.trials
    assert one(snapshot, moved).trials.cancel == 1
    assert superseded(moved, snapshot.lines["digits/mlp"], draft_trials(moved, snapshot)) == {1: (dropped.id,)}
    assert waited.id not in superseded(moved, snapshot.lines["digits/mlp"], draft_trials(moved, snapshot))[1]


def test_a_trial_that_is_to_be_cancelled_is_not_waited_for() -> None:
    job = a_job(grid={"lr": (0.1,)})
    snapshot = recorded(job)
    (trial,) = snapshot.lines[job.name].last.trials
    asked = fold(snapshot, [CancelRequested(job.name, 1, (trial.id,), NOW)])
    assert one(asked, a_job(grid={"lr": (0.1, 0.2)})).trials.run == 2


def test_job_globs_cross_slashes_and_give_the_whole_plans_actions() -> None:
    jobs = [a_job("digits/mlp"), a_job("digits/deep/cnn"), a_job("other")]
    whole = make_plan(declared(*jobs), Snapshot())
    some = make_plan(declared(*jobs), Snapshot(), ["digits/*"])
    assert some.actions == tuple(a for a in whole.actions if a.job.startswith("digits/"))


def test_a_glob_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="--job nothing matches no job"):
        make_plan(declared(a_job()), Snapshot(), ["nothing"])


def test_the_order_of_jobs_changes_no_plan() -> None:
    jobs = [a_job("b"), a_job("a")]
    assert [a.job for a in make_plan(declared(*jobs), Snapshot()).actions] == ["a", "b"]


def many(number: int) -> Snapshot:
    snapshot: Snapshot | None = None
    for n in range(number):
        snapshot = ended(a_job(f"job{n}"), snapshot=snapshot)
    assert snapshot
    return snapshot


def test_a_job_in_the_place_of_the_only_other_one_is_no_mass_retirement() -> None:
    snapshot = ended(a_job("old"))
    guard_retirement(make_plan(declared(a_job("new")), snapshot), snapshot.heads)


@pytest.mark.parametrize(
    ("recorded_jobs", "left", "refused"),
    [(1, 0, True), (4, 0, True), (4, 2, False), (5, 4, False), (5, 3, True), (10, 8, False), (10, 7, True)],
)
def test_a_mass_retirement_is_refused(recorded_jobs: int, left: int, refused: bool) -> None:
    snapshot = many(recorded_jobs)
    plan = make_plan(declared(*(a_job(f"job{n}") for n in range(left))), snapshot)
    if refused:
        with pytest.raises(RejectedError, match="would retire"):
            guard_retirement(plan, snapshot.heads)
    else:
        guard_retirement(plan, snapshot.heads)
