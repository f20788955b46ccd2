"""Identity: the canonical form of a spec, its digest, the difference of two. Never reads anything else."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from espalier.core.model import Data, Json, Objective, Point, Program, Resources, Spec, Sweep

SCHEME = 1
"""Number of the canonical form; versions are compared under the scheme that they record."""

TRIAL_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Change:
    """One leaf that differs; None stands for absent too. ``origin`` is where the new value comes from."""

    path: str
    old: Json
    new: Json
    origin: str = field(default="", compare=False)


def canonical_json(value: Json) -> str:
    """Return compact JSON with sorted keys; integers as digits, floats as Python's repr, -0.0 as 0.0.

    Raises ValueError for a value that is not finite.
    """
    return json.dumps(_plain_zero(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256(text: str) -> str:
    """Return the SHA-256 of ``text`` in UTF-8, as 64 hex digits."""
    import hashlib  # OpenSSL: a fifth of the start of a command that shows what is recorded

    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def plain(spec: Spec) -> dict[str, Json]:
    """Return ``spec`` as JSON values, every default written out, params flat by dotted name."""
    full: dict[str, Json] = {
        "command": list(spec.command),
        "code": dict(spec.code),
        "pass_params": spec.pass_params,
        "env": dict(spec.env),
        "secrets": list(spec.secrets),
        "grace_s": float(spec.grace_s),
        "params": dict(spec.params),
        "sweep": _plain_sweep(spec.sweep) if spec.sweep else None,
        "data": {name: plain_data(data) for name, data in spec.data.items()},
        "resources": _plain_resources(spec.resources),
        "backend": dict(spec.backend),
        "app": dict(spec.app),
        "context": dict(spec.context),
    }
    return full


def from_plain(tree: Mapping[str, Any]) -> Spec:
    """Return the spec whose ``plain`` or ``canonical`` form is ``tree``."""
    sweep = tree.get("sweep")
    return Spec(
        command=tuple(tree["command"]),
        code=dict(tree.get("code", {})),
        pass_params=tree.get("pass_params", "flags"),
        env=dict(tree.get("env", {})),
        secrets=tuple(tree.get("secrets", ())),
        grace_s=float(tree.get("grace_s", 30.0)),
        params=dict(tree.get("params", {})),
        sweep=_sweep_from(sweep) if sweep is not None else None,
        data={name: data_from(data) for name, data in tree.get("data", {}).items()},
        resources=Resources(**tree.get("resources", {})),
        backend=dict(tree.get("backend", {"kind": "local"})),
        app=dict(tree.get("app", {})),
        context=dict(tree.get("context", {})),
    )


def canonical(spec: Spec) -> dict[str, Json]:
    """Return ``plain(spec)`` without what equals its schema default and without what is no identity."""
    full = plain(spec)
    default = plain(Spec(command=()))
    kept = {name: value for name, value in full.items() if name == "command" or not _same(value, default[name])}
    if spec.sweep:
        unset = _plain_sweep(Sweep())
        sweep = {k: v for k, v in _plain_sweep(spec.sweep).items() if k != "parallel" and not _same(v, unset[k])}
        kept["sweep"] = sweep
    if "resources" in kept:
        unset = _plain_resources(Resources())
        kept["resources"] = {k: v for k, v in _plain_resources(spec.resources).items() if not _same(v, unset[k])}
    if "data" in kept:
        kept["data"] = {name: drop_none(plain_data(data)) for name, data in spec.data.items()}
    return kept


def digest(spec: Spec) -> str:
    """Return the 64 hex digits that are equal exactly for equal specs."""
    return sha256(canonical_json(canonical(spec)))


def diff(old: Spec, new: Spec, origins: Mapping[str, str] | None = None) -> tuple[Change, ...]:
    """Return the leaves that differ, sorted by path; empty exactly when the digests are equal."""
    before, after = dict(_leaves(_compared(old))), dict(_leaves(_compared(new)))
    shown_before, shown_after = dict(_leaves(plain(old))), dict(_leaves(plain(new)))
    changes = []
    for keys in sorted(before.keys() | after.keys()):
        if keys in before and keys in after and _same(before[keys], after[keys]):
            continue
        path = ".".join(keys)
        origin = origin_of(path, origins or {})
        changes.append(Change(path, shown_before.get(keys), shown_after.get(keys), origin))
    return tuple(changes)


def origin_of(path: str, origins: Mapping[str, str]) -> str:
    """Return the ``file:line`` of ``path``, or of the nearest node above it; empty when none is known."""
    while path:
        if path in origins:
            return origins[path]
        path = path.rpartition(".")[0]
    return ""


def trial_id(params: Mapping[str, Json]) -> str:
    """Return the 12 hex digits that name a set of all parameter values."""
    return sha256(canonical_json(dict(params)))[:TRIAL_DIGITS]


def program(spec: Spec, point: Point) -> Program:
    """Return the command, environment and data of ``point``."""
    return point.program or Program(spec.command, spec.env, spec.data)


def trial_content(spec: Spec, point: Point, *, strict: bool = False) -> str:
    """Return the digest by which a trial's result is taken over; ``strict`` counts resources and backend in."""
    return _content(_shared(spec, strict=strict), spec, point)


def trial_contents(spec: Spec, points: Iterable[Point]) -> tuple[tuple[str, str], ...]:
    """Return content and strict content of each point; what they share is gone through once, not once a point."""
    loose, strict = _shared(spec, strict=False), _shared(spec, strict=True)
    return tuple((_content(loose, spec, point), _content(strict, spec, point)) for point in points)


def unpinned(spec: Spec) -> tuple[str, ...]:
    """Return the names of data whose content nothing fixes: such trials are never reused."""
    return tuple(sorted(name for name, data in spec.data.items() if data.uri and data.version is None))


def plain_data(data: Data) -> dict[str, Json]:
    """Return ``data`` as JSON values, absent fields as None."""
    return {"path": data.path, "id": data.id, "uri": data.uri, "version": data.version}


def data_from(tree: Mapping[str, Any]) -> Data:
    """Return the data that ``tree`` describes."""
    return Data(tree.get("path"), tree.get("id"), tree.get("uri"), tree.get("version"))


def drop_none(tree: Mapping[str, Json]) -> dict[str, Json]:
    """Return ``tree`` without the keys whose value is None."""
    return {name: value for name, value in tree.items() if value is not None}


def _plain_sweep(sweep: Sweep) -> dict[str, Json]:
    objective = sweep.objective
    return {
        "method": sweep.method,
        "params": {name: list(values) for name, values in sweep.params.items()},
        "points": [dict(point) for point in sweep.points],
        "objective": {"metric": objective.metric, "goal": objective.goal} if objective else None,
        "max_trials": sweep.max_trials,
        "parallel": sweep.parallel,
        "seed": sweep.seed,
    }


def _sweep_from(tree: Mapping[str, Any]) -> Sweep:
    objective = tree.get("objective")
    return Sweep(
        method=tree.get("method", "grid"),
        params={name: tuple(values) for name, values in tree.get("params", {}).items()},
        points=tuple(dict(point) for point in tree.get("points", ())),
        objective=Objective(objective["metric"], objective["goal"]) if objective else None,
        max_trials=tree.get("max_trials"),
        parallel=tree.get("parallel"),
        seed=tree.get("seed", 0),
    )


def _plain_resources(resources: Resources) -> dict[str, Json]:
    shown: dict[str, Json] = {}
    for name, value in asdict(resources).items():
        shown[name] = float(value) if value is not None and name != "nodes" else value
    return shown


def _shared(spec: Spec, *, strict: bool) -> str:
    """Return the digest of what the contents of all trials of ``spec`` have in common."""
    tree: dict[str, Json] = {
        "scheme": SCHEME,
        "pass_params": spec.pass_params,
        "secrets": list(spec.secrets),
        "app": dict(spec.app),
        "code": dict(spec.code),
    }
    if strict:
        whole = plain(spec)
        tree |= {name: whole[name] for name in ("resources", "backend", "grace_s")}
    return sha256(canonical_json(tree))


def _content(shared: str, spec: Spec, point: Point) -> str:
    starts = program(spec, point)
    tree: dict[str, Json] = {
        "shared": shared,
        "command": list(starts.command),
        "params": dict(point.params),
        "env": dict(starts.env),
        "data": {name: drop_none(plain_data(data)) for name, data in starts.data.items()},
    }
    return sha256(canonical_json(tree))


def _compared(spec: Spec) -> dict[str, Json]:
    """Return the canonical form with what it leaves out as a whole, so that each leaf is compared on its own."""
    tree = canonical(spec) | {"backend": dict(spec.backend)}
    sweep = tree.get("sweep")
    if spec.sweep and isinstance(sweep, dict):  # a sweep of nothing but defaults still differs from none
        tree["sweep"] = {**sweep, "method": spec.sweep.method}
    return tree


def _leaves(tree: Mapping[str, Json], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Json]]:
    """Yield the names that lead to each leaf, and its value; a list and an empty map below the top are leaves.

    Names, not dotted paths: ``{"a.b": 1}`` is not ``{"a": {"b": 1}}``.
    """
    for name, value in tree.items():
        keys = (*above, name)
        if isinstance(value, dict) and (value or not above):
            yield from _leaves(value, keys)
        else:
            yield keys, value


def _same(one: Json, other: Json) -> bool:
    return canonical_json(one) == canonical_json(other)


def _plain_zero(value: Any) -> Any:
    if isinstance(value, float):
        return value + 0.0  # -0.0 + 0.0 is 0.0
    if isinstance(value, Mapping):
        return {str(name): _plain_zero(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain_zero(inner) for inner in value]
    return value
