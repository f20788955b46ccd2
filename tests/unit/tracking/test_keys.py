"""Names that MLflow takes: one to one, and back."""

import posixpath
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from espalier.tracking.keys import (
    KEY_MAX,
    PARAM_MAX,
    cut,
    decode_key,
    encode_key,
    from_stored,
    param_text,
    to_stored,
)

NAMES = st.text(max_size=40) | st.text(alphabet="_x0245f/.@a", max_size=24)


def taken(name: str) -> bool:
    """Say whether MLflow takes ``name``, by the rules of its ``utils/validation.py``."""
    norm = posixpath.normpath(name)
    path = norm == name and norm != "." and not norm.startswith("..") and not norm.startswith("/")
    return re.match(r"^[/\w.\- :]*$", name) is not None and path and len(name) <= 250


@given(NAMES)
@example("a//b")
@example("/a")
@example("a/")
@example("")
@example("_x_")
@example("_x40_x41_")
@example("_xab@")
@example("@x40_")
@example("../a/./..")
@example("..a")
@example("a\n")
def test_every_name_is_taken_and_comes_back(name: str) -> None:
    written = encode_key(name)
    if len(written) < KEY_MAX:
        assert decode_key(written) == name
    assert taken(written)


@given(NAMES, NAMES)
def test_different_names_stay_different(one: str, other: str) -> None:
    assert (encode_key(one) == encode_key(other)) == (one == other)


def test_long_names_are_cut_visibly_and_stay_different() -> None:
    one, other = encode_key("a" * 300), encode_key("a" * 301)
    assert len(one) == len(other) == KEY_MAX
    assert "_cut_" in one
    assert one != other


@pytest.mark.parametrize("name", ["optim.lr", "val/loss", "top 5", "a:b", "naïve", "max_x"])
def test_an_ordinary_name_stays_as_it_is(name: str) -> None:
    assert encode_key(name) == name


def test_hydras_names_are_readable() -> None:
    assert encode_key("acc@5") == "acc_x40_5"
    assert encode_key("layers[0]") == "layers_x5b_0_x5d_"


def test_params_look_as_mlflows_client_writes_them() -> None:
    values = [0.01, 64, True, None, "relu", [64, 64], 1e-05]
    assert [param_text(value) for value in values] == ["0.01", "64", "True", "None", "relu", "[64, 64]", "1e-05"]


def test_a_long_value_is_cut_visibly() -> None:
    assert len(param_text("a" * 7000)) == PARAM_MAX
    assert param_text("a" * 7000).endswith("(cut)")
    assert cut("short", 10) == "short"


@given(st.floats(allow_nan=False))
def test_numbers_come_back(value: float) -> None:
    if abs(value) < 1.7976931348623157e308 or value in (float("inf"), float("-inf")):
        assert from_stored(to_stored(value)) == value
