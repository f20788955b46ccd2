"""No secrets in text. Never finds every secret: known values and known shapes."""

import re
from collections.abc import Iterable

MASK = "***"
_SHAPES = re.compile(
    r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,}|glpat-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{30,}"
    r"|AKIA[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{35}|sk-[A-Za-z0-9_-]{32,}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
)
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")


def mask(text: str, values: Iterable[str] = ()) -> str:
    """Return ``text`` with the secret ``values``, known secret shapes and credentials in URLs replaced by ``***``."""
    for value in sorted(set(values), key=len, reverse=True):
        if len(value) >= 4:  # shorter ones would blank out ordinary words
            text = text.replace(value, MASK)
    return _USERINFO.sub(f"{MASK}@", _SHAPES.sub(MASK, text))


def without_credentials(uri: str) -> str:
    """Return ``uri`` without user and password."""
    return _USERINFO.sub("", uri)


def secret_shape(text: str) -> bool:
    """Return whether ``text`` holds something of the shape of a known kind of secret."""
    return _SHAPES.search(text) is not None
