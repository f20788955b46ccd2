"""Names that are safe as ref, path, label and argument, and the keys made of them. Never looks a name up."""

import re
from dataclasses import dataclass

from espalier.core.errors import InputError

JOB_MAX = 160
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
_LINE = re.compile(r"[a-z0-9][a-z0-9-]{0,39}\Z")
_BAD_ENDINGS = (".yaml", ".json", ".jsonl", ".lock", ".")
_TARGET = re.compile(
    r"(?P<job>[^@+]+)(?:\+(?P<line>[^@+]+))?(?:@v?(?P<version>[0-9]{1,12})(?:/(?P<trial>[0-9a-f]{1,12}))?)?\Z"
)


@dataclass(frozen=True, slots=True)
class Target:
    """What a person points at: ``JOB``, ``JOB+LINE``, ``JOB@vN`` or ``JOB@vN/TRIAL``; ``trial`` is a prefix."""

    job: str
    line: str | None = None
    version: int | None = None
    trial: str | None = None


def job_fault(name: str) -> str | None:
    """Return why ``name`` is not a legal job name, None when it is one."""
    if len(name) > JOB_MAX:
        return f"it has {len(name)} characters, {JOB_MAX} are allowed"
    for segment in name.split("/"):
        if not _SEGMENT.match(segment):
            return f"{segment!r} is not letters, digits, '_', '-' and '.' that start with a letter or digit"
        if segment.endswith(_BAD_ENDINGS):
            return f"{segment!r} ends like a file of ours"
        if segment == "open":
            return "'open' is a folder of the ledger"
    return None


def parse_job(name: str) -> str:
    """Return ``name``; raise InputError when it is not a legal job name."""
    fault = job_fault(name)
    if fault:
        raise InputError(
            f"{name!r} is no job name: {fault}",
            hint="use segments of letters, digits, '_', '-' and '.' joined by '/'",
        )
    return name


def parse_line(name: str) -> str:
    """Return ``name``; raise InputError when it is not a legal name of a side line."""
    if not _LINE.match(name):
        raise InputError(
            f"{name!r} is no name of a side line",
            hint="use up to 40 lower-case letters, digits and '-', starting with a letter or digit",
        )
    return name


def parse_target(text: str) -> Target:
    """Return what ``JOB[+LINE][@vN[/TRIAL]]`` points at; raise InputError when it is not of that form."""
    match = _TARGET.match(text)
    if not match:
        raise InputError(f"{text!r} is not JOB[@vN[/TRIAL]]", hint="write for example digits/mlp@v3/1f0c9a2e")
    job, line, version, trial = match["job"], match["line"], match["version"], match["trial"]
    if version is not None and not version.strip("0"):
        raise InputError(f"{text!r}: versions are numbered from 1", hint=f"without @v{version} it is the last one")
    return Target(parse_job(job), parse_line(line) if line else None, int(version) if version else None, trial)


def line_name(job: str, line: str | None) -> str:
    """Return how a line is written: ``vision/resnet`` or ``vision/resnet+lr-scan``."""
    return f"{job}+{line}" if line else job


def version_name(job: str, line: str | None, version: int) -> str:
    """Return how a version is written: ``vision/resnet@v3``."""
    return f"{line_name(job, line)}@v{version}"


def trial_name(job: str, line: str | None, version: int, trial: str) -> str:
    """Return the whole name of a trial: ``vision/resnet@v3/1f0c9a2e4b5d``."""
    return f"{version_name(job, line, version)}/{trial}"


def shard(job: str) -> str:
    """Return ``<hh>``, the folder of the ledger that holds ``job``."""
    return _sha256(job)[:2]


def attempt_key(ledger_id: str, job: str, line: str | None, version: int, trial: str, attempt: int) -> str:
    """Return the 40 hex digits under which one attempt is sent, the same in every process."""
    return _key(ledger_id, line_name(job, line), str(version), trial, str(attempt))


def run_key(ledger_id: str, job: str, line: str | None, version: int, trial: str | None) -> str:
    """Return the 40 hex digits by which the MLflow run of a trial, or of a version (no trial), is found."""
    return _key(ledger_id, line_name(job, line), str(version), *([trial] if trial else []))


def _key(*parts: str) -> str:
    return _sha256("\n".join(parts))[:40]


def _sha256(text: str) -> str:
    import hashlib  # OpenSSL: a fifth of the start of a command that shows what is recorded

    return hashlib.sha256(text.encode()).hexdigest()
