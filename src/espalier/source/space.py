"""A sweep's values in Hydra's override grammar. Counts before it enumerates, never shuffles.

A string is read as Hydra reads what stands after ``key=``; any other YAML value stands for itself. So
``choice(1,2)``, ``1,2`` and ``range(1,3)`` are two values each, and a YAML list is *one* value, which is a list,
exactly as in ``hydra.sweeper.params``.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from itertools import pairwise, product
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep, Sweep
from hydra.errors import HydraException

from espalier.core.errors import InputError

POINTS_MAX = 100_000
TEXT_MAX = 20_000  # characters: Hydra's parser takes 91 ms for 1,000 choices

_NAME = re.compile(r"[^+~.\s=@][^.\s=@]*(\.[^.\s=@]+)*\Z")


def parse_values(text: Any, name: str) -> tuple[Any, ...]:
    """Return the values that ``text`` stands for, in Hydra's order; InputError for what cannot be enumerated."""
    if not isinstance(text, str):
        return (text,)
    if len(text) > TEXT_MAX:
        raise InputError(
            f"the values of {name!r} take {len(text)} characters, {TEXT_MAX} are allowed", hint="use range()"
        )
    try:
        override = OverridesParser.create().parse_override(f"x={text}")
        value = override._value
        if override.is_interval_sweep() or isinstance(value, IntervalSweep):
            raise InputError(
                f"{name!r}: interval() has no end of values, and the methods that draw from it are not there yet",
                hint="use range(start,stop,step) or choice(…)",
            )
        if isinstance(value, Glob) or (isinstance(value, ChoiceSweep) and any(isinstance(v, Glob) for v in value.list)):
            raise InputError(f"{name!r}: glob() names config groups, no parameter values", hint="use choice(…)")
        if not isinstance(value, Sweep):
            return (Override._convert_value(value),)
        if getattr(value, "shuffle", False):
            raise InputError(f"{name!r}: shuffle() gives another order each time", hint="leave it out")
        count = _count(value, name)
        if count > POINTS_MAX:
            raise InputError(f"{name!r} has {count:,} values, {POINTS_MAX:,} are allowed", hint="take larger steps")
        return tuple(Override._convert_value(each) for each in override.sweep_iterator())
    except (HydraException, ValueError, TypeError, RecursionError, InvalidOperation, OverflowError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        said = [line for line in said if line.strip("^ ")]
        raise InputError(
            f"{name!r}: {text!r} is not in Hydra's override grammar: {said[-1]}",
            hint="write choice(a,b), range(start,stop,step) or a,b; quote text with special characters",
        ) from error


def flat_values(tree: Mapping[Any, Any]) -> dict[str, tuple[tuple[Any, ...], Any]]:
    """Return dotted name → (path in ``tree``, value) of nested or dotted keys; InputError for names given twice."""
    found: dict[str, tuple[tuple[Any, ...], Any]] = {}

    def walk(node: Mapping[Any, Any], path: tuple[Any, ...]) -> None:
        for key, value in node.items():
            here = (*path, key)
            name = ".".join(str(part) for part in here)
            if not isinstance(key, str) or not _NAME.match(key):
                raise InputError(
                    f"{name!r} is no name of a parameter",
                    hint="write names as params has them, nested or dotted, without +, ~ and @",
                )
            if isinstance(value, Mapping) and value:
                walk(value, here)
                continue
            if name in found:
                raise InputError(f"{name!r} is given twice", hint="give it once, nested or dotted")
            found[name] = here, value

    walk(tree, ())
    names = sorted(found)
    for one, other in pairwise(names):
        if other.startswith(f"{one}."):
            raise InputError(f"{one!r} is given, and {other!r} within it too", hint="give one of them")
    return found


def check_size(count: int, max_trials: int | None) -> None:
    """Refuse more points than ``max_trials``, or than anybody wants; InputError with both numbers."""
    limit = POINTS_MAX if max_trials is None else min(max_trials, POINTS_MAX)
    if count > limit:
        named = "sweep.max_trials is" if max_trials is not None and max_trials <= POINTS_MAX else "the limit is"
        raise InputError(f"the sweep has {count:,} points, {named} {limit:,}", hint="take fewer values, or raise it")


def grid(space: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Yield the points of a grid as Hydra's basic sweeper orders them: the last name changes fastest."""
    for values in product(*space.values()):
        yield dict(zip(space, values, strict=True))


def _count(value: Sweep, name: str) -> int:
    if isinstance(value, ChoiceSweep):
        return len(value.list)
    if not isinstance(value, RangeSweep):
        raise InputError(f"{name!r} cannot be enumerated", hint="use choice(…) or range(…)")
    if any(isinstance(end, float) and not math.isfinite(end) for end in (value.start, value.stop, value.step)):
        raise InputError(f"{name!r}: a range without end", hint="give finite numbers")
    start, stop, step = Decimal(value.start or 0), Decimal(value.stop or 0), Decimal(value.step)
    if not step:
        raise InputError(f"{name!r}: a range whose step is 0", hint="give another step")
    return max(0, math.ceil((stop - start) / step))
