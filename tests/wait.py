"""Waiting for a condition; the only sleep of the tests. Never waits for a length of time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], within_s: float = 30, every_s: float = 0.02) -> T:
    """Return the first true answer of ``condition``; fail with the last one after ``within_s`` seconds."""
    end = time.monotonic() + within_s
    while True:
        seen = condition()
        if seen:
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"{getattr(condition, '__name__', condition)} was last {seen!r}, {within_s} s after")
        time.sleep(every_s)  # noqa: TID251
