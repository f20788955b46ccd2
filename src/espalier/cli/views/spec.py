"""A job's resolved spec as JSON and YAML. The YAML is for reading: each leaf with the file and line it comes from."""

import json
import re
from collections.abc import Iterator, Mapping

from espalier.cli.views.record import artifacts_tree, policy_tree
from espalier.cli.views.value import printable
from espalier.core.content import digest, origin_of, plain
from espalier.core.model import Commit, Job, Json

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*\Z")
_PLAIN_TEXT = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+=-]*\Z")
_OTHER_MEANING = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~", "none"}
_OTHER_START = (".", "-", "=")
COMMENT_AT = 44  # column of the comments, where the value leaves room


def spec_json(job: Job, commit: Commit) -> str:
    """Return the contract's JSON of ``spec``."""
    tree: dict[str, Json] = {
        "format": 1,
        "job": job.name,
        "commit": commit.id,
        "digest": digest(job.spec),
        "spec": declared_tree(job),
        "origins": dict(sorted(job.origins.items())),
    }
    return json.dumps(tree, ensure_ascii=False, indent=1)


def spec_yaml(job: Job, commit: Commit) -> str:
    """Return YAML that reads back as the spec, with ``# file:line`` beside each leaf that is not a default."""
    lines = [f"# {job.name} at {commit.id}", f"# digest {digest(job.spec)}"]
    lines += _lines(declared_tree(job), "", "", job.origins)
    return "\n".join(lines)


def declared_tree(job: Job) -> dict[str, Json]:
    """Return the spec with defaults written out, and what a job declares beside it."""
    return {
        "description": job.description,
        **plain(job.spec),
        "policy": policy_tree(job.policy),
        "artifacts": artifacts_tree(job.artifacts),
    }


def _lines(tree: Mapping[str, Json], indent: str, above: str, origins: Mapping[str, str]) -> Iterator[str]:
    for name, inner in tree.items():
        path = f"{above}.{name}" if above else name
        key = name if _PLAIN_KEY.match(name) and name.lower() not in _OTHER_MEANING else _quoted(name)
        if isinstance(inner, dict) and inner:
            yield f"{indent}{key}:"
            yield from _lines(inner, indent + "  ", path, origins)
        else:
            text = f"{indent}{key}: {_scalar(inner)}"
            origin = origin_of(path, origins)
            yield f"{text:<{COMMENT_AT}}  # {printable(origin)}" if origin else text


def _scalar(of: Json) -> str:
    if isinstance(of, str):
        plain_text = _PLAIN_TEXT.match(of) and of.lower() not in _OTHER_MEANING and not of.startswith(_OTHER_START)
        return of if plain_text else _quoted(of)
    if isinstance(of, list):
        return f"[{', '.join(_flow(entry) for entry in of)}]"
    if isinstance(of, dict):
        return "{" + ", ".join(f"{_quoted(name)}: {_flow(entry)}" for name, entry in of.items()) + "}"
    return _number(of)


def _flow(of: Json) -> str:
    return _scalar(of)


def _number(of: bool | int | float | None) -> str:
    text = json.dumps(of)
    if isinstance(of, float) and "e" in text and "." not in text:
        return text.replace("e", ".0e")  # YAML 1.1 reads 1e-05 as text
    return text


def _quoted(text: str) -> str:
    """Double quotes as in JSON, which YAML shares; what JSON leaves unescaped and YAML does not print is escaped."""
    return "".join(
        char if char.isprintable() else f"\\u{ord(char):04x}" for char in json.dumps(text, ensure_ascii=False)
    )
