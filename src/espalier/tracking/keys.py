"""Names and values as MLflow takes them, and back. Never drops a character unseen.

MLflow allows letters, digits, ``_ - . : /`` and spaces, and no path that normalises to another one.
Every other character is written ``_xHEX_`` with its code point (``acc@5`` is ``acc_x40_5``, ``a//b`` is
``a/_x2f_b``). So that this can be undone, an underscore that could be read as the start of such an escape is
itself escaped (``_x5f_``), and the empty name is ``_x_``. A name that is then longer than 250 characters is
cut and ends with ``_cut_`` and 12 digits of its digest.
"""

import hashlib
import json
import math
import re
from typing import Literal

from espalier.core.model import Json

RunStatus = Literal["SCHEDULED", "RUNNING", "FINISHED", "FAILED", "KILLED"]

KEY_MAX = 250  # MLflow: keys of params, metrics and tags
PARAM_MAX = 6000  # MLflow cuts longer values silently
TAG_MAX = 8000
FLOAT_MAX = 1.7976931348623157e308  # what MLflow keeps for an infinity
CUT_MARK = " … (cut)"

_ESCAPE = re.compile(r"_x([0-9a-f]{2,6})_")
_LIKE_ESCAPE = re.compile(r"_x[0-9a-f]{2}")
_ALLOWED = re.compile(r"[\w.\- :/]")
_EMPTY = "_x_"


def encode_key(name: str) -> str:
    """Return the name under which MLflow takes ``name``; different names give different ones."""
    if not name:
        return _EMPTY
    written = "".join(_encoded(name, at) for at in range(len(name)))
    if len(written) <= KEY_MAX:
        return written
    mark = "_cut_" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return written[: KEY_MAX - len(mark)] + mark


def decode_key(written: str) -> str:
    """Return the name that ``encode_key`` wrote so; a name that a program logged itself stays as it is."""
    if written == _EMPTY:
        return ""
    return _ESCAPE.sub(lambda match: _character(match), written)


def param_text(value: Json) -> str:
    """Return ``value`` as MLflow's own client writes it, so that a program may log the same param again."""
    return cut(value if isinstance(value, str) else str(value), PARAM_MAX)


def show(value: Json) -> str:
    """Return ``value`` for people: strings as they are, others as compact JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def cut(text: str, limit: int) -> str:
    """Return ``text`` within ``limit`` characters, with a mark at the end where it was cut."""
    return text if len(text) <= limit else text[: limit - len(CUT_MARK)] + CUT_MARK


def to_stored(value: float) -> float:
    """Return ``value`` with infinities as MLflow keeps them; NaN stays."""
    return math.copysign(FLOAT_MAX, value) if math.isinf(value) else value


def from_stored(value: float) -> float:
    """Return the value that ``to_stored`` made so."""
    return math.copysign(math.inf, value) if abs(value) >= FLOAT_MAX else value


def _encoded(name: str, at: int) -> str:
    character = name[at]
    if character == "/":
        fits = 0 < at < len(name) - 1 and name[at - 1] != "/"
    elif character == ".":
        fits = not _begins_dots(name, at)
    elif character == "_":
        fits = not (_LIKE_ESCAPE.match(name, at) or name == _EMPTY)
    else:
        fits = _ALLOWED.match(character) is not None
    return character if fits else f"_x{ord(character):02x}_"


def _begins_dots(name: str, at: int) -> bool:
    """Return whether the point at ``at`` starts a segment that a path would lose."""
    if at and name[at - 1] != "/":
        return False
    segment = name[at:].partition("/")[0]
    return segment in (".", "..") or (at == 0 and segment.startswith(".."))


def _character(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    return chr(code) if code <= 0x10FFFF else match[0]
