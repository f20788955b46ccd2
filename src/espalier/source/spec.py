"""A composed job as a spec with its points. Never composes, never reads more of the commit than names and ids.

What refers to a swept key stays as written in the spec, and is resolved for each point.
"""

import math
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from espalier.core.content import canonical_json, trial_id
from espalier.core.errors import InputError
from espalier.core.masking import secret_shape
from espalier.core.model import (
    Artifacts,
    Data,
    Job,
    JobError,
    Json,
    Objective,
    Point,
    Policy,
    Program,
    Resources,
    Spec,
    Sweep,
)
from espalier.source.compose import Composed
from espalier.source.files import Files
from espalier.source.resolve import Fault, Outcome, Resolver, late, overlaid, strings
from espalier.source.schema import INT_MAX, INT_MIN, JOB, Path, check, check_keys, shown
from espalier.source.space import check_size, flat_values, grid, parse_values

VALUES_MAX = 1_000_000  # parameter values of all points together

_TOP: Path = ("job",)
_SPEC = frozenset(("params", "env", "data", "resources", "grace_s", "backend", "sweep", "pass_params"))
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_DATA = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")
_LATE_FIELDS = ("description",)


def parse_spec(
    name: str, composed: Composed, files: Files, kinds: tuple[str, ...]
) -> tuple[Job | None, tuple[JobError, ...]]:
    """Return the job, or None and all that is wrong with it; ``kinds`` are the backends that there are."""
    reader = _Reader(name, composed, files, kinds)
    job = reader.read()
    return (None if reader.errors else job), tuple(reader.errors)


@dataclass
class _Reader:
    """Reads one job; what is wrong is noted and reading goes on."""

    name: str
    composed: Composed
    files: Files
    kinds: tuple[str, ...]
    errors: list[JobError] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)
    resolver: Resolver = field(init=False)
    secrets: tuple[str, ...] = ()
    swept: dict[str, Path] = field(default_factory=dict)
    through: set[Path] = field(default_factory=set)
    dependents: dict[str, Path] = field(default_factory=dict)
    everywhere: frozenset[str] = frozenset()
    varies: bool = False

    def report(self, message: str, hint: str, path: Path) -> None:
        """Note what is wrong with the node at ``path``."""
        file, line = self.composed.place(path)
        error = JobError(self.name, message, hint, file, line)
        if error not in self.errors:
            self.errors.append(error)

    @contextmanager
    def noting(self, path: Path) -> Iterator[None]:
        """Note an InputError as being of ``path``."""
        try:
            yield
        except Fault as fault:
            self.report(fault.message, fault.hint, fault.path)
        except InputError as error:
            self.report(error.message, error.hint, path)

    def read(self) -> Job | None:
        config = self.composed.config
        node = config.get("job")
        if not isinstance(node, dict):
            self.report("the job's file holds no map", "write `command:` and `code:`", _TOP)
            return None
        check_keys(JOB, node, _TOP, self.report)
        self.resolver = Resolver(config, inside=_inside)
        sweep, points = None, None
        with self.noting(("job", "sweep")):
            sweep, points = self._sweep(node)
        self.secrets = tuple(sorted(set(self._plain("secrets") or [])))
        for secret in self.secrets:
            if not _VARIABLE.match(secret):
                self.report(
                    f"secrets: {secret!r} is no name of a variable", "name it, never its value", _path("secrets")
                )
        params = self._params(node)
        command = self._command(node)
        env = self._env(node)
        data = self._data(node)
        artifacts, policy = self._plain("artifacts"), self._plain("policy")
        spec = Spec(
            command=command,
            code=self._code(),
            pass_params=self._plain("pass_params"),
            env=env,
            secrets=self.secrets,
            grace_s=self._plain("grace_s"),
            params=params,
            sweep=sweep,
            data=data,
            resources=self._resources(),
            backend=self._backend(),
            context=self._context(),
        )
        self._refuse_secrets(spec)
        if self.errors:
            return None
        found: tuple[Point, ...] = ()
        with self.noting(_path("sweep" if points else "params")):
            found = self._points(spec, points)
        for top in ("command", "code", "pass_params", "secrets", "grace_s", "sweep", "backend"):
            self._trace(top, _path(top))
        return Job(
            name=self.name,
            spec=spec,
            points=found,
            policy=Policy(**{key: policy[key] for key in policy}) if policy else Policy(),
            artifacts=(
                Artifacts(tuple(artifacts["include"]), tuple(artifacts["exclude"]), artifacts["max_mb"])
                if artifacts
                else Artifacts()
            ),
            description=self._plain("description") or "",
            origins=self.origins,
        )

    # Plain fields

    def _plain(self, top: str) -> Any:
        """Return a field that holds no late value, checked, or its default."""
        about, path = JOB[top], _path(top)
        if self._absent(path):
            return about.default
        with self.noting(path):
            outcome = self.resolver.node(path)
            if outcome.swept:
                raise InputError(f"{top} refers to a swept parameter", hint="only params, command, env and data may")
            if outcome.variables or (late(outcome.value) and top not in _LATE_FIELDS):
                raise InputError(
                    f"{top} holds a late value, which planning does not know",
                    hint="late values work in params, command, env and data",
                )
            return check(about, outcome.value, path, self.report)
        return about.default

    def _resources(self) -> Resources:
        found = self._plain("resources") or {}
        if found.get("nodes", 1) > 1:
            self.report(
                "resources.nodes above 1 is not there yet", "leave it out, for one machine", _path("resources", "nodes")
            )
        if found.get("gpus", 0.0) % 1:
            self.report("resources.gpus: fractions are not there yet", "ask for whole GPUs", _path("resources", "gpus"))
        for key in found:
            self._trace(f"resources.{key}", _path("resources", key))
        return Resources(**found)

    def _backend(self) -> dict[str, Json]:
        path = _path("backend")
        if self._absent(path):
            return {"kind": "local"}
        with self.noting(path):
            outcome = self._fixed(path, "backend")
            found = check(JOB["backend"], outcome.value, path, self.report)
            backend = {"kind": found} if isinstance(found, str) else dict(found)
            backend.setdefault("kind", "local")
            kind = backend["kind"]
            if not isinstance(kind, str) or not _KIND.match(kind) or kind not in self.kinds:
                self.report(
                    f"backend {kind!r} is not there yet" if isinstance(kind, str) else "backend.kind is no name",
                    f"there is: {', '.join(self.kinds)}",
                    (*path, "kind"),
                )
            elif kind == "local":
                for key in backend.keys() - {"kind"}:
                    self.report(f"unknown key 'backend.{key}'", "the local backend has no settings", (*path, key))
            for key, value in backend.items():
                self._value(value, f"backend.{key}", (*path, key))
                self._trace(f"backend.{key}", (*path, key))
            return backend
        return {"kind": "local"}

    def _code(self) -> dict[str, str]:
        path = _path("code")
        pathspecs = self._plain("code") or []
        selected: dict[str, str] = {}
        with self.noting(path):
            selected, faults = self.files.code(tuple(pathspecs))
            for index, fault in faults:
                place = (*path, index) if index is not None else path
                self.report(fault.message, fault.hint, place)
        return selected

    # Parameters and the search space

    def _sweep(self, node: Mapping[Any, Any]) -> tuple[Sweep | None, list[dict[str, Any]] | None]:
        path = _path("sweep")
        if self._absent(path):
            return None, None
        outcome = self._fixed(path, "sweep")
        before = len(self.errors)
        about = check(JOB["sweep"], outcome.value, path, self.report)
        if about is None or len(self.errors) > before:
            return None, None
        method, values = about["method"], about["params"]
        objective = about["objective"]
        for key in about:
            if key not in ("params", "objective"):
                self._trace(f"sweep.{key}", (*path, key))
        sweep = Sweep(
            method=method,
            objective=Objective(objective["metric"], objective["goal"]) if objective else None,
            max_trials=about["max_trials"],
            parallel=about["parallel"],
            seed=about["seed"],
        )
        for key in objective or {}:
            self._trace(f"sweep.objective.{key}", (*path, "objective", key))
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
            with self.noting(place):
                space[name] = parse_values(text, name)
                if not space[name]:
                    raise InputError(f"{name!r} has no value", hint="give at least one")
                for value in space[name]:
                    self._value(value, name, place)
                count *= len(space[name])
            self.swept[name] = ("job", "params", *name.split("."))
            self._trace(f"sweep.params.{name}", place)
        if self.errors:
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
            with self.noting(place):
                for name, (inner, value) in flat_values(given).items():
                    self._value(value, name, (*place, *inner))
                    point[name] = value
                    self.swept.setdefault(name, ("job", "params", *name.split(".")))
            points.append(point)
        self._trace("sweep.points", path)
        return replace(sweep, points=tuple(points)), points

    def _overlay(self, points: list[dict[str, Any]]) -> None:
        """Resolve from now on as at the first point, knowing what it sets."""
        if not points:
            return
        self.everywhere = frozenset(self.swept).intersection(*points)
        config = self.composed.config
        for name, place in self.swept.items():
            inner: Any = config
            for key in place:
                inner = inner.get(key) if isinstance(inner, dict) else None
            if isinstance(inner, dict) and inner:
                raise InputError(
                    f"{name!r} is a map: a sweep would replace it whole",
                    hint=f"sweep its keys, such as {name}.{next(iter(inner))}",
                )
        tree = overlaid(config, {self.swept[name]: value for name, value in points[0].items()})
        self.resolver = Resolver(tree, self.swept.values(), _inside)

    def _params(self, node: Mapping[Any, Any]) -> dict[str, Json]:
        """Return the parameters by dotted name, without those that every point sets."""
        path = _path("params")
        found: dict[str, Json] = {}
        if self._absent(path):
            return found
        with self.noting(path):
            whole = self.composed.config["job"]["params"]
            if not isinstance(whole, dict):
                outcome = self._fixed(path, "params", swept=False)
                whole = check(JOB["params"], outcome.value, path, self.report)
            self._params_below(whole, path, "", found)
        return found

    def _params_below(self, node: Mapping[Any, Any], path: Path, above: str, found: dict[str, Json]) -> None:
        for key, raw in node.items():
            here = (*path, key)
            if not isinstance(key, str) or not key or "." in key:
                self.report(
                    f"params: the key {key!r} {'holds a dot' if isinstance(key, str) else 'is no text'}",
                    "write nested maps instead" if isinstance(key, str) else "quote it",
                    here,
                )
                continue
            name = f"{above}.{key}" if above else key
            if name in self.swept:
                if name not in self.everywhere:
                    with self.noting(here):
                        self._base_value(raw, name, here, found)
                continue  # the sweep's own entry says what it is
            if not raw and any(swept.startswith(f"{name}.") for swept in self.swept):
                continue  # an empty place for what is swept
            if isinstance(raw, dict) and raw:
                self._params_below(raw, here, name, found)
                continue
            with self.noting(here):
                outcome = self.resolver.node(here)
                if outcome.variables:
                    raise InputError(
                        f"params.{name} reads the environment, which planning does not",
                        hint="give it to the program by env, or write the value",
                    )
                self._known_data(outcome, here)
                if outcome.swept:
                    self.through |= outcome.through
                    self.dependents[name] = here
                    found[name] = self.resolver.written(here)
                    self._trace(f"params.{name}", here)
                    continue
                for inner, value in _flat(outcome.value, name):
                    found[inner] = self._value(value, f"params.{inner}", here)
                    self._trace(f"params.{inner}", here)

    def _base_value(self, raw: Any, name: str, path: Path, found: dict[str, Json]) -> None:
        """Add what a name has in the points that do not set it."""
        if any("${" in text for text in strings(raw)):
            raise InputError(f"{name!r} refers to another node, and only some points set it", hint="set it in each")
        for inner, value in _flat(raw, name):
            found[inner] = self._value(value, f"params.{inner}", path)
            self._trace(f"params.{inner}", path)

    def _points(self, spec: Spec, points: list[dict[str, Any]] | None) -> tuple[Point, ...]:
        """Return the distinct points; only what depends on swept values is resolved for each."""
        if points is None:
            return (Point(self._checked_names(spec, dict(spec.params))),)
        if len(points) * (len(spec.params) + len(self.swept)) > VALUES_MAX:
            raise InputError("the sweep's points hold too many values", hint="take fewer points")
        fixed = {name: value for name, value in spec.params.items() if name not in self.dependents}
        varies = self.varies
        seen: dict[str, Point] = {}
        for values in points:
            program = None
            given = {key: inner for name, value in values.items() for key, inner in _flat(value, name)}
            params = fixed | given
            if self.dependents or varies or any("${" in text for text in strings(given)):
                at = Resolver(
                    overlaid(self.composed.config, {self.swept[name]: value for name, value in values.items()}),
                    self.swept.values(),
                    _inside,
                    base=self.resolver,
                )
                for name, path in [*self.dependents.items(), *((key, self.swept[key]) for key in values)]:
                    outcome = at.node(path)
                    if outcome.variables:
                        raise InputError(f"params.{name} reads the environment", hint="write the value")
                    params.pop(name, None)
                    params |= {
                        key: self._value(inner, f"params.{key}", path) for key, inner in _flat(outcome.value, name)
                    }
                program = self._program_at(at, spec) if varies else None
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

    # What a trial starts with

    def _command(self, node: Mapping[Any, Any]) -> tuple[str, ...]:
        path = _path("command")
        words: list[tuple[str, Path]] = []
        if self._absent(path):
            return ()
        with self.noting(path):
            words = self._words(path)
            texts = [self._text(raw, place, written=True) for raw, place in words]
            if not texts or not texts[0]:
                raise InputError("command has no word", hint="name a program")
            if len(words) == 1 and "${" in words[0][0] and re.search(r"\s", texts[0]):
                raise InputError(
                    "command is one reference, whose value is one word and is not split",
                    hint="refer to a list, or write the program's words here",
                )
            return tuple(texts)
        return ()

    def _words(self, path: Path) -> list[tuple[Any, Path]]:
        """Return the command's words as written, each with the node that its relative references start from."""
        raw = self.resolver.raw(path)
        if isinstance(raw, str) and raw.strip().startswith("${"):
            whole = self.resolver.node(path).value
            if isinstance(whole, list):
                if self.resolver.node(path).swept:
                    raise InputError("command is a reference to what is swept", hint="write its words here")
                raw = whole
        raw = check(JOB["command"], raw, path, self.report)
        if isinstance(raw, list):
            return [(word if isinstance(word, str) else canonical_json(word), (*path, i)) for i, word in enumerate(raw)]
        return [(word, path) for word in split_command(raw)]

    def _text(self, raw: Any, path: Path, *, written: bool, at: Resolver | None = None) -> str:
        """Return a word of the command, or a variable's value, as text; ``written`` keeps what is swept as it is."""
        resolver = at or self.resolver
        outcome = resolver.text(raw, path) if isinstance(raw, str) else resolver.node(path)
        in_env = path[:2] == ("job", "env")
        self._known_data(outcome, path)
        self._secret_use(outcome, path, in_env)
        if outcome.swept:
            self.through |= outcome.through
            self.varies = True
            if written:
                value = raw if isinstance(raw, str) else resolver.written(path)
                return value if isinstance(value, str) else canonical_json(value)
        if outcome.value is None:
            raise Fault(f"{shown(path)}: {raw!r} is null, which is no word", hint="give it a value", path=path)
        text = outcome.value
        if not isinstance(text, str):
            text = canonical_json(self._value(text, shown(path), path))
        if "\0" in text:
            raise Fault(f"{shown(path)} holds a zero byte", hint="remove it", path=path)
        return text

    def _env(self, node: Mapping[Any, Any]) -> dict[str, str]:
        path = _path("env")
        found: dict[str, str] = {}
        if self._absent(path):
            return found
        with self.noting(path):
            whole = self._map(path)
            for name in whole:
                here = (*path, name)
                if not isinstance(name, str) or not _VARIABLE.match(name) or name.startswith("ESPALIER_"):
                    self.report(
                        f"env: {name!r} is no name that a job can set",
                        "letters, digits and '_', not ESPALIER_…",
                        here,
                    )
                    continue
                with self.noting(here):
                    value = self._variable(name, whole, self.resolver, written=True)
                    if value is not None:
                        found[name] = value
                        self._trace(f"env.{name}", here)
        return found

    def _variable(self, name: str, whole: Mapping[Any, Any], at: Resolver, *, written: bool) -> str | None:
        """Return a variable's value; None where it is null, which means not at all."""
        here = _path("env", name)
        if self._by_reference("env"):
            here = _path("env")
            value = whole[name]
            self._known_data(at.node(here), here)
            return value if isinstance(value, str) or value is None else canonical_json(value)
        if at.node(here).value is None:
            return None
        return self._text(at.raw(here), here, written=written, at=at)

    def _by_reference(self, top: str) -> bool:
        return isinstance(self.composed.config["job"][top], str)

    def _map(self, path: Path) -> Mapping[Any, Any]:
        """Return the map at ``path``, which may be a reference to one that no sweep moves."""
        raw = self.resolver.raw(path)
        if isinstance(raw, str):
            raw = self._fixed(path, shown(path), swept=False, variables=True).value
        found = check(JOB[path[1]], raw, path, self.report)
        return found if isinstance(found, dict) else {}

    def _data(self, node: Mapping[Any, Any]) -> dict[str, Data]:
        path = _path("data")
        found: dict[str, Data] = {}
        if self._absent(path):
            return found
        with self.noting(path):
            variables: dict[str, str] = {}
            for name in self._map(path):
                here = (*path, name)
                with self.noting(here):
                    if not isinstance(name, str) or not _DATA.match(name):
                        raise InputError(f"data: {name!r} is no name", hint="use letters, digits, '_' and '-'")
                    variable = re.sub(r"[^A-Za-z0-9]", "_", name).upper()
                    if variable in variables:
                        raise InputError(
                            f"data {variables[variable]!r} and {name!r} would both be ESPALIER_DATA_{variable}",
                            hint="rename one",
                        )
                    variables[variable] = name
                    found[name] = self._input(name, self.resolver, written=True)
                    for key, value in (("path", found[name].path), ("uri", found[name].uri)):
                        if value is not None:
                            self._trace(f"data.{name}.{key}", (*here, key))
                    self._trace(f"data.{name}", here)
        return found

    def _input(self, name: str, at: Resolver, *, written: bool) -> Data:
        """Return one named input; a path's id is that of what the commit has there."""
        by_reference = self._by_reference("data")
        here = _path("data") if by_reference else _path("data", name)
        outcome = at.node(here)
        self._known_data(outcome, here)
        self._secret_use(outcome, here, False)
        value = outcome.value[name] if by_reference else outcome.value
        if not isinstance(value, dict):
            raise InputError(f"data.{name} is not a map", hint="write {path: …} or {uri: …}")
        fields = JOB["data"].fields
        check_keys(fields, value, here, self.report)
        parts = {key: check(fields[key], value.get(key), (*here, key), self.report) for key in fields}
        path, uri, version = parts["path"], parts["uri"], parts["version"]
        if (path is None) == (uri is None):
            raise InputError(f"data.{name} needs a path or a uri, one of them", hint="path: in the repository")
        if outcome.swept:
            self.through |= outcome.through
            self.varies = True
            if written:
                kept = {
                    key: at.written((*here, key)) for key in ("path", "uri", "version") if value.get(key) is not None
                }
                texts = {key: text if isinstance(text, str) else canonical_json(text) for key, text in kept.items()}
                fixed = path is not None and not at.node((*here, "path")).swept
                return Data(
                    texts.get("path"),
                    self.files.data_id(path) if fixed else None,
                    texts.get("uri"),
                    texts.get("version"),
                )
        if path is not None:
            if version is not None:
                raise InputError(f"data.{name}: version belongs to a uri", hint="the commit fixes a path's content")
            if late(path):
                raise InputError(f"data.{name}.path holds a late value", hint="planning must know the file")
            return Data(self.files.data_path(path), self.files.data_id(path))
        if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:.", uri):
            raise InputError(f"data.{name}.uri {uri!r} has no scheme", hint="write gs://…, https://… or file:PATH")
        if re.search(r"://[^/@\s]*:[^/@\s]*@", uri):
            raise InputError(f"data.{name}.uri holds a password", hint="give credentials by secrets")
        return Data(uri=uri, version=version)

    def _program_at(self, at: Resolver, spec: Spec) -> Program:
        command = tuple(self._text(raw, place, written=False, at=at) for raw, place in self._words(_path("command")))
        env = {}
        if not self._absent(_path("env")):
            whole = self._map(_path("env"))
            for name in whole:
                value = self._variable(name, whole, at, written=False)
                if value is not None:
                    env[name] = value
        data = {name: self._input(name, at, written=False) for name in spec.data}
        return Program(command, env, data)

    def _context(self) -> dict[str, Json]:
        """Return the nodes outside the spec that swept values reach, as written, so that the spec explains itself."""
        found: dict[str, Json] = {}
        for path in sorted(self.through, key=lambda path: [str(part) for part in path]):
            with self.noting(path):
                name = ".".join(str(part) for part in path)
                found[name] = self._value(self.resolver.written(path), name, path)
                self._trace(f"context.{name}", path)
        return found

    # Checks

    def _absent(self, path: Path) -> bool:
        node = self.composed.config["job"].get(path[1])
        return node is None

    def _fixed(self, path: Path, what: str, *, swept: bool = False, variables: bool = False) -> Outcome:
        outcome = self.resolver.node(path)
        if outcome.swept and not swept:
            raise InputError(f"{what} as a whole refers to what is swept", hint="write its keys here")
        if outcome.variables and not variables:
            raise InputError(
                f"{what} reads the environment, which planning does not",
                hint="write the value; env, command and data may",
            )
        self._known_data(outcome, path)
        return outcome

    def _known_data(self, outcome: Outcome, path: Path) -> None:
        node = self.composed.config["job"].get("data")
        for name in outcome.data:
            if isinstance(node, dict) and name not in node:
                there = ", ".join(map(str, node)) or "none"
                raise Fault(f"{shown(path)}: there is no data {name!r}", hint=f"there is: {there}", path=path)
            if node is None:
                raise Fault(f"{shown(path)}: the job has no data", hint=f"declare data.{name}", path=path)

    def _secret_use(self, outcome: Outcome, path: Path, in_env: bool) -> None:
        used = sorted(outcome.variables & set(self.secrets))
        if used and not in_env:
            raise Fault(
                f"{shown(path)} uses the secret {used[0]}, which works in env only",
                hint="programs read it from their environment",
                path=path,
            )

    def _value(self, value: Any, name: str, path: Path) -> Any:
        """Return a parameter's value; Fault for what JSON cannot hold exactly."""
        if isinstance(value, float) and not math.isfinite(value):
            raise Fault(f"{name} is {value}, which is not finite", hint="write a finite number or a string", path=path)
        if isinstance(value, int) and not isinstance(value, bool) and not INT_MIN <= value <= INT_MAX:
            raise Fault(f"{name} is an integer over 64 bits", hint="write a string", path=path)
        if isinstance(value, dict):
            for key, inner in value.items():
                if not isinstance(key, str):
                    raise Fault(f"{name}: the key {key!r} is no text", hint="quote it", path=path)
                self._value(inner, f"{name}.{key}", path)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                self._value(inner, f"{name}.{index}", path)
        elif not isinstance(value, str | int | float | None):
            raise Fault(f"{name} is a {type(value).__name__}", hint="use text, numbers, lists and maps", path=path)
        return value

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
                self.report(
                    f"{top}{f'.{name}' if name else ''} holds what looks like a secret",
                    "name it under secrets; the program finds it in its environment. Change it: it is in git now",
                    (*name.split("."),) if top == "context" else _path(top, *(name.split(".") if name else ())),
                )

    def _trace(self, name: str, path: Path) -> None:
        file, line = self.composed.place(path)
        if file and line:
            self.origins[name] = f"{file}:{line}"


def split_command(text: str) -> list[str]:
    """Return the words that a shell would see; an interpolation is part of a word whatever it holds."""
    held: list[str] = []
    out: list[str] = []
    at = 0
    while (start := text.find("${", at)) >= 0:
        slashes = len(text[at:start]) - len(text[at:start].rstrip("\\"))
        end = start + 2 if slashes % 2 else _closing(text, start)
        begin = start - 1 if slashes % 2 else start
        out.append(text[at:begin])
        out.append(f"\ue000{len(held)}\ue001")  # private use: no shell syntax
        held.append(text[begin:end])
        at = end
    try:
        words = shlex.split("".join(out) + text[at:])
    except ValueError as error:
        raise InputError(f"command cannot be split: {error}", hint="close the quotes, or write a list") from None
    return [re.sub("\ue000([0-9]+)\ue001", lambda match: held[int(match[1])], word) for word in words]


def _closing(text: str, start: int) -> int:
    """Return the index after the ``}`` that closes the ``${`` at ``start``; quotes within are text."""
    depth, quote, at = 0, "", start
    while at < len(text):
        sign = text[at]
        if sign == "\\":
            at += 2
            continue
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign == "{":
            depth += 1
        elif sign == "}":
            depth -= 1
            if not depth:
                return at + 1
        at += 1
    raise InputError("an interpolation is not closed", hint="close it with }")


def _inside(path: Path) -> bool:
    return len(path) > 1 and path[0] == "job" and path[1] in _SPEC


def _path(*names: Any) -> Path:
    return ("job", *names)


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted names and leaves; a list and an empty map are leaves."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            if not isinstance(key, str) or not key or "." in key:
                raise InputError(f"{name}: the key {key!r} is no plain name", hint="quote it, and nest instead of dots")
            yield from _flat(inner, f"{name}.{key}")
    else:
        yield name, value
