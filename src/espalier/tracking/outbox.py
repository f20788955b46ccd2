"""What of a run was sent already, so that a pass sends only what is new. May be lost: then all is sent again."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from espalier.tracking.keys import encode_key, to_stored
from espalier.tracking.store import Metric

_STEP_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Owed:
    """An attempt that ended while MLflow was away and that another one followed; paths of what it left."""

    attempt: int
    metrics: str | None
    log: str | None


@dataclass(frozen=True, slots=True)
class Sent:
    """``spools`` has how many bytes of each file of metrics MLflow acknowledged."""

    running: int = 0  # the attempt that is shown as RUNNING
    artifacts: int = 0  # the attempt whose artifacts are there
    pages: bool = False  # spec.yaml and diff.md are there
    gone: bool = False  # a person deleted the run
    spools: Mapping[str, int] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()  # names, whose values are masked in its logs
    owed: tuple[Owed, ...] = ()


class Outbox:
    """A small file for each run below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, run_id: str) -> Sent:
        """Return what was sent of the run; nothing when that is not known."""
        try:
            kept = json.loads(self._file(run_id).read_text("utf-8"))
            return Sent(
                running=int(kept["running"]),
                artifacts=int(kept["artifacts"]),
                pages=bool(kept["pages"]),
                gone=bool(kept["gone"]),
                spools=dict(kept["spools"]),
                secrets=tuple(kept["secrets"]),
                owed=tuple(Owed(**owed) for owed in kept["owed"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return Sent()

    def write(self, run_id: str, sent: Sent) -> None:
        """Keep ``sent``, whole or not at all."""
        file = self._file(run_id)
        file.parent.mkdir(parents=True, exist_ok=True)
        staged = file.with_suffix(f".{os.getpid()}.tmp")
        staged.write_text(json.dumps(asdict(sent)), "utf-8")
        os.replace(staged, file)

    def _file(self, run_id: str) -> Path:
        return self._folder / f"{run_id}.json"


def unsent(spool: Path, offset: int, *, ended: bool) -> tuple[list[Metric], int]:
    """Return the points after ``offset`` and the offset behind them; a last line without end only when ``ended``."""
    try:
        with spool.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size < offset:
                offset = 0  # another file: all of it is new
            stream.seek(offset)
            new = stream.read()
    except FileNotFoundError:
        return [], offset
    if not ended:
        new = new[: new.rfind(b"\n") + 1]
    points = [point for line in new.split(b"\n") if (point := _point(line)) is not None]
    return points, offset + len(new)


def last_values(spool: Path) -> dict[str, float]:
    """Return the last value of each metric in a spool, by step and then by order."""
    last: dict[str, tuple[int, float]] = {}
    try:
        lines = spool.read_bytes().split(b"\n")
    except OSError:
        return {}
    for line in lines:
        try:
            told = json.loads(line)
            key, value, step = str(told["key"]), float(told["value"]), int(told.get("step", 0))
        except (ValueError, KeyError, TypeError, OverflowError):
            continue
        if key not in last or step >= last[key][0]:
            last[key] = (step, value)
    return {key: value for key, (_, value) in last.items()}


def _point(line: bytes) -> Metric | None:
    """Return the point that a line of a spool holds; None for a line that is torn or none."""
    try:
        told = json.loads(line)
        value, step, timestamp = float(told["value"]), int(told.get("step", 0)), int(told["timestamp"])
        key = encode_key(str(told["key"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    value = value if math.isnan(value) else to_stored(value)
    return Metric(key, value, max(timestamp, 0), max(-_STEP_MAX, min(step, _STEP_MAX)))
