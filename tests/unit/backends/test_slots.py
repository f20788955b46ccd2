"""Which trials start: first come, first served, and nothing starves."""

import pytest

from espalier.backends.local.slots import (
    Held,
    Machine,
    Outcome,
    Wish,
    choose,
    gpus_from,
    refusal,
    stop_message,
)
from espalier.core.model import Resources

TWO = Machine(2, 8)


def wish(key: str, version: str = "v", parallel: int | None = None, **resources: float) -> Wish:
    return Wish(key, version, Resources(**resources), parallel)  # type: ignore[arg-type]


def test_trials_start_in_order_while_there_are_slots() -> None:
    assert list(choose([wish("a"), wish("b"), wish("c")], [], TWO)) == ["a", "b"]
    assert list(choose([wish("a"), wish("b")], [Held("v", Resources())], TWO)) == ["a"]


def test_ten_tenths_of_a_cpu_fill_one() -> None:
    assert len(choose([wish(str(n), cpus=0.1) for n in range(30)], [], Machine(1))) == 10


def test_a_large_trial_is_not_passed_by_small_ones_that_take_what_it_waits_for() -> None:
    running = [Held("v", Resources(cpus=1))]
    assert choose([wish("large", cpus=2), wish("small", cpus=1)], running, TWO) == {}


def test_what_a_waiting_trial_cannot_use_goes_to_the_next() -> None:
    machine = Machine(4, None, ("0",))
    running = [Held("v", Resources(gpus=1), ("0",))]
    assert list(choose([wish("gpu", gpus=1), wish("cpu", cpus=2), wish("more", cpus=1)], running, machine)) == ["cpu"]


def test_a_version_at_its_parallel_lets_others_pass() -> None:
    queued = [wish("a", "one", 1), wish("b", "one", 1), wish("c", "two")]
    assert list(choose(queued, [], TWO)) == ["a", "c"]


def test_memory_is_a_slot_too() -> None:
    assert list(choose([wish("a", memory_gib=6), wish("b", memory_gib=3)], [], TWO)) == ["a"]


def test_gpus_are_whole_and_each_is_held_by_one() -> None:
    machine = Machine(8, None, ("0", "1", "2"))
    chosen = choose([wish("a", gpus=2), wish("b", gpus=1), wish("c", gpus=1)], [], machine)
    assert chosen == {"a": ("0", "1"), "b": ("2",)}


def test_a_command_that_may_not_use_a_gpu_does_not_get_it() -> None:
    machine = Machine(8, None, ("0", "1"))
    only = Wish("a", "v", Resources(gpus=1), None, ("1",))
    assert choose([only], [], machine) == {"a": ("1",)}
    assert choose([only], [Held("w", Resources(gpus=1), ("1",))], machine) == {}


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        (Resources(), None),
        (Resources(cpus=2, memory_gib=8), None),
        (Resources(cpus=3), "resources.cpus is 3, this machine has 2"),
        (Resources(memory_gib=9), "resources.memory_gib is 9, this machine has 8.0"),
        (Resources(gpus=1), "resources.gpus is 1, this machine has 0"),
        (Resources(gpus=0.5), "resources.gpus is 0.5; the local backend hands out whole GPUs"),
        (Resources(nodes=2), "resources.nodes is 2; the local backend runs one node"),
    ],
)
def test_what_can_never_run_here_is_refused(resources: Resources, said: str | None) -> None:
    assert refusal(resources, TWO) == said


@pytest.mark.parametrize(
    ("states", "stops"),
    [
        (["failed", "failed"], False),
        (["failed", "failed", "failed"], True),
        (["failed", "failed", "failed", "succeeded"], False),
        (["failed", "failed", "lost", "cancelled"], False),
        ([], False),
    ],
)
def test_a_version_stops_after_so_many_failures_and_no_success(states: list[str], stops: bool) -> None:
    assert (stop_message([Outcome(state, True) for state in states], 3) is not None) == stops


def test_a_failure_that_is_tried_again_does_not_count() -> None:
    assert stop_message([Outcome("failed", False)] * 5, 3) is None


def test_gpus_come_from_what_is_visible_else_from_what_is_listed() -> None:
    listed = ["GPU 0: A", "GPU 1: A", "  MIG 1g"]
    assert gpus_from({}, listed) == ("0", "1")
    assert gpus_from({"CUDA_VISIBLE_DEVICES": "3, GPU-abc"}, listed) == ("3", "GPU-abc")
    assert gpus_from({"CUDA_VISIBLE_DEVICES": "0,-1,2"}, listed) == ("0",)
    assert gpus_from({"CUDA_VISIBLE_DEVICES": ""}, listed) == ()
