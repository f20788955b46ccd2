"""A composed job as a spec with its points. Never composes, never reads more of the commit than names and ids.

What refers to a swept key stays as written in the spec, and is resolved for each point.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from espalier.core.content import trial_id
from espalier.core.errors import InputError
from espalier.core.masking import secret_shape
from espalier.core.model import (
    Artifacts,
    Job,
    JobError,
    Json,
    Objective,
    Point,
    Policy,
    Resources,
    Spec,
    Sweep,
)
from espalier.source.compose import Composed
from espalier.source.files import Files
from espalier.source.guard import strings
from espalier.source.notes import Notes
from espalier.source.program import ProgramReader, known_data
from espalier.source.resolve import Outcome, Resolver, late, overlaid
from espalier.source.schema import JOB, Path, check, check_keys
from espalier.source.space import check_size, flat_values, grid, parse_values
from espalier.source.values import checked, flat

VALUES_MAX = 1_000_000  # parameter values of all points together

_TOP: Path = ("job",)
_SPEC = frozenset(("params", "env", "data", "resources", "grace_s", "backend", "sweep", "pass_params"))
_OPENED = ("params", "env", "data")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")


def parse_spec(
    name: str, composed: Composed, files: Files, kinds: Callable[[], tuple[str, ...]]
) -> tuple[Job | None, tuple[JobError, ...]]:
    """Return the job, or None and all that is wrong with it; ``kinds`` are the backends that there are."""
    notes = Notes(name, composed, next((p.document.file for p in composed.parts if p.config == f"job/{name}"), ""))
    job = composed.config.get("job")
    if not isinstance(job, dict):
        notes.report("the job's file holds no map", "write `command:` and `code:`", _TOP)
        return None, tuple(notes.errors)
    config = {**composed.config, "job": dict(job)}
    found = _Reader(config, config["job"], notes, files, kinds).read()
    return (None if notes.errors else found), tuple(notes.errors)


@dataclass
class _Reader:
    """Reads one job. ``config`` is the composed config; references that are opened are replaced in it."""

    config: dict[Any, Any]
    job: dict[Any, Any]
    notes: Notes
    files: Files
    kinds: Callable[[], tuple[str, ...]]
    resolver: Resolver = field(init=False)
    program: ProgramReader = field(init=False)
    swept: dict[str, Path] = field(default_factory=dict)
    everywhere: frozenset[str] = frozenset()
    dependents: dict[str, Path] = field(default_factory=dict)
    through: set[Path] = field(default_factory=set)

    def read(self) -> Job | None:
        check_keys(JOB, self.job, _TOP, self.notes.report)
        if "command" not in self.job and "command" in self.config:
            self.notes.report(
                "command stands beside `job:`, not below it",
                "indent the job below `job:`, or drop the header `# @package _global_`",
                ("command",),
            )
        self.resolver = Resolver(self.config, inside=_inside)
        for top in _OPENED:
            with self.notes.noting(_path(top)):
                self._open(_path(top))
        sweep, points = None, None
        with self.notes.noting(_path("sweep")):
            sweep, points = self._sweep()
        secrets = self._secrets()
        self.program = ProgramReader(self.job, self.notes, self.files, self.resolver, secrets)
        spec = Spec(
            command=self.program.command(),
            code=self._code(),
            pass_params=self._plain("pass_params"),
            env=self.program.env(),
            secrets=secrets,
            grace_s=self._plain("grace_s"),
            params=self._params(),
            sweep=sweep,
            data=self.program.data(),
            resources=self._resources(),
            backend=self._backend(),
        )
        spec = replace(spec, context=self._context())
        artifacts, policy = self._plain("artifacts"), self._plain("policy")
        description = self._plain("description")
        self._refuse_secrets(spec)
        if self.notes.errors:
            return None
        found: tuple[Point, ...] = ()
        with self.notes.noting(_path("sweep" if points else "params")):
            found = self._points(spec, points)
        for top in ("command", "code", "pass_params", "secrets", "grace_s", "sweep", "backend"):
            self.notes.trace(top, _path(top))
        return Job(
            name=self.notes.job,
            spec=spec,
            points=found,
            policy=Policy(**policy) if policy else Policy(),
            artifacts=(
                Artifacts(tuple(artifacts["include"]), tuple(artifacts["exclude"]), artifacts["max_mb"])
                if artifacts
                else Artifacts()
            ),
            description=description or "",
            origins=self.notes.origins,
        )

    def _open(self, path: Path) -> None:
        """Replace a reference to a map by a map of references, so that its keys can be told apart."""
        opened = self.resolver.opened(path)
        if opened is None:
            return
        here = self.config
        for name in path[:-1]:
            here[name] = dict(here[name])
            here = here[name]
        here[path[-1]] = opened
        self.job = self.config["job"]
        self.resolver = Resolver(self.config, inside=_inside)

    def _secrets(self) -> tuple[str, ...]:
        names = tuple(sorted(set(self._plain("secrets") or [])))
        for name in names:
            if not _VARIABLE.match(name):
                self.notes.report(
                    f"secrets: {name!r} is no name of a variable", "name it, never its value", _path("secrets")
                )
        return names

    # Plain fields

    def _plain(self, top: str) -> Any:
        """Return a field that holds no late value, checked, or its default."""
        about, path = JOB[top], _path(top)
        if self.job.get(path[1]) is None:
            return about.default
        with self.notes.noting(path):
            outcome = self.resolver.node(path)
            if outcome.swept:
                raise InputError(f"{top} refers to a swept parameter", hint="only params, command, env and data may")
            if outcome.variables or (late(outcome.value) and top != "description"):
                raise InputError(
                    f"{top} holds a late value, which planning does not know",
                    hint="late values work in params, command, env and data",
                )
            return check(about, outcome.value, path, self.notes.report)
        return about.default

    def _resources(self) -> Resources:
        found = self._plain("resources") or {}
        if found.get("nodes", 1) > 1:
            self.notes.report(
                "resources.nodes above 1 is not there yet", "leave it out, for one machine", _path("resources", "nodes")
            )
        if found.get("gpus", 0.0) % 1:
            self.notes.report(
                "resources.gpus: fractions are not there yet", "ask for whole GPUs", _path("resources", "gpus")
            )
        for key in found:
            self.notes.trace(f"resources.{key}", _path("resources", key))
        return Resources(**found)

    def _backend(self) -> dict[str, Json]:
        path = _path("backend")
        if self.job.get(path[1]) is None:
            return {"kind": "local"}
        with self.notes.noting(path):
            outcome = self._fixed(path, "backend")
            found = check(JOB["backend"], outcome.value, path, self.notes.report)
            backend = {"kind": found} if isinstance(found, str) else dict(found)
            backend.setdefault("kind", "local")
            kind = backend["kind"]
            if not isinstance(kind, str) or not _KIND.match(kind) or (kind != "local" and kind not in self.kinds()):
                self.notes.report(
                    f"backend {kind!r} is not there yet" if isinstance(kind, str) else "backend.kind is no name",
                    f"there is: {', '.join(self.kinds())}",
                    (*path, "kind"),
                )
            elif kind == "local":
                for key in backend.keys() - {"kind"}:
                    self.notes.report(f"unknown key 'backend.{key}'", "the local backend has no settings", (*path, key))
            for key, value in backend.items():
                checked(value, f"backend.{key}", (*path, key))
                self.notes.trace(f"backend.{key}", (*path, key))
            return backend
        return {"kind": "local"}

    def _code(self) -> dict[str, str]:
        path = _path("code")
        pathspecs = self._plain("code") or []
        selected: dict[str, str] = {}
        with self.notes.noting(path):
            selected, faults = self.files.code(tuple(pathspecs))
            for index, fault in faults:
                place = (*path, index) if index is not None else path
                self.notes.report(fault.message, fault.hint, place)
        return selected

    # Parameters and the search space

    def _sweep(self) -> tuple[Sweep | None, list[dict[str, Any]] | None]:
        path = _path("sweep")
        if self.job.get(path[1]) is None:
            return None, None
        outcome = self._fixed(path, "sweep")
        if isinstance(outcome.value, dict) and late({**outcome.value, "params": None}):
            raise InputError("sweep holds a late value, which planning does not know", hint="only its params may")
        before = len(self.notes.errors)
        about = check(JOB["sweep"], outcome.value, path, self.notes.report)
        if about is None or len(self.notes.errors) > before:
            return None, None
        method, values = about["method"], about["params"]
        objective = about["objective"]
        for key in about:
            if key not in ("params", "objective"):
                self.notes.trace(f"sweep.{key}", (*path, key))
        sweep = Sweep(
            method=method,
            objective=Objective(objective["metric"], objective["goal"]) if objective else None,
            max_trials=about["max_trials"],
            parallel=about["parallel"],
            seed=about["seed"],
        )
        for key in objective or {}:
            self.notes.trace(f"sweep.objective.{key}", (*path, "objective", key))
        if method == "points":
            sweep, points = self._given_points(sweep, values, (*path, "params"))
        else:
            sweep, points = self._grid(sweep, values, (*path, "params"))
        self._overlay(points)
        return sweep, points

    def _grid(self, sweep: Sweep, values: Any, path: Path) -> tuple[Sweep, list[dict[str, Any]]]:
        if not isinstance(values, dict) or not values:
            raise InputError("sweep.params of a grid is a map of names and values", hint="write `name: choice(1,2)`")
        space: dict[str, tuple[Any, ...]] = {}
        count = 1
        for name, (inner, text) in flat_values(values).items():
            place = (*path, *inner)
            with self.notes.noting(place):
                space[name] = parse_values(text, name)
                if not space[name]:
                    raise InputError(f"{name!r} has no value", hint="give at least one")
                for value in space[name]:
                    checked(value, name, place)
                count *= len(space[name])
            self.swept[name] = ("job", "params", *name.split("."))
            self.notes.trace(f"sweep.params.{name}", place)
        if self.notes.errors:
            return sweep, []
        check_size(count, sweep.max_trials)
        return replace(sweep, params=space), list(grid(space))

    def _given_points(self, sweep: Sweep, values: Any, path: Path) -> tuple[Sweep, list[dict[str, Any]]]:
        if not isinstance(values, list) or not values or not all(isinstance(point, dict) for point in values):
            raise InputError("sweep.params of `points` is a list of maps", hint="write `- {name: value}`")
        check_size(len(values), sweep.max_trials)
        points = []
        for index, given in enumerate(values):
            place = (*path, index)
            point: dict[str, Any] = {}
            with self.notes.noting(place):
                for name, (inner, value) in flat_values(given).items():
                    checked(value, name, (*place, *inner))
                    point[name] = value
                    self.swept.setdefault(name, ("job", "params", *name.split(".")))
            points.append(point)
        self.notes.trace("sweep.points", path)
        return replace(sweep, points=tuple(points)), points

    def _overlay(self, points: list[dict[str, Any]]) -> None:
        """Resolve from now on as at the first point, knowing what it sets."""
        if not points:
            return
        self.everywhere = frozenset(self.swept).intersection(*points)
        for name, place in self.swept.items():
            for depth in range(3, len(place)):
                self._open(place[:depth])
            inner = self.resolver.raw(place)
            if isinstance(inner, dict) and inner:
                raise InputError(
                    f"{name!r} is a map: a sweep would replace it whole",
                    hint=f"sweep its keys, such as {name}.{next(iter(inner))}",
                )
        tree = overlaid(self.config, {self.swept[name]: value for name, value in points[0].items()})
        self.resolver = Resolver(tree, self.swept.values(), _inside)

    def _params(self) -> dict[str, Json]:
        """Return the parameters by dotted name, without those that every point sets."""
        path = _path("params")
        found: dict[str, Json] = {}
        if self.job.get(path[1]) is None:
            return found
        with self.notes.noting(path):
            whole = check(JOB["params"], self.job["params"], path, self.notes.report)
            self._params_below(whole, path, "", found)
        return found

    def _params_below(self, node: Mapping[Any, Any], path: Path, above: str, found: dict[str, Json]) -> None:
        for key, raw in node.items():
            here = (*path, key)
            if not isinstance(key, str) or not key or "." in key:
                self.notes.report(
                    f"params: the key {key!r} {'holds a dot' if isinstance(key, str) else 'is no text'}",
                    "write nested maps instead" if isinstance(key, str) else "quote it",
                    here,
                )
                continue
            name = f"{above}.{key}" if above else key
            if name in self.swept:
                if name not in self.everywhere:
                    with self.notes.noting(here):
                        self._base_value(raw, name, here, found)
                continue  # the sweep's own entry says what it is
            if not raw and any(swept.startswith(f"{name}.") for swept in self.swept):
                continue  # an empty place for what is swept
            if isinstance(raw, dict) and raw:
                self._params_below(raw, here, name, found)
                continue
            with self.notes.noting(here):
                outcome = self.resolver.node(here)
                if outcome.variables:
                    raise InputError(
                        f"params.{name} reads the environment, which planning does not",
                        hint="give it to the program by env, or write the value",
                    )
                known_data(self.job, outcome, here)
                if outcome.swept:
                    self.through |= outcome.through
                    self.dependents[name] = here
                    found[name] = self.resolver.written(here)
                    self.notes.trace(f"params.{name}", here)
                    continue
                for inner, value in flat(outcome.value, name):
                    found[inner] = checked(value, f"params.{inner}", here)
                    self.notes.trace(f"params.{inner}", here)

    def _base_value(self, raw: Any, name: str, path: Path, found: dict[str, Json]) -> None:
        """Add what a name has in the points that do not set it."""
        if any("${" in text for text in strings(raw)):
            raise InputError(f"{name!r} refers to another node, and only some points set it", hint="set it in each")
        for inner, value in flat(raw, name):
            found[inner] = checked(value, f"params.{inner}", path)
            self.notes.trace(f"params.{inner}", path)

    def _points(self, spec: Spec, points: list[dict[str, Any]] | None) -> tuple[Point, ...]:
        """Return the distinct points; only what depends on swept values is resolved for each."""
        if points is None:
            return (Point(self._checked_names(spec, dict(spec.params))),)
        if len(points) * (len(spec.params) + len(self.swept)) > VALUES_MAX:
            raise InputError("the sweep's points hold too many values", hint="take fewer points")
        fixed = {name: value for name, value in spec.params.items() if name not in self.dependents}
        varies = self.program.varies
        seen: dict[str, Point] = {}
        for values in points:
            program = None
            given = {key: inner for name, value in values.items() for key, inner in flat(value, name)}
            params = fixed | given
            if self.dependents or varies or any("${" in text for text in strings(given)):
                at = Resolver(
                    overlaid(self.config, {self.swept[name]: value for name, value in values.items()}),
                    self.swept.values(),
                    _inside,
                    base=self.resolver,
                )
                for name, path in [*self.dependents.items(), *((key, self.swept[key]) for key in values)]:
                    outcome = at.node(path)
                    if outcome.variables:
                        raise InputError(f"params.{name} reads the environment", hint="write the value")
                    params.pop(name, None)
                    params |= {key: checked(inner, f"params.{key}", path) for key, inner in flat(outcome.value, name)}
                program = self.program.at(at, spec) if varies else None
            params = {name: params[name] for name in sorted(params)}
            seen.setdefault(trial_id(params), Point(self._checked_names(spec, params), program))
        return tuple(seen.values())

    def _checked_names(self, spec: Spec, params: dict[str, Json]) -> dict[str, Json]:
        if spec.pass_params == "env":
            names: dict[str, str] = {}
            for name in params:
                variable = "PARAM_" + re.sub(r"[^A-Za-z0-9]", "_", name).upper()
                if variable in names:
                    raise InputError(
                        f"parameters {names[variable]!r} and {name!r} would both be {variable}",
                        hint="rename one, or use pass_params: file",
                    )
                names[variable] = name
        return params

    def _context(self) -> dict[str, Json]:
        """Return the nodes outside the spec that swept values reach, as written, so that the spec explains itself."""
        found: dict[str, Json] = {}
        for path in sorted(self.through | self.program.through, key=lambda path: [str(part) for part in path]):
            with self.notes.noting(path):
                name = ".".join(str(part) for part in path)
                found[name] = checked(self.resolver.written(path), name, path)
                self.notes.trace(f"context.{name}", path)
        return found

    # Checks

    def _fixed(self, path: Path, what: str) -> Outcome:
        outcome = self.resolver.node(path)
        if outcome.swept:
            raise InputError(f"{what} refers to what is swept", hint="only params, command, env and data may")
        if outcome.variables:
            raise InputError(
                f"{what} reads the environment, which planning does not",
                hint="write the value; env, command and data may",
            )
        known_data(self.job, outcome, path)
        return outcome

    def _refuse_secrets(self, spec: Spec) -> None:
        data = {name: [entry.uri or "", entry.path or ""] for name, entry in spec.data.items()}
        sweep = [spec.sweep.params, spec.sweep.points] if spec.sweep else []
        tops: dict[str, Any] = {
            "command": spec.command, "params": spec.params, "env": spec.env, "data": data, "backend": spec.backend,
            "sweep": sweep, "context": spec.context,
        }  # fmt: skip
        for top, value in tops.items():
            if isinstance(value, Mapping):
                hits = [name for name, inner in value.items() if any(map(secret_shape, strings({name: inner})))]
            else:
                hits = [""] if any(map(secret_shape, strings(value))) else []
            for name in hits:
                self.notes.report(
                    f"{top}{f'.{name}' if name else ''} holds what looks like a secret",
                    "name it under secrets; the program finds it in its environment. Change it: it is in git now",
                    (*name.split("."),) if top == "context" else _path(top, *(name.split(".") if name else ())),
                )


def _inside(path: Path) -> bool:
    return len(path) > 1 and path[0] == "job" and path[1] in _SPEC


def _path(*names: Any) -> Path:
    return ("job", *names)
