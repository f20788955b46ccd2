"""Config files load as OmegaConf loads them, within bounds."""
# ruff: noqa: E501 - tables read best with few lines

import io
from typing import Any

import pytest
from omegaconf import OmegaConf

from espalier.core.errors import InputError
from espalier.source.guard import load, resolvers
from espalier.source.program import split_command

TEXTS = [
    "a: 1\nb: [1, 2, {c: d}]\n", "a: yes\nb: off\nc: y\nd: On\ne: NO\n", "a: 1e3\nb: 1.e3\nc: .5\nd: -1e-5\ne: +1.5\nf: 1e400\n",
    "a: 017\nb: 0o17\nc: 08\nd: 1_000\ne: 0b11\nf: 0x1F\ng: 12:30:45\nh: 1:30.5\n", "a: 2020-01-01\nb: 2020-01-01T10:00:00Z\n",
    "a: ~\nb: null\nc:\nd: ''\n", "{1: a, 2.5: b, true: c}\n", "{1: a, true: c, yes: d}\n", "a: |\n  x\n  y\nb: >-\n  x\n  y\n",
    "a: &x {k: 1}\nb: *x\nc: {<<: *x, l: 2}\n", "", "# only\n", "---\na: 1\n...\n", "a: '\\u00e9'\nb: \"\\u00e9\"\n", "- 1\n- {a: 2}\n",
    "a: !!str 1\nb: !!int '2'\nc: !!float 3\n", "a: .inf\nb: -.INF\n", "? a\n: 1\n", "a: [1,\n  2]\n",
    "a: 0.1.2\nb: 1e\nc: e5\nd: 1.\n", "a: 'x: y'\nb: 'a # b'\n", "a: 12345678901234567890\n",
]  # fmt: skip

REFUSED = [
    "a: 1\na: 2\n", "a: [1\n", "a: ${b\n", "null: 1\n", "[1, 2]: 3\n", "=: 1\nb: =\n", "a: 1\n---\nb: 2\n", "a: !!python/name:os.system\n",
    "a: !custom 1\n", "a: *nope\n", "a:\t1\n", "a: -\nb: +\n", "5\n", "a: %x\nb: @y\n", "a: !!binary aGk=\n",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_file_has_the_values_that_omegaconf_reads(text: str) -> None:
    expected: Any = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
    assert repr(load(text.encode(), "f.yaml").body) == repr(expected)


@pytest.mark.parametrize("text", REFUSED)
def test_a_malformed_file_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(InputError) as raised:
        load(text.encode(), "f.yaml")
    assert raised.value.file == "f.yaml"
    assert raised.value.line
    assert raised.value.hint


def nest(levels: int, width: int, merge: bool = False) -> str:
    rows = ["a0: &a0 {x: 1}" if merge else "a0: &a0 [x, x]"]
    for i in range(1, levels):
        refs = ", ".join([f"*a{i - 1}"] * width)
        rows.append(f"a{i}: &a{i} {{<<: [{refs}], k{i}: 1}}" if merge else f"a{i}: &a{i} [{refs}]")
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        "[" * 50_000,
        "a: " + "[" * 5000 + "]" * 5000,
        "- " * 5000 + "x",
        "{a: " * 3000 + "1" + "}" * 3000,
        nest(9, 9),
        nest(30, 2, merge=True),
        nest(5000, 1),
        "a: &a [*a]",
        "a: &a {b: *a}",
        "a: &a\n  <<: *a\n",
        "a: [" + "1," * 60_000 + "1]",
        "a: " + "9" * 5000,
        "a: " + ":".join(["59"] * 400),
        "a: 0x" + "f" * 5000,
        "a: " + "x" * 300_000,
        "a: ${" + "${" * 5000 + "b" + "}" * 5000 + "}",
        "a: ${oc.decode:" + "[" * 2000 + "]" * 2000 + "}",
        "%YAML 1.1\n" * 2 + "---\na: 1\n",
    ],
    ids=lambda text: text[:12] + str(len(text)),
)
def test_a_file_beyond_the_bounds_is_refused_before_it_is_built(text: str) -> None:
    with pytest.raises(InputError):
        load(text.encode(), "f.yaml")


def test_lines_are_those_of_the_text() -> None:
    text = "# @package x\n\ndefaults:\n  - a: b\n  - c\nk:\n  l: 1\n  ü: [1,\n    2]\nb: &b {x: 1}\nm:\n  <<: *b\n"
    document = load(text.encode(), "f.yaml")
    assert document.package == "x"
    assert document.defaults == ({"a": "b"}, "c")
    assert [document.line(path) for path in (("k",), ("k", "l"), ("k", "ü", 1), ("b", "x"), ("m", "x"), ("k", "no"))] == [
        6, 7, 9, 10, 10, 6,
    ]  # fmt: skip
    assert document.default_line("c") == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${a.b}", []),
        ("${oc.env:A}", ["oc.env"]),
        (r"\${now:x}", []),
        (r"\\${now:x}", ["now"]),
        ('${oc.decode:${oc.env:F,"${b}"}}', ["oc.decode", "oc.env"]),
        ("x ${${a}:1} y", ["${a}"]),
        ("${a.${now:x}}", ["now"]),
    ],
)
def test_resolvers_are_found_without_running_them(text: str, expected: list[str]) -> None:
    assert resolvers(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python x.py", ["python", "x.py"]),
        ("a 'b c' \"d e\" f\\ g", ["a", "b c", "d e", "f g"]),
        ("a ${x} b${y}c", ["a", "${x}", "b${y}c"]),
        ("a ${oc.select: x, 'y z'} b", ["a", "${oc.select: x, 'y z'}", "b"]),
        ("a '${x y}' \"q ${z}\"", ["a", "${x y}", "q ${z}"]),
        ("a ${x.${y}} b", ["a", "${x.${y}}", "b"]),
        ("sh -c 'echo $0 $HOME'", ["sh", "-c", "echo $0 $HOME"]),
        (r"a \${HOME} b", ["a", r"\${HOME}", "b"]),
        ("", []),
    ],
)
def test_a_command_splits_as_a_shell_splits_and_never_within_a_reference(text: str, expected: list[str]) -> None:
    assert split_command(text) == expected
