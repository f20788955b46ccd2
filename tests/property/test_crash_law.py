"""Law 10: a crash before or after any call of a port, then a pass: nothing unknown runs, no key has two specs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from espalier.core.content import digest
from espalier.core.model import FINAL, Job, Policy
from espalier.core.names import run_key
from espalier.core.ports import Launch
from espalier.engine.apply import Options, apply_plan, plan_at
from espalier.engine.follow import one_pass
from espalier.testing.crash import EFFECTS
from espalier.testing.fakes import Ending
from tests.builders import a_job
from tests.unit.engine.parts import Bench


class Killed(BaseException):
    """The process is gone: no ``except`` of the product sees it."""


class Mortal:
    """A port that dies around its ``nth`` effect, counted over all ports by ``counter``."""

    def __init__(self, port: object, counter: list[int], nth: int, after: bool) -> None:
        self._port, self._counter, self._nth, self._after = port, counter, nth, after

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._port, name)
        return self._mortal(real) if name in EFFECTS else real

    def _mortal(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            self._counter[0] += 1
            dies = self._counter[0] == self._nth
            if dies and not self._after:
                raise Killed
            result = real(*args, **named)
            if dies:
                raise Killed
            return result

        return call


def one_command(bench: Bench, nth: int, *, after: bool) -> None:
    """Plan, apply and make one pass at HEAD, dying around the ``nth`` effect (0: never)."""
    counter = [0]
    ledger, tracker, backend = (Mortal(p, counter, nth, after) for p in (bench.ledger, bench.tracker, bench.backend))
    whole = replace(bench.world, ledger=ledger, tracker=tracker, backends=lambda _kind: backend)  # type: ignore[arg-type]
    try:
        declared, plan, snapshot = plan_at(whole, "HEAD")
        apply_plan(whole, declared, plan, snapshot, Options(allow_retire=True))
        one_pass(whole)
    except Killed:
        pass


def ending(launch: Launch) -> Ending:
    """Some first attempts fail, some are lost; every second one succeeds."""
    kind = int(launch.trial, 16) % 3
    if launch.attempt > 1 or kind == 0:
        return Ending()
    return Ending("failed", 1) if kind == 1 else Ending("lost", None)


CHOICES = st.lists(st.integers(1, 5), min_size=1, max_size=3, unique=True)
JOBS = st.builds(
    lambda lrs, hidden, cancel: a_job(
        params={"hidden": hidden},
        grid={"lr": tuple(lrs)},
        policy=Policy(retries=1, recoveries=1, on_supersede="cancel" if cancel else "finish"),
    ),
    CHOICES,
    st.integers(1, 2),
    st.booleans(),
)
STEPS = st.lists(
    st.tuples(JOBS, st.booleans(), st.integers(0, 14), st.booleans(), st.booleans()), min_size=1, max_size=4
)


@given(STEPS)
def test_law_10_after_a_crash_anywhere_the_next_pass_leaves_nothing_lost_or_doubled(
    steps: list[tuple[Job, bool, int, bool, bool]],
) -> None:
    bench = Bench(ending=ending)
    last = steps[-1][0]
    for job, _, nth, after, run in steps:
        bench.commit(job)
        one_command(bench, nth, after=after)
        if run:
            bench.backend.run()
    one_command(bench, 0, after=False)
    bench.follow()
    check(bench, last)


def check(bench: Bench, last: Job) -> None:
    snapshot = bench.ledger.read(None)
    assert snapshot.ledger_id
    line = snapshot.lines[last.name]
    numbers = [*(old.version.version for old in line.earlier), line.last.version.version]
    assert numbers == list(range(1, len(numbers) + 1))
    assert line.last.version.digest == digest(last.spec)
    known, runs = set(), set()
    for number in numbers:
        record = bench.ledger.version(last.name, number)
        assert record
        assert record.version.parent == (number - 1 or None)
        assert record.version.run_id
        runs.add(record.version.run_id)
        for trial in record.trials:
            assert trial.state in FINAL, trial
            assert trial.tracked, trial
            known |= {trial.handle} if trial.handle else set()
            runs |= {trial.run_id} if trial.run_id else set()
            key = run_key(snapshot.ledger_id, last.name, None, number, trial.id)
            assert bench.tracker.runs[trial.run_id or ""].tags["espalier.key"] == key
    assert {trial.state for trial in line.last.trials} <= {"succeeded", "reused"}
    for key, launch in bench.backend.launches.items():
        record = bench.ledger.version(last.name, launch.version)
        assert record
        assert digest(launch.spec) == digest(record.spec)
        assert key in known or any(t.id == launch.trial and t.attempt > launch.attempt for t in record.trials)
    assert set(bench.tracker.runs) == runs
    assert [action.action for action in plan_at(bench.world, "HEAD")[1].actions] == ["keep"]  # law 3
