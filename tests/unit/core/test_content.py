"""What identity means: the canonical form, digests, differences, contents."""

from dataclasses import replace
from typing import Any

import pytest

from espalier.core.content import (
    Change,
    canonical,
    canonical_json,
    diff,
    digest,
    from_plain,
    plain,
    trial_content,
    trial_contents,
    trial_id,
    unpinned,
)
from espalier.core.model import Data, Json, Objective, Point, Program, Resources, Spec, Sweep
from tests.builders import a_spec

CHANGED: dict[str, Any] = {
    "command": ("python", "other.py"),
    "code": {"train.py": "b" * 40},
    "pass_params": "env",
    "env": {"A": "1"},
    "secrets": ("TOKEN",),
    "grace_s": 31.0,
    "params": {"hidden": 65},
    "sweep": Sweep(params={"lr": (0.1,)}),
    "data": {"train": Data(path="data", id="d" * 40)},
    "resources": Resources(gpus=1.0),
    "backend": {"kind": "local", "queue": "long"},
    "app": {"model": {"lr": 1}},
    "context": {"seed": 1},
}


@pytest.mark.parametrize("field", CHANGED)
def test_each_field_of_a_spec_changes_its_digest(field: str) -> None:
    spec = a_spec(params={"hidden": 64})
    assert digest(replace(spec, **{field: CHANGED[field]})) != digest(spec)


def test_every_field_of_a_spec_has_a_case_above() -> None:
    assert set(CHANGED) == set(Spec.__slots__)  # type: ignore[attr-defined]


def test_a_digest_never_changes_with_a_release() -> None:
    spec = a_spec(params={"hidden": 64}, sweep=Sweep(params={"lr": (0.1, 1e-5)}))
    assert canonical_json(canonical(spec)) == (
        '{"code":{"train.py":"' + "a" * 40 + '"},"command":["python","train.py"],'
        '"params":{"hidden":64},"sweep":{"params":{"lr":[0.1,1e-05]}}}'
    )
    assert digest(spec) == "12394a27cf74e0e2e294d50b99127d01cf46b8d30fcca1dde70c10e7a49b51b6"


@pytest.mark.parametrize(
    "spec",
    [
        a_spec(sweep=Sweep(parallel=3)),
        a_spec(sweep=Sweep(parallel=None)),
    ],
)
def test_parallel_is_no_identity(spec: Spec) -> None:
    assert digest(spec) == digest(a_spec(sweep=Sweep()))
    assert diff(spec, a_spec(sweep=Sweep())) == ()


def test_a_default_written_out_changes_nothing() -> None:
    written = a_spec(grace_s=30, resources=Resources(cpus=1, nodes=1), backend={"kind": "local"}, env={})
    assert digest(written) == digest(a_spec())
    assert diff(written, a_spec()) == ()


def test_a_sweep_of_nothing_but_defaults_is_not_no_sweep() -> None:
    assert digest(a_spec(sweep=Sweep())) != digest(a_spec())
    assert [change.path for change in diff(a_spec(), a_spec(sweep=Sweep()))] == ["sweep.method"]
    assert from_plain(canonical(a_spec(sweep=Sweep()))) == a_spec(sweep=Sweep())


def test_an_empty_backend_is_not_the_default_one() -> None:
    assert digest(a_spec(backend={})) != digest(a_spec())
    assert diff(a_spec(), a_spec(backend={})) == (Change("backend.kind", "local", None),)


def test_a_diff_shows_only_the_leaf_of_a_map_that_changed() -> None:
    changed = a_spec(backend={"kind": "local", "queue": "long"})
    assert diff(a_spec(), changed) == (Change("backend.queue", None, "long"),)


def test_a_diff_shows_a_default_as_its_value_and_an_absent_path_as_null() -> None:
    old, new = a_spec(params={"hidden": 64}), a_spec(resources=Resources(memory_gib=4), grace_s=60)
    assert diff(old, new) == (
        Change("grace_s", 30.0, 60.0),
        Change("params.hidden", 64, None),
        Change("resources.memory_gib", None, 4.0),
    )


def test_a_diff_of_sweeps_names_what_is_swept() -> None:
    old = a_spec(sweep=Sweep(params={"lr": (0.1,)}))
    new = a_spec(sweep=Sweep(params={"lr": (0.1, 0.2)}, objective=Objective("acc", "maximize"), seed=1))
    assert diff(old, new) == (
        Change("sweep.objective.goal", None, "maximize"),
        Change("sweep.objective.metric", None, "acc"),
        Change("sweep.params.lr", [0.1], [0.1, 0.2]),
        Change("sweep.seed", 0, 1),
    )


def test_a_dotted_name_is_not_a_nested_one() -> None:
    dotted, nested = a_spec(backend={"kind": "local", "a.b": 1}), a_spec(backend={"kind": "local", "a": {"b": 1}})
    assert digest(dotted) != digest(nested)
    assert diff(dotted, nested)


def test_the_origin_of_a_change_is_that_of_the_nearest_node() -> None:
    (change,) = diff(a_spec(), a_spec(backend={"kind": "local", "q": {"a": 1}}), {"backend": "conf/backend/q.yaml:1"})
    assert change.origin == "conf/backend/q.yaml:1"


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (1, "1"), (None, "null"), ([1, 2], [2, 1])])
def test_values_of_another_type_or_order_are_other_trials(one: Json, other: Json) -> None:
    assert trial_id({"x": one}) != trial_id({"x": other})


@pytest.mark.parametrize(("one", "other"), [(0.0, -0.0), (1e-3, 0.001), (100.0, 1e2)])
def test_one_number_written_twice_is_one_trial(one: float, other: float) -> None:
    assert trial_id({"x": one, "y": 1}) == trial_id({"y": 1, "x": other})


def test_a_value_that_is_not_finite_has_no_identity() -> None:
    with pytest.raises(ValueError, match="JSON"):
        trial_id({"x": float("nan")})


def test_contents_of_many_trials_are_those_of_each() -> None:
    spec = a_spec(params={"hidden": 64}, resources=Resources(gpus=1))
    points = [Point({"hidden": 64}), Point({"hidden": 32}, Program(("x",), {"A": "1"}, {}))]
    assert trial_contents(spec, points) == tuple(
        (trial_content(spec, point), trial_content(spec, point, strict=True)) for point in points
    )


def test_resources_belong_to_the_strict_content_only() -> None:
    point = Point({"hidden": 64})
    small, large = a_spec(), a_spec(resources=Resources(memory_gib=8), grace_s=60)
    assert trial_content(small, point) == trial_content(large, point)
    assert trial_content(small, point, strict=True) != trial_content(large, point, strict=True)


@pytest.mark.parametrize("field", ["command", "code", "env", "data", "app", "secrets", "pass_params"])
def test_what_a_program_sees_belongs_to_the_content(field: str) -> None:
    point = Point({"hidden": 64})
    assert trial_content(a_spec(), point) != trial_content(a_spec(**{field: CHANGED[field]}), point)


def test_a_wider_sweep_leaves_the_content_of_a_point_alone() -> None:
    point = Point({"lr": 0.1})
    narrow, wide = a_spec(sweep=Sweep(params={"lr": (0.1,)})), a_spec(sweep=Sweep(params={"lr": (0.1, 0.2)}))
    assert trial_content(narrow, point) == trial_content(wide, point)


def test_a_uri_without_a_version_is_unpinned() -> None:
    spec = a_spec(data={"a": Data(uri="file:x"), "b": Data(uri="gs://b", version="3"), "c": Data(path="p", id="i")})
    assert unpinned(spec) == ("a",)


def test_a_spec_comes_back_from_its_plain_form() -> None:
    spec = replace(a_spec(), **CHANGED)
    assert from_plain(plain(spec)) == spec
