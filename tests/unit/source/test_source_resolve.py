"""Interpolations resolve as OmegaConf resolves them."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from espalier.core.errors import InputError
from espalier.source.resolve import Resolver, overlaid

CASES: list[dict[str, Any]] = [
    {"a": 1, "b": "${a}", "c": "${b}", "d": "x${c}y${a}"},
    {"a": {"b": {"c": "${.d}", "d": "${..e}"}, "e": "${...f}"}, "f": [1, {"g": "${a.e}"}], "h": 3} | {"f": 5},
    {"a": [1, "${.0}", ["${..1}", "${...b}"]], "b": "x"},
    {"a": {"x": 1, "y": "${.x}"}, "b": "${a}", "c": "${b.y}", "d": "${b}"},
    {"a": "${b.c}", "b": "${e}", "e": {"c": "${.d}", "d": 7}},
    {"a": {"k": "n"}, "n": "${m.${a.k}}", "m": {"n": 3}},
    {"a": "${b[0]}", "b": [5, 6], "c": "${b[1]}", "d": "${[b][1]}"},
    {"a": "${b[-1]}", "b": [5, 6]},
    {"a": r"\${b}", "b": 1, "c": r"\\${b}", "d": r"x\${b}${b}", "e": r"a\b"},
    {"a": None, "b": "${a}", "c": "x${a}", "d": True, "e": "${d}!", "f": 1e-5, "g": "${f}/"},
    {
        "a": "${oc.select:b,1}",
        "b": {"c": 2},
        "d": "${oc.select:b.c,1}",
        "e": "${oc.select:b.x}",
        "f": "${oc.select:.x,z}",
    },
    {"a": {"b": "${oc.select:.c,0}", "c": 4, "d": "${oc.select:..e}"}, "e": 9},
    {"a": "${oc.decode:'{x: 1, y: [a, 2.5, null]}'}", "b": "${oc.decode:${c}}", "c": "1e3", "d": "${oc.decode:null}"},
    {"a": "${oc.dict.keys:b}", "b": {"x": 1, "y": "${.x}"}, "c": "${oc.dict.values:b}"},
    {"a": {"k": "${oc.dict.keys:..b}", "v": "${oc.dict.values:..b}"}, "b": {"x": "${..c}"}, "c": 3},
    {"a": "${oc.create:{x:1,y:[2,3]}}", "b": "${oc.create:[1,a]}"},
    {"a": "${oc.decode:'${b}'}", "b": "[1, 2]"},
    {"a": "${b}", "b": {"c": ["${d}", {"e": "${..0}"}]}, "d": 1},
    {"a": {"b": 1}, "c": "pre ${a.b} ${oc.select:a.x, 'q r'} post"},
    {"déjà": 1, "b": "${déjà}"},
    {"a": "", "b": "${a}", "c": "${a}${a}"},
    {"a": {}, "b": "${a}", "c": [], "d": "${c}"},
]

BROKEN: list[dict[str, Any]] = [
    {"a": "${b}"},
    {"a": "${.b}"},
    {"a": "${b.c}", "b": 1},
    {"a": "${b.c}", "b": None},
    {"a": "${b}", "b": "${a}"},
    {"a": {"b": "${a}"}},
    {"a": "${b}", "b": "???"},
    {"a": "${b[7]}", "b": [1]},
    {"a": "${b.x}", "b": [1]},
    {"a": "${oc.dict.keys:b}", "b": 1},
    {"a": "${...b}"},
    {"a": "${nobodys:1}"},
    {"a": "${oc.decode:${b}}", "b": 3},
    {"a": "${oc.decode:'[1'}"},
]


@pytest.mark.parametrize("tree", CASES, ids=lambda tree: repr(tree)[:60])
def test_each_interpolation_gives_what_omegaconf_gives(tree: dict[str, Any]) -> None:
    try:
        expected = OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    except Exception:
        with pytest.raises(InputError):
            Resolver(tree).node(())
        return
    found = Resolver(tree).node(()).value
    assert found == expected
    assert repr(found) == repr(expected)


@pytest.mark.parametrize("tree", BROKEN, ids=repr)
def test_what_omegaconf_cannot_resolve_is_refused_with_a_hint(tree: dict[str, Any]) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - OmegaConf has many kinds
        OmegaConf.to_container(OmegaConf.create(tree), resolve=True, throw_on_missing=True)
    with pytest.raises(InputError) as raised:
        Resolver(tree).node(())
    assert raised.value.hint


def test_only_what_depends_on_a_swept_value_is_swept() -> None:
    tree = {"p": {"lr": 1, "wd": 2, "x": "${.lr}", "y": "${.wd}", "z": "${.x}-${o.t}"}, "o": {"t": "${..p.wd}", "u": 1}}
    at = Resolver(tree, [("p", "lr")], inside=lambda path: path[0] == "p")
    assert at.node(("p", "x")).swept
    assert not at.node(("p", "y")).swept
    z = at.node(("p", "z"))
    assert (z.value, z.swept, z.through) == ("1-2", True, {("o", "t")})
    assert at.written(("p",)) == {"lr": 1, "wd": 2, "x": "${.lr}", "y": 2, "z": "${.x}-${o.t}"}


def test_a_missing_choice_that_a_sweep_may_give_counts_as_swept() -> None:
    tree = {"p": {"o": {"lr": 1}, "b": "${oc.select:p.o.beta,0}", "k": "${oc.dict.keys:p.o}"}}
    at = Resolver(tree, [("p", "o")])
    assert at.node(("p", "b")).swept
    assert at.node(("p", "k")).swept


def test_results_that_no_sweep_moves_are_taken_over() -> None:
    tree = {"p": {"lr": 1, "x": "${.lr}"}, "heavy": "${oc.decode:'[1]'}"}
    first = Resolver(tree, [("p", "lr")])
    first.node(("heavy",))
    first.node(("p", "x"))
    second = Resolver(overlaid(tree, {("p", "lr"): 2}), [("p", "lr")], base=first)
    assert second.node(("heavy",)) is first.node(("heavy",))
    assert second.node(("p", "x")).value == 2


def test_references_cannot_grow_without_measure() -> None:
    text = {f"a{i}": "${a%d}${a%d}" % (i + 1, i + 1) for i in range(25)} | {"a25": "xx"}  # noqa: UP031
    with pytest.raises(InputError, match="without measure"):
        Resolver(text).node(("a0",))
    lists = {f"a{i}": ["${a%d}" % (i + 1)] * 3 for i in range(25)} | {"a25": "xx"}  # noqa: UP031
    with pytest.raises(InputError, match="without measure"):
        Resolver(lists).node(("a0",))
    chain = {f"a{i}": "${a%d}" % (i + 1) for i in range(5000)} | {"a5000": 1}  # noqa: UP031
    with pytest.raises(InputError, match="nested references"):
        Resolver(chain).node(("a0",))
