"""A saved plan: exactly the JSON of ``plan``. Reading checks all of it; it is somebody else's file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espalier.cli.views.plan import plan_json
from espalier.core.content import Change
from espalier.core.errors import EspalierError, InputError
from espalier.core.model import JobError
from espalier.core.names import parse_job, parse_line
from espalier.core.plan import KINDS, Action, Plan, TrialPlan

BYTES_MAX = 64 * 1024 * 1024
FORMAT = 1
HEX = frozenset("0123456789abcdef")


def write(plan: Plan, path: Path) -> None:
    """Write ``plan`` to ``path``, over what is there."""
    try:
        path.write_text(plan_json(plan) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}", hint="name a file in a folder that exists"
        ) from error


def read(path: Path) -> Plan:
    """Return the plan in ``path``; InputError when it is not one, whole."""
    try:
        if path.stat().st_size > BYTES_MAX:
            raise _bad(path, f"it has more than {BYTES_MAX // 1024 // 1024} MB")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", hint="make one: espalier plan --out FILE"
        ) from error
    except UnicodeDecodeError as error:
        raise _bad(path, "it is not text in UTF-8") from error
    try:
        tree = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"it is not JSON ({error})") from error
    try:
        return _plan(tree)
    except _Fault as fault:
        raise _bad(path, str(fault)) from fault
    except EspalierError as error:
        raise _bad(path, error.message) from error


class _Fault(Exception):
    """What is wrong in the file, before its name is known."""


def _bad(path: Path, why: str) -> InputError:
    return InputError(f"no saved plan: {why}", hint="make one: espalier plan --out FILE", file=str(path))


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _plan(tree: Any) -> Plan:
    root = _map(tree, "the plan")
    if _field(root, "format", int, "the plan") != FORMAT:
        raise _Fault(f"its format is {root['format']}, this espalier reads {FORMAT}")
    commit = _hex(_field(root, "commit", str, "the plan"), (40, 64), "commit")
    ledger = _field(root, "ledger", (str, type(None)), "the plan")
    actions = tuple(_action(entry) for entry in _list(root, "actions"))
    names = [(action.job, action.line) for action in actions]
    if len(set(names)) != len(names):
        raise _Fault("a job has two actions")
    return Plan(
        commit=commit,
        ledger=_hex(ledger, (40, 64), "ledger") if ledger is not None else None,
        ledger_id=_field(root, "ledger_id", (str, type(None)), "the plan"),
        actions=actions,
        errors=tuple(_error(entry) for entry in _list(root, "errors")),
        behind=root.get("behind", False) is True,
        globs=tuple(_text(glob, "the plan") for glob in (_list(root, "jobs") if "jobs" in root else ())),
    )


def _action(entry: Any) -> Action:
    tree = _map(entry, "an action")
    kind = _field(tree, "action", str, "an action")
    if kind not in KINDS:
        raise _Fault(f"{kind!r} is no action")
    job = parse_job(_field(tree, "job", str, "an action"))
    line = _field(tree, "line", (str, type(None)), job)
    trials = _map(_field(tree, "trials", dict, job), job)
    return Action(
        action=kind,
        job=job,
        line=parse_line(line) if line is not None else None,
        version=_number(tree, "version", job, least=1),
        parent=None if _field(tree, "parent", (int, type(None)), job) is None else _number(tree, "parent", job, 1),
        digest=_hex(_field(tree, "digest", str, job), (64,), f"digest of {job}"),
        reason=_field(tree, "reason", str, job),
        changes=tuple(_change(change, job) for change in _list(tree, "changes")),
        trials=TrialPlan(
            **{name: _number(trials, name, job, 0) for name in ("total", "reused", "waiting", "run", "cancel")}
        ),
        notes=tuple(_text(note, job) for note in (_list(tree, "notes") if "notes" in tree else ())),
    )


def _change(entry: Any, job: str) -> Change:
    tree = _map(entry, f"a change of {job}")
    for name in ("old", "new"):
        if name not in tree:
            raise _Fault(f"a change of {job} has no {name!r}")
    origin = _text(tree.get("origin", ""), job)
    return Change(_field(tree, "path", str, f"a change of {job}"), tree["old"], tree["new"], origin)


def _error(entry: Any) -> JobError:
    tree = _map(entry, "an error")
    return JobError(
        job=_field(tree, "job", str, "an error"),
        message=_field(tree, "message", str, "an error"),
        hint=_field(tree, "hint", str, "an error"),
        file=_field(tree, "file", (str, type(None)), "an error") or "",
        line=_field(tree, "line", (int, type(None)), "an error"),
    )


def _map(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _Fault(f"{what} is no object")
    return value


def _list(tree: Mapping[str, Any], name: str) -> Sequence[Any]:
    found = _field(tree, name, list, "the plan")
    return found if isinstance(found, list) else []


def _field(tree: Mapping[str, Any], name: str, kinds: type | tuple[type, ...], what: str) -> Any:
    if name not in tree:
        raise _Fault(f"{what} has no {name!r}")
    value = tree[name]
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise _Fault(f"{name!r} of {what} is of a wrong kind")
    return value


def _number(tree: Mapping[str, Any], name: str, what: str, least: int) -> int:
    value = int(_field(tree, name, int, what))
    if value < least:
        raise _Fault(f"{name!r} of {what} is below {least}")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise _Fault(f"a text of {what} is of a wrong kind")
    return value


def _hex(text: str, lengths: tuple[int, ...], what: str) -> str:
    if len(text) not in lengths or not set(text) <= HEX:
        raise _Fault(f"{what} is not {' or '.join(map(str, lengths))} hex digits")
    return text
