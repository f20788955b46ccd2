"""A stream without secrets, wherever it is cut."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from espalier.worker.masking import Masking

SECRETS = [b"abcab", b"abcabcab", b"hunter2\nline2", b"xyz"]


def masked(pieces: list[bytes], secrets: list[bytes]) -> bytes:
    masking = Masking(secrets)
    return b"".join([masking.add(piece) for piece in pieces] + [masking.add(b"", final=True)])


@given(st.text("abcxyz\n", max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_cuts_change_nothing(text: str, cuts: list[int]) -> None:
    whole = text.encode()
    edges = [0, *sorted(cuts), len(whole)]
    pieces = [whole[start:end] for start, end in itertools.pairwise(edges)]
    shown = masked(pieces, SECRETS)
    assert shown == masked([whole], SECRETS)
    assert b"abcab" not in shown


def test_values_are_replaced_longest_first_and_short_ones_are_not_secrets() -> None:
    assert masked([b"a abcabcab xyz ", b"hunter2\n", b"line2!"], SECRETS) == b"a *** xyz ***!"


def test_bytes_that_are_no_text_pass() -> None:
    assert masked([b"\xff\xfe abcab \x00"], SECRETS) == b"\xff\xfe *** \x00"


def test_what_cannot_be_a_secret_is_not_kept_back() -> None:
    masking = Masking(SECRETS)
    assert masking.add(b"loss: 0.1") == b"loss: 0.1"
    assert masking.add(b" abc") == b" "
    assert masking.add(b"d") == b"abcd"
