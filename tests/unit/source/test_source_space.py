"""A sweep's values are those of Hydra's own sweeper."""
# ruff: noqa: E501 - tables read best with few lines

from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from espalier.core.errors import InputError
from espalier.source.space import check_size, flat_values, grid, parse_values

VALUES = [
    "choice(0.1,0.01)", "1,2,3", "a", "a,b", "range(3)", "range(0,1,0.1)", "range(0,0.9,0.3)", "range(3,0,-1)",
    "range(0,2.1,0.7)", "sort(3,1,2)", "sort(range(3,0,-1))", "sort(3,1,2,reverse=true)", "float(range(0,3))",
    "int(choice(1.5,2.5))", "str(choice(1,2))", "bool(choice(0,1))", "tag(x,choice(1,2))", "[1,2],[3]", "{a:1},{a:2}",
    "'a b','c,d'", "true,false", "1e-3,0.001", "null,1", "1_000", "0x10", "yes", "[a,b]", "'quoted'", "a/b.c-d", "", "range(0)",
]  # fmt: skip

CONVERSE = [
    "interval(0,1)",
    "glob(*)",
    "shuffle(1,2,3)",
    "shuffle(range(9))",
    "choice(",
    "a,",
    "range(0,1,0)",
    "choice()",
]


@pytest.mark.parametrize("text", VALUES)
def test_values_are_hydras(text: str) -> None:
    override = OverridesParser.create().parse_override(f"k={text}")
    if override.is_sweep_override():
        expected: list[Any] = [override._convert_value(value) for value in override.sweep_iterator()]
    else:
        expected = [override.value()]
    assert repr(list(parse_values(text, "k"))) == repr(expected)


def test_a_grid_has_the_points_and_the_order_of_hydras_basic_sweeper() -> None:
    space = {"b.c": "range(0,3)", "a": "choice(x,y)", "d": "5", "e": "0.5,0.25"}
    overrides = OverridesParser.create().parse_overrides([f"{name}={text}" for name, text in space.items()])
    (expected,) = BasicSweeper.split_arguments(overrides, None)
    found = grid({name: parse_values(text, name) for name, text in space.items()})
    assert [[f"{name}={value}" for name, value in point.items()] for point in found] == expected


@pytest.mark.parametrize("text", CONVERSE)
def test_what_cannot_be_enumerated_is_refused_by_name(text: str) -> None:
    with pytest.raises(InputError, match="'k'") as raised:
        parse_values(text, "k")
    assert raised.value.hint


@pytest.mark.parametrize("value", [1, 2.5, True, None, [1, 2], ["a"], {}])
def test_a_value_that_is_no_text_stands_for_itself(value: Any) -> None:
    assert parse_values(value, "k") == (value,)


@pytest.mark.parametrize(
    "text",
    ["range(0,1e12)", "range(1000000000)", "range(0,1,1e-300)", "range(0,inf)", "range(nan)", "sort(range(0,1e15))"],
)
def test_an_endless_range_is_refused_before_it_is_enumerated(text: str) -> None:
    with pytest.raises(InputError):
        parse_values(text, "k")


def test_a_long_or_deep_text_is_refused() -> None:
    with pytest.raises(InputError, match="characters"):
        parse_values("1," * 20_000 + "1", "k")
    with pytest.raises(InputError):
        parse_values("[" * 5000, "k")


def test_names_are_flat_whatever_their_nesting() -> None:
    assert flat_values({"a": {"b.c": 1, "d": {}}, "e": 2}) == {
        "a.b.c": (("a", "b.c"), 1),
        "a.d": (("a", "d"), {}),
        "e": (("e",), 2),
    }


@pytest.mark.parametrize(
    "tree", [{"a.b": 1, "a": {"b": 2}}, {"a": 1, "a.b": 2}, {"+a": 1}, {"a@b": 1}, {"a..b": 1}, {1: 1}]
)
def test_names_that_are_no_parameters_or_given_twice_are_refused(tree: dict[Any, Any]) -> None:
    with pytest.raises(InputError):
        flat_values(tree)


def test_a_size_is_refused_with_both_numbers() -> None:
    check_size(5, 5)
    with pytest.raises(InputError, match=r"6 points.* 5"):
        check_size(6, 5)
    with pytest.raises(InputError, match=r"100,001 points.* 100,000"):
        check_size(100_001, None)
