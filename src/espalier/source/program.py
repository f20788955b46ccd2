"""What a trial starts with: command, environment and data, as written and for a point. Never starts anything."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from espalier.core.content import canonical_json
from espalier.core.errors import InputError
from espalier.core.model import Data, Program, Spec
from espalier.source.files import Files
from espalier.source.notes import Notes
from espalier.source.resolve import Fault, Outcome, Resolver, late
from espalier.source.schema import JOB, Path, check, check_keys, shown
from espalier.source.values import checked, split_command

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_DATA = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")


@dataclass
class ProgramReader:
    """Reads one job's program; ``varies`` and ``through`` are known once all three parts were read."""

    job: Mapping[Any, Any]
    notes: Notes
    files: Files
    resolver: Resolver
    secrets: tuple[str, ...]
    varies: bool = False
    through: set[Path] = field(default_factory=set)

    def command(self) -> tuple[str, ...]:
        path = _path("command")
        words: list[tuple[str, Path]] = []
        if self.job.get(path[1]) is None:
            return ()
        with self.notes.noting(path):
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
        raw = check(JOB["command"], raw, path, self.notes.report)
        if isinstance(raw, list):
            return [(word if isinstance(word, str) else canonical_json(word), (*path, i)) for i, word in enumerate(raw)]
        return [(word, path) for word in split_command(raw)]

    def _text(self, raw: Any, path: Path, *, written: bool, at: Resolver | None = None) -> str:
        """Return a word of the command, or a variable's value, as text; ``written`` keeps what is swept as it is."""
        resolver = at or self.resolver
        outcome = resolver.text(raw, path) if isinstance(raw, str) else resolver.node(path)
        in_env = path[:2] == ("job", "env")
        known_data(self.job, outcome, path)
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
            text = canonical_json(checked(text, shown(path), path))
        if "\0" in text:
            raise Fault(f"{shown(path)} holds a zero byte", hint="remove it", path=path)
        return text

    def env(self) -> dict[str, str]:
        path = _path("env")
        found: dict[str, str] = {}
        if self.job.get(path[1]) is None:
            return found
        with self.notes.noting(path):
            for name in self._map(path):
                here = (*path, name)
                if not isinstance(name, str) or not _VARIABLE.match(name) or name.startswith("ESPALIER_"):
                    self.notes.report(
                        f"env: {name!r} is no name that a job can set",
                        "letters, digits and '_', not ESPALIER_…",
                        here,
                    )
                    continue
                with self.notes.noting(here):
                    value = self._variable(name, self.resolver, written=True)
                    if value is not None:
                        found[name] = value
                        self.notes.trace(f"env.{name}", here)
        return found

    def _variable(self, name: str, at: Resolver, *, written: bool) -> str | None:
        """Return a variable's value; None where it is null, which means not at all."""
        here = _path("env", name)
        if at.node(here).value is None:
            return None
        return self._text(at.raw(here), here, written=written, at=at)

    def _map(self, path: Path) -> Mapping[Any, Any]:
        found = check(JOB[path[1]], self.job[path[1]], path, self.notes.report)
        return found if isinstance(found, dict) else {}

    def data(self) -> dict[str, Data]:
        path = _path("data")
        found: dict[str, Data] = {}
        if self.job.get(path[1]) is None:
            return found
        with self.notes.noting(path):
            variables: dict[str, str] = {}
            for name in self._map(path):
                here = (*path, name)
                with self.notes.noting(here):
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
                            self.notes.trace(f"data.{name}.{key}", (*here, key))
                    self.notes.trace(f"data.{name}", here)
        return found

    def _input(self, name: str, at: Resolver, *, written: bool) -> Data:
        """Return one named input; a path's id is that of what the commit has there."""
        here = _path("data", name)
        outcome = at.node(here)
        known_data(self.job, outcome, here)
        self._secret_use(outcome, here, False)
        value = outcome.value
        if not isinstance(value, dict):
            raise InputError(f"data.{name} is not a map", hint="write {path: …} or {uri: …}")
        fields = JOB["data"].fields
        check_keys(fields, value, here, self.notes.report)
        parts = {key: check(fields[key], value.get(key), (*here, key), self.notes.report) for key in fields}
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

    def at(self, at: Resolver, spec: Spec) -> Program:
        """Return the program of a point, which ``at`` resolves."""
        command = tuple(self._text(raw, place, written=False, at=at) for raw, place in self._words(_path("command")))
        env = {}
        if self.job.get("env") is not None:
            for name in self._map(_path("env")):
                value = self._variable(name, at, written=False)
                if value is not None:
                    env[name] = value
        data = {name: self._input(name, at, written=False) for name in spec.data}
        return Program(command, env, data)

    def _secret_use(self, outcome: Outcome, path: Path, in_env: bool) -> None:
        used = sorted(outcome.variables & set(self.secrets))
        if used and not in_env:
            raise Fault(
                f"{shown(path)} uses the secret {used[0]}, which works in env only",
                hint="programs read it from their environment",
                path=path,
            )


def known_data(job: Mapping[Any, Any], outcome: Outcome, path: Path) -> None:
    """Refuse late values of data that the job does not have."""
    node = job.get("data")
    for name in outcome.data:
        if isinstance(node, dict) and name not in node:
            there = ", ".join(map(str, node)) or "none"
            raise Fault(f"{shown(path)}: there is no data {name!r}", hint=f"there is: {there}", path=path)
        if node is None:
            raise Fault(f"{shown(path)}: the job has no data", hint=f"declare data.{name}", path=path)


def _path(*names: Any) -> Path:
    return ("job", *names)
