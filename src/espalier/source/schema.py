"""What a job and the repository's settings may say: one table, from which the checks and the JSON Schema both come.

Never composes and never resolves: it is given resolved values.
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from espalier.core.model import Json, Settings

Path = tuple[Any, ...]
Report = Callable[[str, str, Path], None]
"""Takes message, hint and the path of the node that is wrong."""

Kind = Literal["text", "number", "integer", "boolean", "texts", "command", "map", "space", "node", "nodes", "backend"]

METHODS = ("grid", "points")
LATER_METHODS = ("random", "tpe", "cmaes", "qmc", "nsga2")
INT_MIN, INT_MAX = -(2**63), 2**63 - 1
_NULL: Any = object()


@dataclass(frozen=True, slots=True)
class Field:
    """One key: what it holds, what it means, what it is when left out. ``later`` says that it is not there yet."""

    kind: Kind
    about: str
    default: Json = None
    required: bool = False
    nullable: bool = False
    least: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    fields: Mapping[str, "Field"] = field(default_factory=dict)
    later: str = ""


JOB: Mapping[str, Field] = {
    "description": Field("text", "What the job is for; not part of the digest", "", nullable=True),
    "command": Field("command", "The program: a string (split as a shell splits, no shell) or a list", required=True),
    "code": Field("texts", "git pathspecs (':!…' excludes) whose committed content belongs to the spec", required=True),
    "pass_params": Field(
        "text", "How parameters reach the program", "flags", choices=("flags", "hydra", "env", "file")
    ),
    "env": Field("map", "Environment variables; values that are no strings become JSON, null means not at all", {}),
    "secrets": Field("texts", "Names of environment variables that are handed on and masked everywhere", []),
    "grace_s": Field("number", "Seconds between SIGTERM and SIGKILL", 30.0, least=0),
    "params": Field("map", "Hyperparameters; nested maps become dotted names", {}),
    "sweep": Field(
        "node",
        "A search space; left out for a single trial",
        None,
        nullable=True,
        fields={
            "method": Field("text", "How the space is searched", "grid", choices=METHODS),
            "params": Field(
                "space", "Values in Hydra's override grammar by name; for `points` a list of maps", required=True
            ),
            "objective": Field(
                "node",
                "What makes a trial better than another",
                None,
                nullable=True,
                fields={
                    "metric": Field("text", "Name of the metric", required=True),
                    "goal": Field("text", "Its better direction", required=True, choices=("minimize", "maximize")),
                },
            ),
            "max_trials": Field("integer", "A larger sweep is refused", None, nullable=True, least=1),
            "parallel": Field(
                "integer", "Trials at a time; null: what the backend allows", None, nullable=True, least=1
            ),
            "seed": Field("integer", "Of the search method", 0),
        },
    ),
    "data": Field(
        "nodes",
        "Named inputs; the program finds each one's place in $ESPALIER_DATA_<NAME>",
        {},
        fields={
            "path": Field("text", "A file or folder of the repository", None, nullable=True),
            "uri": Field("text", "Where else it is; file:PATH is untracked on this machine", None, nullable=True),
            "version": Field("text", "Fixes the content of a uri", None, nullable=True),
        },
    ),
    "resources": Field(
        "node",
        "What a trial asks for",
        {},
        fields={
            "cpus": Field("number", "CPUs", 1.0, above=0),
            "memory_gib": Field("number", "Memory in GiB; null: no limit", None, nullable=True, above=0),
            "gpus": Field("number", "GPUs", 0.0, least=0),
            "time_limit_s": Field("number", "Seconds; null: no limit", None, nullable=True, above=0),
            "nodes": Field("integer", "Machines", 1, least=1),
        },
    ),
    "backend": Field("backend", "Where trials run: a kind, or a map with `kind` and that backend's settings", "local"),
    "artifacts": Field(
        "node",
        "What of the output folder goes to MLflow; not part of the digest",
        {},
        fields={
            "include": Field("texts", "Patterns as in .gitignore", ["**"]),
            "exclude": Field("texts", "Patterns as in .gitignore", []),
            "max_mb": Field("number", "Megabytes in all", 500.0, least=0),
        },
    ),
    "policy": Field(
        "node",
        "How trials are treated; not part of the digest",
        {},
        fields={
            "retries": Field("integer", "Further attempts after the program failed", 0, least=0),
            "recoveries": Field("integer", "Further attempts after a trial was lost", 3, least=0),
            "max_failures": Field(
                "integer", "Launch no more once so many trials failed and none has succeeded", 3, least=1
            ),
            "on_supersede": Field(
                "text",
                "What this version does to unfinished trials of earlier ones",
                "finish",
                choices=("finish", "cancel"),
            ),
            "reuse": Field(
                "text",
                "Take results of equal trials over; strict: with equal resources",
                "true",
                choices=("true", "strict", "false"),
            ),
        },
    ),
    "moved": Field("map", "The job's earlier name", later="renaming a job with its history is not there yet"),
    "hydra_app": Field("map", "The program's own Hydra config", later="hydra_app is not there yet"),
}

SETTINGS: Mapping[str, Field] = {
    "project": Field("text", "Names this repository in MLflow", required=True),
    "tracking": Field(
        "node",
        "MLflow",
        {},
        fields={
            "uri": Field("text", "http(s) or a database address", "sqlite:///mlflow.db"),
            "experiment": Field("text", "Template of a job's experiment", "${espalier.project}/${espalier.job}"),
            "artifacts": Field("text", "Where a database store keeps artifacts", None, nullable=True),
        },
    ),
    "ledger": Field(
        "node",
        "Where versions are recorded",
        {},
        fields={
            "remote": Field("text", "Name of the git remote that holds the team's ledger", None, nullable=True),
            "follow": Field("text", "Branch that main lines follow", None, nullable=True),
        },
    ),
    "limits": Field(
        "node",
        "What one apply may start elsewhere",
        {},
        fields={
            "max_new_trials": Field("integer", "Trials", 100, nullable=True, least=0),
            "max_gpu_hours": Field("number", "GPU hours", None, nullable=True, least=0),
            "max_cost": Field("number", "Cost", None, nullable=True, least=0),
        },
    ),
}

_REMOTE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
_BRANCH = re.compile(r"(?!.*(?:\.\.|//|@\{|\.lock\Z|/\Z))[A-Za-z0-9_][A-Za-z0-9_./+@-]*\Z")


_SHAPES: Mapping[str, str] = {
    "texts": "write a list, such as [src]",
    "map": "write `name: value` lines below it",
    "node": "write `name: value` lines below it",
    "nodes": "write `name: value` lines below it",
}


def check_keys(fields: Mapping[str, Field], node: Mapping[Any, Any], path: Path, report: Report) -> None:
    """Report keys that the table has none of, required ones that are missing, and those that are not there yet."""
    for name in node:
        if name not in fields:
            near = difflib.get_close_matches(str(name), list(fields), 1)
            hint = f"use {near[0]}" if near else f"there is: {', '.join(fields)}"
            report(f"unknown key {shown((*path, name))!r}", hint, (*path, name))
        elif fields[name].later and node[name] is not None:
            report(f"{shown((*path, name))}: {fields[name].later}", "leave it out", (*path, name))
    for name, about in fields.items():
        if about.required and (name not in node or node[name] is None):
            report(f"{shown((*path, name))} is required: {about.about}", f"add `{name}:`", path)


def check(about: Field, value: Any, path: Path, report: Report) -> Any:
    """Return ``value`` as the field's type; report what is wrong and return the default."""
    if value is None:
        if not about.nullable and not about.required and about.default is not None:
            report(f"{shown(path)} is null", f"leave it out for {_written(about.default)}", path)
        return about.default
    wrong = _fault(about, value)
    if wrong:
        report(f"{shown(path)} is {_written(value)}, {wrong}", _mend(about, value), path)
        return about.default
    if about.kind == "number":
        return float(value)
    if about.kind == "text":
        return _word(value)
    if about.kind == "texts":
        return [_word(text) for text in value]
    if about.kind == "node":
        return check_node(about.fields, value, path, report)
    return value


def check_node(fields: Mapping[str, Field], value: Mapping[Any, Any], path: Path, report: Report) -> dict[str, Any]:
    """Return every key of the table with its value or default."""
    check_keys(fields, value, path, report)
    return {
        name: check(about, value[name], (*path, name), report) if name in value else about.default
        for name, about in fields.items()
    }


def parse_settings(config: Mapping[Any, Any], report: Report) -> Settings:
    """Return the settings of a resolved config; report what is wrong."""
    known = {name: config[name] for name in SETTINGS if name in config}
    found = check_node(SETTINGS, known, (), report)
    groups: list[dict[str, Any]] = [
        found[name] or {key: about.default for key, about in SETTINGS[name].fields.items()}
        for name in ("tracking", "ledger", "limits")
    ]
    tracking, ledger, limits = groups
    if found["project"] is not None and not re.match(r"[^\x00-\x1f/]{1,160}\Z", found["project"]):
        report("project is no name", "use letters, digits, spaces, '_', '-' and '.'", ("project",))
    if ledger["remote"] is not None and not _REMOTE.match(ledger["remote"]):
        report(
            f"ledger.remote is {ledger['remote']!r}, which is no name of a remote",
            "give the name (git remote lists them), never an address",
            ("ledger", "remote"),
        )
    if ledger["follow"] is not None and not _BRANCH.match(ledger["follow"]):
        report(f"ledger.follow is {ledger['follow']!r}, which is no branch", "name a branch", ("ledger", "follow"))
    return Settings(
        project=found["project"] or "",
        tracking_uri=tracking["uri"],
        experiment=tracking["experiment"],
        artifacts_uri=tracking["artifacts"],
        ledger_remote=ledger["remote"],
        ledger_follow=ledger["follow"],
        max_new_trials=limits["max_new_trials"],
        max_gpu_hours=limits["max_gpu_hours"],
        max_cost=limits["max_cost"],
    )


def json_schema() -> dict[str, Json]:
    """Return the JSON Schema (2020-12) of a job file, for editors."""
    job = _node_schema(JOB, "A job of espalier")
    properties = job["properties"]
    if isinstance(properties, dict):
        properties["defaults"] = {"type": "array", "description": "Hydra's defaults list"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {"interpolation": {"type": "string", "pattern": r"\$\{", "description": "An interpolation"}},
        **job,
    }


def shown(path: Path) -> str:
    """Return how a path is written to people: below ``job`` without that word."""
    return ".".join(str(part) for part in (path[1:] if path[:1] == ("job",) and len(path) > 1 else path))


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fault(about: Field, value: Any) -> str:
    """Return what is wrong with a value that is not null, empty when nothing is."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match about.kind:
        case "text":
            plain = isinstance(value, str) or (isinstance(value, bool) and _word(value) in about.choices)
            if not plain and not (about.fields == {} and not about.choices and number):
                return "not text"
            if about.choices and _word(value) not in about.choices:
                return _unlike(_word(value), about)
            return ""
        case "number" | "integer":
            if not number or (about.kind == "integer" and not isinstance(value, int)):
                return "not a whole number" if about.kind == "integer" else "not a number"
            if not math.isfinite(value) or not INT_MIN <= value <= INT_MAX:
                return "not a number that can be used"
            if about.least is not None and value < about.least:
                return f"less than {about.least:g}"
            return f"not above {about.above:g}" if about.above is not None and value <= about.above else ""
        case "boolean":
            return "" if isinstance(value, bool) else "neither true nor false"
        case "texts":
            good = isinstance(value, list) and all(isinstance(text, str) for text in value)
            return "" if good else "not a list of text"
        case "command":
            good = isinstance(value, str) or (isinstance(value, list) and not any(map(_deep, value)))
            return "" if good else "neither text nor a list of words"
        case "space":
            return "" if isinstance(value, dict | list) else "not a map"
        case "backend":
            return "" if isinstance(value, dict | str) else "neither a kind nor a map with `kind`"
        case _:
            return "" if isinstance(value, dict) else "not a map"


def _unlike(word: str, about: Field) -> str:
    near = difflib.get_close_matches(word, about.choices, 1)
    there = f"not one of {', '.join(about.choices)}"
    if about.choices == METHODS and word in LATER_METHODS:
        return f"which is not there yet; {there}"
    return f"{there} (did you mean {near[0]}?)" if near else there


def _mend(about: Field, value: Any) -> str:
    if not about.choices:
        return _SHAPES.get(about.kind, about.about)
    near = difflib.get_close_matches(_word(value), about.choices, 1)
    return f"use {near[0]}" if near else f"use one of these: {', '.join(about.choices)}"


def _deep(value: Any) -> bool:
    return isinstance(value, dict | list) or value is None


def _written(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _node_schema(fields: Mapping[str, Field], about: str) -> dict[str, Json]:
    there = {name: _field_schema(entry) for name, entry in fields.items() if not entry.later}
    required: list[Json] = [name for name, entry in fields.items() if entry.required]
    schema: dict[str, Json] = {
        "type": "object",
        "description": about,
        "properties": dict(there),
        "additionalProperties": False,
    }
    return schema | ({"required": required} if required else {})


def _field_schema(about: Field) -> Json:
    texts: Json = {"type": "array", "items": {"type": "string"}}
    shapes: dict[str, list[Json]] = {
        "text": [{"type": "string"}],
        "number": [{"type": "number"}],
        "integer": [{"type": "integer"}],
        "boolean": [{"type": "boolean"}],
        "texts": [texts],
        "command": [{"type": "string"}, {"type": "array", "items": {"type": ["string", "number", "boolean"]}}],
        "map": [{"type": "object"}],
        "space": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}],
        "node": [_node_schema(about.fields, about.about)] if about.kind == "node" else [],
        "nodes": [{"type": "object", "additionalProperties": _node_schema(about.fields, about.about)}],
        "backend": [{"type": "string"}, {"type": "object", "required": ["kind"]}],
    }
    found = [dict(shape) for shape in shapes[about.kind] if isinstance(shape, dict)]
    for shape in found:
        if about.choices:
            shape["enum"] = list(about.choices)
        if about.least is not None:
            shape["minimum"] = about.least
        if about.above is not None:
            shape["exclusiveMinimum"] = about.above
    options: list[Json] = [*found]
    if about.choices and {"true", "false"} & set(about.choices):
        options.append({"type": "boolean"})
    if about.nullable:
        options.append({"type": "null"})
    options.append({"$ref": "#/$defs/interpolation"})
    schema: dict[str, Json] = {"description": about.about, "anyOf": options}
    return schema if about.required else schema | {"default": about.default}
