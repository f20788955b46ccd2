"""A job's resolved spec as JSON and YAML. The YAML is for reading: each leaf with the file and line it comes from."""

import json
from collections.abc import Iterator, Mapping

from espalier.cli.views.record import artifacts_tree, policy_tree
from espalier.cli.views.value import printable
from espalier.core.content import digest, origin_of, plain
from espalier.core.model import Commit, Job, Json
from espalier.core.wire import yaml_scalar

_NODES = ("sweep", "resources", "policy", "artifacts")  # nodes of the schema: what is left out of them is a default
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
        if isinstance(inner, dict) and inner:
            yield f"{indent}{yaml_scalar(name)}:"
            yield from _lines(inner, indent + "  ", path, origins)
        else:
            text = f"{indent}{yaml_scalar(name)}: {_scalar(inner)}"
            origin = _origin(path, origins)
            yield f"{text:<{COMMENT_AT}}  # {printable(origin)}" if origin else text


def _origin(path: str, origins: Mapping[str, str]) -> str:
    """Return where a leaf comes from; nothing for a default that only the schema wrote beside declared ones."""
    node = path.partition(".")[0]
    if node in _NODES:
        origins = {name: place for name, place in origins.items() if name != node}
    return origin_of(path, origins)


def _scalar(of: Json) -> str:
    if isinstance(of, list):
        return f"[{', '.join(map(_scalar, of))}]"
    if isinstance(of, dict):
        return "{" + ", ".join(f"{yaml_scalar(name)}: {_scalar(inner)}" for name, inner in of.items()) + "}"
    return yaml_scalar(of)
