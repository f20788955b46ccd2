"""Values as a spec holds them: what JSON keeps exactly, flat names, a command's words. Never resolves."""

import math
import re
import shlex
from collections.abc import Iterator
from typing import Any

from espalier.core.errors import InputError
from espalier.source.resolve import Fault
from espalier.source.schema import INT_MAX, INT_MIN, Path


def checked(value: Any, name: str, path: Path) -> Any:
    """Return ``value``; Fault for what JSON cannot hold exactly."""
    if isinstance(value, float) and not math.isfinite(value):
        raise Fault(f"{name} is {value}, which is not finite", hint="write a finite number or a string", path=path)
    if isinstance(value, int) and not isinstance(value, bool) and not INT_MIN <= value <= INT_MAX:
        raise Fault(f"{name} is an integer over 64 bits", hint="write a string", path=path)
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise Fault(f"{name}: the key {key!r} is no text", hint="quote it", path=path)
            checked(inner, f"{name}.{key}", path)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            checked(inner, f"{name}.{index}", path)
    elif not isinstance(value, str | int | float | None):
        raise Fault(f"{name} is a {type(value).__name__}", hint="use text, numbers, lists and maps", path=path)
    return value


def flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted names and leaves; a list and an empty map are leaves."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            if not isinstance(key, str) or not key or "." in key:
                raise InputError(f"{name}: the key {key!r} is no plain name", hint="quote it, and nest instead of dots")
            yield from flat(inner, f"{name}.{key}")
    else:
        yield name, value


def split_command(text: str) -> list[str]:
    """Return the words that a shell would see; an interpolation is part of a word whatever it holds."""
    held: list[str] = []
    out: list[str] = []
    at = 0
    while (start := text.find("${", at)) >= 0:
        slashes = len(text[at:start]) - len(text[at:start].rstrip("\\"))
        end = start + 2 if slashes % 2 else _closing(text, start)
        begin = start - 1 if slashes % 2 else start
        out.append(text[at:begin])
        out.append(f"\ue000{len(held)}\ue001")  # private use: no shell syntax
        held.append(text[begin:end])
        at = end
    try:
        words = shlex.split("".join(out) + text[at:])
    except ValueError as error:
        raise InputError(f"command cannot be split: {error}", hint="close the quotes, or write a list") from None
    return [re.sub("\ue000([0-9]+)\ue001", lambda match: held[int(match[1])], word) for word in words]


def _closing(text: str, start: int) -> int:
    """Return the index after the ``}`` that closes the ``${`` at ``start``; quotes within are text."""
    depth, quote, at = 0, "", start
    while at < len(text):
        sign = text[at]
        if sign == "\\":
            at += 2
            continue
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign == "{":
            depth += 1
        elif sign == "}":
            depth -= 1
            if not depth:
                return at + 1
        at += 1
    raise InputError("an interpolation is not closed", hint="close it with }")
