"""How events become a record: what moves, what stays, what is refused."""

from dataclasses import replace
from typing import Any, get_args

import pytest

from espalier.core.errors import StaleError
from espalier.core.events import (
    CancelRequested,
    Created,
    CursorMoved,
    Event,
    Intended,
    Intent,
    Observed,
    Opened,
    Record,
    Retired,
    Snapshot,
    Submitted,
    Tracked,
    Treated,
    asleep,
    fold,
    settle,
    touched,
    wake,
)
from espalier.core.model import FINAL, Artifacts, Best, Counts, Lease, Objective, Policy, State, Sweep, Trial
from tests.builders import LEDGER_ID, a_job, a_trial, a_version

LATER = "2026-01-02T04:04:05.000Z"
JOB = a_job(grid={"lr": (0.1, 0.01)})
NAME = JOB.name
ONE, TWO = (a_trial(JOB, point.params).id for point in JOB.points)
EMPTY = Snapshot("t" * 40, LEDGER_ID, "digits")


def a_record(number: int = 1, trials: dict[str, Any] | None = None, **fields: Any) -> Record:
    """A version of JOB whose trials were sent, or are as ``trials`` says."""
    whole = {"attempt": 1, "key": "k", "place": "here", **(trials or {})}
    made = tuple(a_trial(JOB, point.params, **whole) for point in JOB.points)
    return settle(Record(a_version(JOB, number, **fields), JOB.spec, made))


def after(*events: Event, base: Snapshot = EMPTY) -> Snapshot:
    return fold(base, events)


def trial(snapshot: Snapshot, trial_id: str = ONE, number: int = 1) -> Trial:
    line = snapshot.lines[NAME]
    record = line.last if line.last.version.version == number else line.open[number]
    return next(each for each in record.trials if each.id == trial_id)


def seen(state: State, trial_id: str = ONE, attempt: int = 1, number: int = 1, **fields: Any) -> Observed:
    return Observed(NAME, number, trial_id, attempt, state, **fields)


def further(attempt: int = 2, because: str = "retry", place: str = "here", number: int = 1) -> Intended:
    return Intended(NAME, number, (Intent(ONE, attempt, f"k{attempt}", place, because),))


def both(state: State, number: int = 1) -> list[Event]:
    """Ends of both trials that MLflow shows, and so does it the version."""
    ends: list[Event] = [seen(state, each, number=number, tracked=True, ended_at=LATER) for each in (ONE, TWO)]
    return [*ends, Tracked(NAME, number, {}, whole_version=True)]


def test_a_new_version_is_its_lines_head() -> None:
    snapshot = after(Created(a_record()))
    assert snapshot.heads == {NAME: a_record().version}
    assert snapshot.lines[NAME].last == a_record()
    assert snapshot.heads[NAME].counts == Counts(total=2, queued=2)
    assert snapshot.heads[NAME].unanswered == 2


@pytest.mark.parametrize("number", [1, 3])
def test_a_version_that_does_not_follow_the_last_is_stale(number: int) -> None:
    base = after(Created(a_record()))
    with pytest.raises(StaleError, match="digits/mlp@v1 has moved"):
        after(Created(a_record(number)), base=base)


def test_a_version_whose_parent_is_not_the_last_is_stale() -> None:
    with pytest.raises(StaleError):
        after(Created(a_record(2, parent=None)), base=after(Created(a_record())))


def test_a_new_version_keeps_the_old_one_open_while_it_runs() -> None:
    snapshot = after(Created(a_record()), Created(a_record(2)))
    line = snapshot.lines[NAME]
    assert list(line.open) == [1]
    assert snapshot.heads[NAME].open == (1,)
    assert line.earlier[0].version.open == line.open[1].version.open == ()
    snapshot = after(Created(a_record(3)), base=snapshot)
    assert list(snapshot.lines[NAME].open) == [1, 2]
    assert [entry.version.version for entry in snapshot.lines[NAME].earlier] == [1, 2]


def test_a_version_that_is_over_is_not_kept_open() -> None:
    base = after(Created(a_record()))
    base = after(*both("succeeded"), base=base)
    assert after(Created(a_record(2)), base=base).lines[NAME].open == {}


def test_a_version_that_ends_in_the_fold_that_supersedes_it_stays_open_for_that_commit() -> None:
    base = after(Created(a_record()))
    base = after(*both("succeeded"), Created(a_record(2)), base=base)
    assert base.lines[NAME].open[1].version.state == "succeeded"
    base = after(seen("running", number=2), base=base)
    assert base.lines[NAME].open == {}


def test_a_superseded_version_whose_end_mlflow_does_not_show_stays_open() -> None:
    base = after(Created(a_record()), Created(a_record(2)))
    base = after(*[seen("succeeded", each) for each in (ONE, TWO)], base=base)
    base = after(seen("running", number=2), base=base)
    assert list(base.lines[NAME].open) == [1]


def test_what_is_observed_of_an_open_version_shows_in_its_line() -> None:
    base = after(Created(a_record()), Created(a_record(2)))
    base = after(seen("failed", exit_code=3), base=base)
    assert base.lines[NAME].earlier[0].version == base.lines[NAME].open[1].version
    assert base.lines[NAME].earlier[0].version.exit_code == 3


def test_a_fold_that_moves_nothing_drops_nothing() -> None:
    base = after(Created(a_record()))
    base = after(*both("succeeded"), Created(a_record(2)), base=base)
    assert after(seen("running", number=7), base=base) == base


@pytest.mark.parametrize("final", FINAL)
@pytest.mark.parametrize("state", get_args(State))
def test_a_final_state_is_never_left_by_what_is_observed(final: State, state: State) -> None:
    base = after(Created(a_record()), seen(final))
    assert after(seen(state), base=base) == base


def test_unknown_moves_nothing() -> None:
    base = after(Created(a_record()))
    assert after(seen("unknown"), base=base) == base  # type: ignore[arg-type]


def test_nothing_goes_back_to_queued() -> None:
    base = after(Created(a_record()), seen("running", started_at=LATER))
    assert after(seen("queued"), base=base) == base


def test_what_is_observed_of_another_attempt_moves_nothing() -> None:
    base = after(Created(a_record()))
    assert after(seen("succeeded", attempt=2), base=base) == base


def test_nan_told_twice_moves_nothing() -> None:
    base = after(Created(a_record()), seen("running", metrics={"loss": float("nan")}))
    again = after(seen("running", metrics={"loss": float("nan")}), base=base)
    assert again.lines[NAME] is base.lines[NAME]


def test_an_event_of_an_unknown_line_or_trial_is_ignored() -> None:
    base = after(Created(a_record()))
    assert after(Observed("other", 1, ONE, 1, "failed"), seen("failed", "0" * 12), base=base) == base


@pytest.mark.parametrize("event", [further(), Retired(NAME, 7)])
def test_a_decision_on_a_version_that_is_not_there_is_stale(event: Event) -> None:
    with pytest.raises(StaleError):
        after(replace(event, version=7), base=after(Created(a_record())))


def test_a_job_that_got_a_new_version_is_not_retired_by_a_decision_on_the_old_one() -> None:
    with pytest.raises(StaleError):
        after(Retired(NAME, 1), base=after(Created(a_record()), Created(a_record(2))))


def test_retiring_twice_is_stale() -> None:
    base = after(Created(a_record()), Retired(NAME, 1))
    assert base.heads[NAME].retired
    with pytest.raises(StaleError):
        after(Retired(NAME, 1), base=base)


def test_a_further_attempt_begins_anew_and_keeps_the_run() -> None:
    base = after(
        Created(a_record()),
        Opened(NAME, 1, "r0", "uri", {ONE: "r1"}),
        Submitted(NAME, 1, {ONE: (1, "h1")}),
        seen("failed", exit_code=1, message="boom", started_at=LATER, ended_at=LATER, tracked=True),
        further(),
    )
    now = trial(base)
    assert (now.state, now.attempt, now.key, now.handle, now.exit_code) == ("queued", 2, "k2", None, None)
    assert (now.run_id, now.retried, now.recovered, now.tracked) == ("r1", 1, 0, False)
    assert base.heads[NAME].state == "running"


def test_the_same_intent_told_twice_moves_nothing() -> None:
    base = after(Created(a_record()), seen("failed"), further())
    assert after(further(), base=base) == base
    base = after(seen("running", attempt=2), base=base)
    assert after(further(), base=base) == base


@pytest.mark.parametrize(
    ("state", "because", "allowed"),
    [
        ("failed", "retry", True),
        ("lost", "recover", True),
        ("failed", "person", True),
        ("lost", "person", True),
        ("cancelled", "person", True),
        ("cancelled", "retry", False),
        ("succeeded", "retry", False),
        ("succeeded", "person", False),
        ("reused", "person", False),
        ("running", "person", False),
        ("failed", "first", False),
    ],
)
def test_which_end_an_attempt_may_follow(state: State, because: str, allowed: bool) -> None:
    base = after(Created(a_record()), seen(state))
    if allowed:
        assert trial(after(further(because=because), base=base)).attempt == 2
    else:
        with pytest.raises(StaleError):
            after(further(because=because), base=base)


@pytest.mark.parametrize("event", [further(3), further(1), further(2, place="elsewhere")])
def test_an_intent_that_somebody_else_was_faster_with_is_stale(event: Intended) -> None:
    base = after(Created(a_record()), seen("failed"), further())
    with pytest.raises(StaleError):
        after(replace(event, intents=(replace(event.intents[0], key="other"),)), base=base)


def test_a_wish_to_cancel_stops_further_attempts_of_policy_but_not_of_a_person() -> None:
    base = after(Created(a_record()), CancelRequested(NAME, 1, (ONE,), LATER), seen("failed"))
    with pytest.raises(StaleError):
        after(further(), base=base)
    again = trial(after(further(because="person"), base=base))
    assert again.cancel_requested_at is None
    assert again.forced


def test_a_retired_version_gets_no_further_attempt_by_policy() -> None:
    base = after(Created(a_record()), seen("failed"), Retired(NAME, 1))
    with pytest.raises(StaleError):
        after(further(), base=base)
    assert trial(after(further(because="person"), base=base)).attempt == 2


def test_who_was_taken_over_from_intends_nothing_more() -> None:
    base = after(Created(a_record()), seen("failed"), replace(further(), lease=Lease("b", 2, LATER)))
    with pytest.raises(StaleError):
        after(Intended(NAME, 1, (), Lease("a", 1, LATER)), base=base)


def test_the_first_handle_told_stays() -> None:
    base = after(Created(a_record()), Submitted(NAME, 1, {ONE: (1, "h1"), TWO: (2, "h")}))
    assert after(Submitted(NAME, 1, {ONE: (1, "h2")}), base=base) == base
    assert (trial(base).handle, trial(base, TWO).handle) == ("h1", None)
    assert base.heads[NAME].unanswered == 1


def test_cancelling_what_was_never_sent_ends_it() -> None:
    base = after(Created(a_record(trials={"attempt": 0})), CancelRequested(NAME, 1, (ONE,), LATER))
    assert (trial(base).state, trial(base).ended_at) == ("cancelled", LATER)


def test_cancelling_what_runs_is_a_wish() -> None:
    base = after(Created(a_record()), seen("running"), CancelRequested(NAME, 1, (ONE,), LATER))
    assert (trial(base).state, trial(base).cancel_requested_at) == ("running", LATER)
    assert after(CancelRequested(NAME, 1, (ONE,), "2027"), base=base) == base


def test_mlflow_shows_the_end_of_what_has_ended_only() -> None:
    base = after(Created(a_record()), Tracked(NAME, 1, {ONE: {"acc": 1.0}}, whole_version=True))
    assert not trial(base).tracked
    assert not base.heads[NAME].tracked
    base = after(*both("succeeded"), Tracked(NAME, 1, {ONE: {"acc": 1.0}}), base=base)
    assert trial(base).metrics == {"acc": 1.0}
    assert base.heads[NAME].tracked


def test_a_further_attempt_of_a_version_that_was_over_is_shown_again() -> None:
    base = after(Created(a_record()), *both("failed"), further(), seen("succeeded", attempt=2))
    assert not base.heads[NAME].tracked


def test_policy_and_parallel_of_the_last_commit_stand_with_the_version() -> None:
    base = after(Created(a_record()), Treated(NAME, 1, Policy(retries=5), 3, Artifacts(max_mb=1)))
    head = base.heads[NAME]
    assert (head.policy.retries, head.parallel, head.artifacts.max_mb) == (5, 3, 1)
    sweep = base.lines[NAME].last.spec.sweep
    assert isinstance(sweep, Sweep)
    assert sweep.parallel == 3


def test_a_job_that_fails_with_attempts_left_can_be_retried() -> None:
    sent = Submitted(NAME, 1, {ONE: (1, "h1"), TWO: (1, "h2")})
    base = after(Created(a_record(policy=Policy(retries=1))), sent, seen("failed"), seen("lost", TWO))
    assert base.heads[NAME].retryable == 2
    assert base.heads[NAME].state == "failed"


def test_a_refusal_has_no_handle_and_is_not_retried_by_policy() -> None:
    base = after(Created(a_record(policy=Policy(retries=1))), seen("failed"))
    assert base.heads[NAME].retryable == 0


def test_what_succeeded_can_be_reused_under_its_strict_content_and_the_versions_scheme() -> None:
    base = after(Created(a_record(scheme=7)), seen("succeeded", metrics={"acc": 1.0}))
    (found,) = base.reuse[NAME].values()
    assert base.reuse[NAME].keys() == {trial(base).strict}
    assert (found.trial, found.scheme, found.metrics) == (f"{NAME}@v1/{ONE}", 7, {"acc": 1.0})


@pytest.mark.parametrize("state", ["failed", "cancelled", "lost", "reused", "running"])
def test_nothing_else_can_be_reused(state: State) -> None:
    assert after(Created(a_record()), seen(state)).reuse == {}


def test_the_best_trial_is_the_one_with_the_best_finite_value() -> None:
    objective = Objective("acc", "maximize")
    base = after(
        Created(a_record(objective=objective)),
        seen("succeeded", metrics={"acc": float("nan")}),
        seen("succeeded", TWO, metrics={"acc": 0.5}),
    )
    assert base.heads[NAME].best == Best(TWO, "acc", 0.5)


def test_the_cursor_moves_for_its_branch_alone() -> None:
    base = after(CursorMoved("main", "a"), CursorMoved("dev", "b"))
    assert after(CursorMoved("main", "c"), base=base).cursor == {"main": "c", "dev": "b"}


def test_a_version_that_is_over_is_woken_for_a_further_attempt() -> None:
    base = after(Created(a_record()))
    base = after(*both("failed"), base=base)
    past = base.lines[NAME].last
    base = after(Created(a_record(2)), base=base)
    told = [further(because="person"), seen("running", number=2)]
    assert asleep(base, told) == ((NAME, 1),)
    base = after(*told, base=wake(base, [past]))
    assert trial(base, number=1).attempt == 2
    assert base.heads[NAME].open == (1,)
    assert asleep(base, told) == ()


def test_touched_lines_are_named_once() -> None:
    assert touched([seen("running"), Created(a_record(line="scan")), CursorMoved("main", "a"), seen("lost")]) == (
        NAME,
        f"{NAME}+scan",
    )


def test_what_is_told_of_a_superseded_version_that_is_over_moves_nothing_at_once_or_later() -> None:
    base = after(Created(a_record()), Created(a_record(2)))
    late: list[Event] = [Opened(NAME, 1, "late", "uri", {}), Treated(NAME, 1, Policy(retries=9), 1, Artifacts())]
    once = after(*both("succeeded"), *late, seen("running", number=2), base=base)
    twice = after(*both("succeeded"), base=base)
    twice = after(*late, seen("running", number=2), base=after(seen("running", number=2), base=twice))
    assert once.lines[NAME].earlier == twice.lines[NAME].earlier
    assert once.lines[NAME].earlier[0].version.run_id is None
