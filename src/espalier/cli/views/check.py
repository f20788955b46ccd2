"""What was checked, line by line, and how to mend what is not well: doctor and fsck. Never checks anything."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from espalier.cli.views.style import PLAIN, Cell, Row, Style, columns
from espalier.cli.views.value import count, printable

Verdict = Literal["ok", "warn", "fail"]
COLOURS: dict[Verdict, str] = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; ``mend`` says what to do where it is not ok."""

    name: str
    verdict: Verdict
    message: str
    mend: str = ""


def doctor_text(checks: Sequence[Check], style: Style = PLAIN) -> str:
    """Return a row for each check, with how to mend below what is not ok."""
    rows: list[Row] = [[Cell(c.verdict, COLOURS[c.verdict]), c.name, printable(c.message)] for c in checks]
    lines = []
    for row, check in zip(columns(rows, style, last_cut=False), checks, strict=True):
        lines.append(row)
        if check.mend and check.verdict != "ok":
            lines.append(f"        {style.paint('mend:', 'cyan')} {printable(check.mend)}")
    failed = sum(check.verdict == "fail" for check in checks)
    warned = sum(check.verdict == "warn" for check in checks)
    parts = [f"{failed} failed"] if failed else []
    parts += [count(warned, "warning")] if warned else []
    return "\n".join([*lines, "", ", ".join(parts) or "all is well"])


def doctor_json(checks: Sequence[Check]) -> str:
    """Return the checks as JSON; ``ok`` is false when one failed."""
    rows = [{"name": c.name, "verdict": c.verdict, "message": c.message, "mend": c.mend} for c in checks]
    ok = all(check.verdict != "fail" for check in checks)
    return json.dumps({"format": 1, "ok": ok, "checks": rows}, ensure_ascii=False)


def fsck_text(problems: Sequence[tuple[str, str]], style: Style = PLAIN) -> str:
    """Return what is wrong with the ledger and how to mend it."""
    if not problems:
        return "the ledger is sound"
    lines = []
    for message, hint in problems:
        lines += [f"{style.paint('problem:', 'red')} {printable(message)}", f"  hint: {printable(hint)}"]
    return "\n".join([*lines, "", count(len(problems), "problem")])


def fsck_json(problems: Sequence[tuple[str, str]]) -> str:
    """Return the contract's JSON of ``fsck``."""
    rows = [{"message": message, "hint": hint} for message, hint in problems]
    return json.dumps({"format": 1, "ok": not problems, "problems": rows}, ensure_ascii=False)
