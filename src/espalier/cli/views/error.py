"""An error for people and for scripts. Never decides what to do about it."""

import json

from espalier.cli.views.value import printable


def error_text(error: Exception) -> str:
    """Return ``error: [file:line: ]message`` and a line with the hint."""
    return "\n".join(printable(line) for line in str(error).splitlines())


def error_json(error: Exception) -> str:
    """Return the error object of the contract."""
    return _object(
        getattr(error, "message", str(error)),
        getattr(error, "hint", ""),
        getattr(error, "file", "") or None,
        getattr(error, "line", None),
    )


def bug_text(said: str, path: str) -> str:
    """Return what a person is told of a fault of ours."""
    place = f"the traceback is in {path}" if path else "the traceback could not be written anywhere"
    return f"error: this is a bug in espalier: {printable(said)}\n  hint: {place}; please report it with that file"


def bug_json(said: str, path: str) -> str:
    """Return the error object of a fault of ours."""
    return _object(f"this is a bug in espalier: {said}", f"the traceback is in {path}" if path else "", None, None)


def _object(message: str, hint: str, file: str | None, line: int | None) -> str:
    return json.dumps(
        {"format": 1, "error": {"message": message, "hint": hint, "file": file, "line": line}}, ensure_ascii=False
    )
