"""What every ledger promises, as a suite to subclass. Never looks at how one stores it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from espalier.core.content import SCHEME, digest, trial_contents, trial_id
from espalier.core.errors import StaleError
from espalier.core.events import (
    CancelRequested,
    Created,
    CursorMoved,
    Event,
    Intended,
    Intent,
    Line,
    Observed,
    Opened,
    Record,
    Retired,
    Snapshot,
    Submitted,
    Tracked,
    Treated,
)
from espalier.core.model import Artifacts, Lease, Objective, Point, Policy, Spec, Sweep, Trial, Version
from espalier.core.names import attempt_key, line_name
from espalier.core.ports import Ledger
from espalier.core.record import settle

NOW, LATER = "2026-01-02T03:04:05.000Z", "2026-01-02T04:04:05.000Z"
PLACE = "here"


def a_record(
    job: str = "digits/mlp", number: int = 1, rates: tuple[float, ...] = (0.1, 0.01), sent: bool = True, **fields: Any
) -> Record:
    """Return a version of ``job`` with a trial for each of ``rates``, as apply would record it."""
    objective = Objective("accuracy", "maximize")
    sweep = Sweep(params={"lr": rates}, objective=objective, parallel=2)
    spec = Spec(("python", "train.py"), {"train.py": "a" * 40}, params={"hidden": 64}, sweep=sweep)
    points = [Point({"hidden": 64, "lr": rate}) for rate in rates]
    contents = trial_contents(spec, points)
    whole: dict[str, Any] = {
        "job": job,
        "line": None,
        "version": number,
        "parent": number - 1 or None,
        "base": None,
        "digest": digest(spec),
        "scheme": SCHEME,
        "commit": f"{number:040x}",
        "subject": "Try 🌱 wider\nnets",
        "author": "Ada <ada@example.org>",
        "actor": "Grace <grace@example.org>",
        "reason": "new job",
        "created_at": NOW,
        "backend": "local",
        "objective": objective,
        "parallel": 2,
    }
    version = Version(**{**whole, **fields})
    trials = tuple(
        Trial(trial_id(point.params), point.params, *content) for point, content in zip(points, contents, strict=True)
    )
    if sent:
        trials = tuple(replace(t, attempt=1, key=key_of(version, t.id, 1), place=PLACE) for t in trials)
    return settle(Record(version, spec, trials))


def key_of(version: Version, trial: str, attempt: int, ledger_id: str = "") -> str:
    return attempt_key(ledger_id, version.job, version.line, version.version, trial, attempt)


def ended(record: Record, state: Any = "succeeded", **fields: Any) -> list[Observed]:
    """Return the ends of all trials of ``record``, with MLflow told."""
    name = line_name(record.version.job, record.version.line)
    whole = {"ended_at": LATER, "metrics": {"accuracy": 0.5}, "tracked": True, **fields}
    return [Observed(name, record.version.version, t.id, t.attempt, state, **whole) for t in record.trials]


def over(record: Record) -> list[Event]:
    """Return what makes ``record`` over: every trial ended, and MLflow shows it."""
    name = line_name(record.version.job, record.version.line)
    return [*ended(record), Tracked(name, record.version.version, {}, whole_version=True)]


class LedgerContract:
    """Subclass it with a fixture ``another`` that opens the same ledger once more, as another process would."""

    @pytest.fixture
    def ledger(self, another: Callable[[], Ledger]) -> Ledger:
        return another()

    def test_a_repository_without_a_ledger_reads_as_nothing(self, ledger: Ledger) -> None:
        assert ledger.read() == ledger.read(None) == Snapshot()
        assert ledger.version("digits/mlp", 1) is None

    def test_founding_twice_gives_one_id(self, ledger: Ledger, another: Callable[[], Ledger]) -> None:
        first = ledger.found()
        assert first.ledger_id
        assert another().found() == ledger.found() == first

    def test_what_is_appended_is_read_back_equal(self, ledger: Ledger, another: Callable[[], Ledger]) -> None:
        record = a_record()
        after = ledger.append(ledger.found(), [Created(record), CursorMoved("main", "c" * 40)], "intent", "Grace")
        assert after.lines["digits/mlp"] == Line(record)
        assert another().read(None) == after
        assert another().read().heads == {"digits/mlp": record.version}
        assert another().read().lines == {}
        assert another().read().cursor == {"main": "c" * 40}

    def test_a_first_append_founds_the_ledger(self, ledger: Ledger) -> None:
        after = ledger.append(Snapshot(), [Created(a_record())], "intent", "Grace")
        assert after.ledger_id
        assert ledger.read(None) == after

    def test_every_event_is_read_back_as_it_was_folded(self, ledger: Ledger, another: Callable[[], Ledger]) -> None:
        record = a_record()
        one, two = (trial.id for trial in record.trials)
        lease = Lease("me", 1, LATER)
        steps: list[list[Event]] = [
            [Created(record)],
            [Opened("digits/mlp", 1, "r0", "http://mlflow", {one: "r1", two: "r2"})],
            [Submitted("digits/mlp", 1, {one: (1, "h1"), two: (1, "h2")})],
            [Observed("digits/mlp", 1, one, 1, "running", started_at=NOW, environment={"python": "3.11"})],
            [Observed("digits/mlp", 1, one, 1, "lost", ended_at=LATER)],
            [
                Intended(
                    "digits/mlp",
                    1,
                    (Intent(one, 2, key_of(record.version, one, 2), PLACE, "recover"),),
                    lease,
                )
            ],
            [CancelRequested("digits/mlp", 1, (one,), LATER)],
            [Observed("digits/mlp", 1, one, 2, "cancelled", ended_at=LATER)],
            [
                Observed(
                    "digits/mlp",
                    1,
                    two,
                    1,
                    "failed",
                    ended_at=LATER,
                    exit_code=3,
                    message="no\nspace  left",
                    metrics={"loss": float("inf"), "accuracy": 0.25},
                )
            ],
            [Tracked("digits/mlp", 1, {one: {}, two: {"accuracy": 0.5}}, whole_version=True)],
            [Treated("digits/mlp", 1, Policy(retries=2, reuse="strict"), 7, Artifacts(("*.pt",), (), 1.0))],
            [Retired("digits/mlp", 1)],
        ]
        base = ledger.found()
        for events in steps:
            tip = base.tip
            base = ledger.append(base, events, "observed", "Grace")
            assert base.tip != tip
            assert another().read(None) == base
        head = base.heads["digits/mlp"]
        assert (head.state, head.retired, head.exit_code, head.parallel, head.lease) == ("failed", True, 3, 7, lease)

    def test_an_observation_told_twice_moves_nothing(self, ledger: Ledger, another: Callable[[], Ledger]) -> None:
        base = ledger.append(ledger.found(), [Created(a_record())], "intent", "Grace")
        end = ended(a_record(), metrics={"loss": float("nan")})
        after = ledger.append(base, end, "observed", "Grace")
        again = another().append(base, end, "observed", "Ada")
        assert again.tip == after.tip == ledger.read().tip
        assert another().append(after, [], "observed", "Ada").tip == after.tip

    def test_of_two_writers_on_one_job_one_wins(self, ledger: Ledger, another: Callable[[], Ledger]) -> None:
        base = ledger.found()
        won = ledger.append(base, [Created(a_record(subject="mine"))], "intent", "Grace")
        with pytest.raises(StaleError, match="digits/mlp"):
            another().append(base, [Created(a_record(subject="theirs"))], "intent", "Ada")
        assert another().read(None) == won

    def test_of_two_writers_on_two_jobs_both_land(self, ledger: Ledger, another: Callable[[], Ledger]) -> None:
        base = ledger.found()
        ledger.append(base, [Created(a_record("a"))], "intent", "Grace")
        after = another().append(base, [Created(a_record("b"))], "intent", "Ada")
        assert after == ledger.read(["b"])
        assert list(ledger.read().heads) == ["a", "b"]

    def test_a_lost_race_folds_again_on_what_the_other_wrote(
        self, ledger: Ledger, another: Callable[[], Ledger]
    ) -> None:
        record = a_record()
        base = ledger.append(ledger.found(), [Created(record)], "intent", "Grace")
        one, two = ended(record)
        ledger.append(base, [one], "observed", "Grace")
        after = another().append(base, [two], "observed", "Ada")
        assert after.heads["digits/mlp"].counts.succeeded == 2
        assert ledger.read(None) == after

    def test_a_new_version_keeps_what_was_observed_of_its_parent_meanwhile(
        self, ledger: Ledger, another: Callable[[], Ledger]
    ) -> None:
        record = a_record()
        base = ledger.append(ledger.found(), [Created(record)], "intent", "Grace")
        ledger.append(base, over(record), "observed", "Grace")
        after = another().append(base, [Created(a_record(number=2))], "intent", "Ada")
        line = after.lines["digits/mlp"]
        assert line.earlier[0].version.state == "succeeded"
        assert line.open == {}

    def test_a_superseded_version_stays_open_until_it_is_over(
        self, ledger: Ledger, another: Callable[[], Ledger]
    ) -> None:
        first, second = a_record(), a_record(number=2, rates=(0.5,))
        base = ledger.append(ledger.found(), [Created(first)], "intent", "Grace")
        base = ledger.append(base, [Created(second)], "intent", "Grace")
        assert another().read().heads["digits/mlp"].open == (1,)
        assert base.lines["digits/mlp"].open == {1: first}
        base = ledger.append(base, over(first), "observed", "Grace")
        assert base.lines["digits/mlp"].open[1].version.state == "succeeded"  # one commit longer
        base = ledger.append(base, over(second), "observed", "Grace")
        assert base.lines["digits/mlp"].open == {}
        assert another().read(None) == base
        whole = another().version("digits/mlp", 1)
        assert whole is not None
        assert (whole.version.state, [t.state for t in whole.trials]) == ("succeeded", ["succeeded"] * 2)
        assert whole.spec == first.spec

    def test_every_version_can_be_read_whole(self, ledger: Ledger, another: Callable[[], Ledger]) -> None:
        base = ledger.found()
        told = []
        for number in range(1, 4):
            record = a_record(number=number, rates=tuple(0.1 / n for n in range(1, number + 2)))
            base = ledger.append(base, [Created(record)], "intent", "Grace")
            base = ledger.append(base, over(record), "observed", "Grace")
            told.append(base.lines["digits/mlp"].last)
        assert [another().version("digits/mlp", number) for number in (1, 2, 3)] == told
        assert [another().version("digits/mlp", number) for number in (0, 4)] == [None, None]
        assert [entry.version for entry in base.lines["digits/mlp"].earlier] == [record.version for record in told[:2]]

    def test_a_version_that_is_over_wakes_for_a_further_attempt(
        self, ledger: Ledger, another: Callable[[], Ledger]
    ) -> None:
        record = a_record(rates=(0.1,))
        trial = record.trials[0].id
        base = ledger.append(ledger.found(), [Created(record)], "intent", "Grace")
        end: list[Event] = [*ended(record, "failed"), Tracked("digits/mlp", 1, {}, whole_version=True)]
        base = ledger.append(base, end, "observed", "Grace")
        base = ledger.append(base, [Created(a_record(number=2))], "intent", "Grace")
        assert base.lines["digits/mlp"].open == {}
        again = Intended("digits/mlp", 1, (Intent(trial, 2, key_of(record.version, trial, 2), PLACE, "person"),))
        base = ledger.append(base, [again], "intent", "Ada")
        assert base.lines["digits/mlp"].open[1].trials[0].attempt == 2
        assert another().read(None) == base
        assert another().version("digits/mlp", 1) == base.lines["digits/mlp"].open[1]

    def test_succeeded_trials_can_be_reused_by_their_job_and_its_side_lines(
        self, ledger: Ledger, another: Callable[[], Ledger]
    ) -> None:
        main, side = a_record(rates=(0.1,)), a_record(rates=(0.2,), line="scan", base="digits/mlp@v1")
        base = ledger.append(ledger.found(), [Created(main), Created(side)], "intent", "Grace")
        base = ledger.append(base, [*ended(main), *ended(side), *ended(a_record("other"))], "observed", "Grace")
        index = another().read(["digits/mlp"]).reuse["digits/mlp"]
        names = {f"digits/mlp@v1/{main.trials[0].id}", f"digits/mlp+scan@v1/{side.trials[0].id}"}
        assert {found.trial for found in index.values()} == names
        assert all(key == found.strict for key, found in index.items())
        assert another().read(["digits/mlp+scan"]).reuse == another().read(["digits/mlp"]).reuse

    def test_a_side_line_has_versions_of_its_own(self, ledger: Ledger, another: Callable[[], Ledger]) -> None:
        base = ledger.append(ledger.found(), [Created(a_record())], "intent", "Grace")
        side = a_record(line="scan", base="digits/mlp@v1")
        after = ledger.append(base, [Created(side)], "intent", "Grace")
        assert list(after.heads) == ["digits/mlp", "digits/mlp+scan"]
        assert another().read(["digits/mlp+scan"]).lines == {"digits/mlp+scan": Line(side)}

    def test_a_line_that_was_not_loaded_is_loaded_by_an_append(
        self, ledger: Ledger, another: Callable[[], Ledger]
    ) -> None:
        record = a_record()
        ledger.append(ledger.found(), [Created(record)], "intent", "Grace")
        after = another().append(another().read(), ended(record), "observed", "Ada")
        assert after.heads["digits/mlp"].state == "succeeded"
        assert ledger.read(None) == after

    def test_a_decision_on_a_version_that_moved_is_stale(self, ledger: Ledger, another: Callable[[], Ledger]) -> None:
        record = a_record(rates=(0.1,))
        trial = record.trials[0].id
        base = ledger.append(ledger.found(), [Created(record)], "intent", "Grace")
        base = ledger.append(base, ended(record, "lost"), "observed", "Grace")
        further = Intended("digits/mlp", 1, (Intent(trial, 2, "k" * 40, PLACE, "recover"),))
        elsewhere = Intended("digits/mlp", 1, (Intent(trial, 2, "k" * 40, "elsewhere", "recover"),))
        after = ledger.append(base, [further], "intent", "Grace")
        assert another().append(base, [further], "intent", "Ada").tip == after.tip  # the same place, the same key
        with pytest.raises(StaleError):
            another().append(base, [elsewhere], "intent", "Ada")
        ledger.append(after, [Retired("digits/mlp", 1)], "retired", "Grace")
        with pytest.raises(StaleError):
            another().append(base, [Retired("digits/mlp", 1)], "retired", "Ada")
        assert ledger.read(None) == another().read(None)

    def test_no_append_of_many_writers_is_lost(self, another: Callable[[], Ledger]) -> None:
        another().found()

        def write(name: str) -> None:
            ledger = another()
            base = ledger.append(ledger.read(), [Created(a_record(name))], "intent", name)
            ledger.append(base, ended(a_record(name)), "observed", name)

        names = [f"job-{number}" for number in range(6)]
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(write, names))
        heads = another().read().heads
        assert {name: head.state for name, head in heads.items()} == dict.fromkeys(names, "succeeded")

    def test_of_many_that_create_one_version_exactly_one_wins(self, another: Callable[[], Ledger]) -> None:
        base = another().found()

        def write(number: int) -> str:
            try:
                another().append(base, [Created(a_record(subject=str(number)))], "intent", "Grace")
            except StaleError:
                return ""
            return str(number)

        with ThreadPoolExecutor(4) as pool:
            won = [subject for subject in pool.map(write, range(4)) if subject]
        assert won == [another().read().heads["digits/mlp"].subject]
