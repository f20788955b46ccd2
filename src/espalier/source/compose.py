"""Hydra's composition of a commit's config files. Never checks out, never runs a resolver that is not pure.

Hydra's own code makes the defaults list and OmegaConf merges; the config files come from git. Hydra's own node is
left out before anything is composed. What Hydra keeps global is put back after each call.
"""

import copy
import difflib
import functools
import posixpath
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import hydra.version
from hydra._internal import defaults_list
from hydra._internal.config_repository import ConfigRepository
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override, OverrideType, ValueType
from hydra.core.singleton import Singleton
from hydra.errors import MissingConfigException
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import split_key
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException

from espalier.core.errors import EspalierError, InputError
from espalier.source.git import Objects
from espalier.source.guard import BYTES_MAX, Document, load
from espalier.source.schema import Path

VERSION_BASE = "1.3"
_PURE_RESOLVERS = ("oc.create", "oc.decode", "oc.dict.keys", "oc.dict.values", "oc.select")
_LOCK = threading.RLock()
_IN = re.compile(r"In '?([^':\n]+)'?: ?(.*)\Z", re.DOTALL)
_NOTHING: Any = object()


@dataclass(frozen=True)
class Part:
    """A document, where in the config it lands, and its name on the search path."""

    document: Document
    package: Path
    config: str = ""


@dataclass(frozen=True)
class Composed:
    """A config as composed, interpolations as written, and the documents it is made of, the last one winning."""

    config: dict[Any, Any]
    parts: tuple[Part, ...]

    def place(self, path: Path) -> tuple[str, int | None]:
        """Return file and line of what gave ``path`` its value, or of the nearest node above, else ``("", None)``."""
        while path:
            for part in reversed(self.parts):
                depth = len(part.package)
                if path == part.package:
                    return part.document.file, 1
                if path[:depth] != part.package:
                    continue
                value = _at(part.document.body, path[depth:])
                if value is not _NOTHING and value != "???":
                    return part.document.file, part.document.line(path[depth:])
            path = path[:-1]
        return "", None


class Composer:
    """Composes jobs of one commit; what one job has read is not read again for the next."""

    def __init__(self, objects: Objects, config_dir: str, config_name: str) -> None:
        self._config_name = config_name
        self._repository = _GitRepository(objects, config_dir, config_name)

    def compose(self, job: str | None) -> Composed:
        """Return the config with ``job=<job>``, without a job for None; InputError where Hydra refuses too."""
        try:
            with _hydra():
                entries = self._defaults(job)
                parts = [self._part(entry) for entry in entries if not _of_hydra(entry.package or "")]
                return Composed(self._merge(parts), tuple(parts))
        except EspalierError:
            raise
        except Exception as error:
            raise self._translated(error, job) from error

    def _defaults(self, job: str | None) -> list[ResultDefault]:
        chosen = [] if job is None else [Override(OverrideType.CHANGE, "job", ValueType.ELEMENT, job)]
        found = defaults_list.create_defaults_list(
            repo=self._repository,
            config_name=self._config_name,
            overrides_list=chosen,
            prepend_hydra=False,
            skip_missing=job is None,
        )
        return found.defaults

    def _part(self, entry: ResultDefault) -> Part:
        name = entry.config_path or ""
        document = self._repository.document(name)
        if document is None:  # pragma: no cover - Hydra has just loaded it
            raise InputError(f"there is no {name}.yaml", hint="add it")
        package = entry.package if entry.package is not None else document.package or ""
        keys = tuple(split_key(package)) if package else ()
        searched = ("hydra", "searchpath") if not keys else ("searchpath",) if keys == ("hydra",) else None
        if searched and not entry.primary and _at(document.body, searched) is not _NOTHING:
            raise InputError(
                "hydra.searchpath is followed in the primary config only",
                hint=f"move it to {self._config_name}.yaml",
                file=document.file,
                line=document.line(searched),
            )
        return Part(document, keys, name)

    def _merge(self, parts: list[Part]) -> dict[Any, Any]:
        """Return the parts merged: by the plain rule where it is exact, else by OmegaConf itself."""
        whole: dict[Any, Any] = {}
        try:
            for part in parts:
                whole = _plain_merge(whole, _embedded(part))
        except _NotPlain:
            whole = merge_exactly(parts)
        whole.pop("hydra", None)
        return whole

    def _translated(self, error: Exception, job: str | None) -> InputError:
        """Return what a failure of Hydra means, with the place that it names."""
        text = re.split(r"\n*(?:Config )?[Ss]earch path:", str(error))[0].strip()
        if not text and error.__cause__:
            text = str(error.__cause__)
        named = _IN.match(text)
        said = named[2].strip() if named else text or type(error).__name__
        hint, words = "mend the defaults list", ""
        if isinstance(error, MissingConfigException):
            missing = str(error.missing_cfg_file)
            words = missing.rpartition("/")[2]
            said = f"there is no {missing}.yaml"
            options = list(error.options or [])
            near = difflib.get_close_matches(words, options, 1)
            hint = f"use {near[0]}" if near else f"there is: {', '.join(options)}" if options else "add the file"
            elsewhere = missing.removeprefix("job/")
            if elsewhere != missing and self._repository.document(elsewhere):
                hint = f"begin it with /: `/{elsewhere.rpartition('/')[0]}`; without, it is looked for below job/"
        elif said.startswith("Could not override 'job'"):
            said, hint = "the primary config does not include jobs", "add `- job: ???` to its defaults"
            named = None
        elif found := re.search(r"Could not override '([^']+)'", said):
            words = re.split(r"[/@]", found[1])[0]
            there = re.search(r"Did you mean to override (?:one of )?(.+?)\??$", said, re.MULTILINE)
            said = f"nothing in the defaults list is {found[1]}, to be overridden"
            hint = f"there is: {there[1]}" if there else "override what a defaults list includes, or drop `override`"
            if there and "@job." in found[1] and "@" not in there[1]:
                hint += f" (in a job: `override /{words}@_global_.{there[1].replace('/', '.')}: …`)"
        elif found := re.search(r"You must specify '([^']+)'", said):
            words = re.split(r"[/@]", found[1])[0]
            options = [line.strip() for line in said.splitlines()[1:] if line.startswith("\t")]
            said = f"no option of {found[1]} is chosen"
            hint = f"say `override /{found[1]}: …`" + (f", one of {', '.join(options)}" if options else "")
        elif found := re.search(r"Multiple values for (\S+?)\. ", said):
            words = re.split(r"[/@]", found[1])[0]
            hint = "choose it once, with `override` wherever it is chosen again"
        elif "Duplicate _self_" in said:
            words, hint = "_self_", "keep one _self_"
        elif isinstance(error, RecursionError):
            said, hint = "the defaults lists include each other without end", "break the circle"
        file, line = self._place(words, named[1] if named else None, job)
        return InputError(" ".join(said.split()), hint=hint, file=file, line=line)

    def _place(self, words: str, named: str | None, job: str | None) -> tuple[str, int | None]:
        """Return where a defaults list says ``words``: in the config that Hydra named, else in the likely ones."""
        likely = [self._repository.document(named)] if named else []
        likely += [self._repository.document(f"job/{job}")] if job else []
        likely += [self._repository.last, self._repository.document(self._config_name)]
        documents = [document for document in likely if document]
        for document in documents:
            line = document.default_line(words)
            if line:
                return document.file, line
        return (documents[0].file, documents[0].line(("defaults",)) or 1) if documents else ("", None)


class GitConfigSource(ConfigSource):
    """A folder of the commit as Hydra sees a config folder. The parameter names are Hydra's."""

    def __init__(self, objects: Objects, folder: str, provider: str) -> None:
        super().__init__(provider=provider, path=f"git://{folder}")
        self.objects = objects
        self.folder = folder

    @staticmethod
    def scheme() -> str:
        return "git"

    def available(self) -> bool:
        return self.is_group("")

    def is_group(self, config_path: str) -> bool:
        return self.objects.kind(self._within(config_path)) == "tree"

    def is_config(self, config_path: str) -> bool:
        return self.objects.kind(self._within(_file(config_path))) == "blob"

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        found: list[str] = []
        for name in self.objects.names.get(self.objects.real(self._within(config_path)) or "", ()):
            self._list_add_result(found, posixpath.join(config_path, name), name, results_filter)
        return sorted(set(found))

    def load_config(self, config_path: str) -> ConfigResult:  # pragma: no cover - documents are read bounded instead
        raise ConfigLoadError(config_path)

    def document(self, config_path: str) -> Document:
        path = self._within(_file(config_path))
        file = self.objects.real(path) or path
        content = self.objects.read(path, BYTES_MAX)
        if content is None:  # pragma: no cover - is_config was asked first
            raise InputError("there is no such file", hint="add it", file=file)
        return load(content, file)

    def _within(self, config_path: str) -> str:
        path = posixpath.join(self.folder, config_path)
        if config_path.startswith("/") or self.objects.real(path) is None:
            raise InputError(
                f"the default {config_path!r} leads out of the repository",
                hint="name a file below the config folder",
            )
        return path


class _GitRepository(ConfigRepository):
    """Hydra's view of the search path, without the sources that import or read anything else."""

    def __init__(self, objects: Objects, config_dir: str, primary: str) -> None:
        self._folders = [GitConfigSource(objects, config_dir, "main")]
        self.last: Document | None = None
        self._documents: dict[str, Document | None] = {}
        self._results: dict[str, ConfigResult | None] = {}
        document = self.document(primary)
        if document is None:
            raise InputError(
                f"there is no {posixpath.join(config_dir, primary)}.yaml in the commit",
                hint="commit it, or name another in [tool.espalier]: config_dir, config_name",
            )
        for folder in _search_path(document):
            self._folders.append(GitConfigSource(objects, folder, "hydra.searchpath in main"))
        self.sources = [*self._folders]
        self._documents = {primary: document}

    def document(self, name: str) -> Document | None:
        """Return what ``name`` is on the search path, None where no source has it."""
        if name not in self._documents:
            source = next((source for source in self._folders if source.is_config(name)), None)
            self._documents[name] = source.document(name) if source else None
        return self._documents[name]

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path not in self._results:
            try:
                document = self.document(config_path)
            except InputError as error:
                if error.file or self.last is None:
                    raise
                words = config_path.lstrip("/").rpartition("/")[2]
                raise InputError(
                    error.message, hint=error.hint, file=self.last.file, line=self.last.default_line(words)
                ) from error
            self._results[config_path] = self._result(config_path, document) if document else None
        self.last = self.document(config_path) or self.last
        return self._results[config_path]

    def _result(self, name: str, document: Document) -> ConfigResult:
        items = [entry for entry in document.defaults if not _default_of_hydra(entry, posixpath.dirname(name))]
        return ConfigResult(
            provider="main",
            path=f"git://{document.file}",
            config=_EMPTY,  # the body is merged from the document
            header={"package": document.package},
            defaults_list=self._create_defaults_list(name, OmegaConf.create(copy.deepcopy(items))),
        )


_EMPTY = OmegaConf.create()


def _search_path(document: Document) -> Iterator[str]:
    """Yield the folders of a literal ``hydra.searchpath``; refuse all else."""
    found = _at(document.body, ("hydra", "searchpath"))
    if found is _NOTHING or found is None:
        return
    line = document.line(("hydra", "searchpath"))
    for entry in found if isinstance(found, list) else [found]:
        folder = entry.removeprefix("file://") if isinstance(entry, str) else ""
        outside = folder.startswith("/") or posixpath.normpath(folder).split("/")[0] == ".."
        if not folder or outside or "://" in folder or "${" in folder or not isinstance(found, list):
            raise InputError(
                f"hydra.searchpath {entry!r} is refused",
                hint="list folders of this repository, literally, from its top",
                file=document.file,
                line=line,
            )
        yield posixpath.normpath(folder)


@contextmanager
def _hydra() -> Iterator[None]:
    """Give Hydra and OmegaConf the globals that a composition needs, and put back what was there."""
    with _LOCK:
        missing = hydra.version.VersionBase not in Singleton._instances
        base = hydra.version.VersionBase.instance()
        before = base.version_base, hydra.version._get_version, defaults_list._create_interpolation_map
        known = BaseContainer._resolvers
        base.version_base = before[1](VERSION_BASE)
        hydra.version._get_version = _cached(before[1])
        defaults_list._create_interpolation_map = functools.partial(_interpolation_map, before[2])
        BaseContainer._resolvers = {name: known[name] for name in _PURE_RESOLVERS if name in known}
        try:
            yield
        finally:
            base.version_base, hydra.version._get_version, defaults_list._create_interpolation_map = before
            BaseContainer._resolvers = known
            if missing:
                Singleton._instances.pop(hydra.version.VersionBase, None)


@functools.lru_cache(maxsize=2)
def _cached(function: Any) -> Any:
    return functools.lru_cache(function)


def _interpolation_map(whole: Any, overrides: Any, defaults: Any, self_added: bool) -> Any:
    """Build the map only where an entry needs it: it is the dearest part of a defaults list."""
    needed = any(entry.is_interpolation() for entry in defaults if not entry.is_self())
    return whole(overrides, defaults, self_added) if needed else None


def _default_of_hydra(entry: Any, group: str) -> bool:
    """Return whether an entry of a defaults list of ``group`` chooses something of Hydra's own node."""
    key = next(iter(entry), "") if isinstance(entry, Mapping) else entry
    if not isinstance(key, str):
        return False
    name = key.split(" ")[-1].split("@")[0]
    return name.startswith("/hydra/") or (not group and name.startswith("hydra/"))


def _of_hydra(package: str) -> bool:
    return package == "hydra" or package.startswith("hydra.")


def _at(tree: Any, path: Path) -> Any:
    for name in path:
        in_list = isinstance(tree, list) and isinstance(name, int) and name < len(tree)
        if in_list or (isinstance(tree, dict) and name in tree):
            tree = tree[name]
        else:
            return _NOTHING
    return tree


def merge_exactly(parts: list[Part]) -> dict[Any, Any]:
    """Return the parts merged by OmegaConf; InputError with the place of what cannot be merged."""
    whole = OmegaConf.create()
    for part in parts:
        node = OmegaConf.create(copy.deepcopy(_embedded(part, or_list=True)))
        try:
            whole.merge_with(node)
        except (OmegaConfBaseException, TypeError, ValueError) as error:
            conflict = _conflict(OmegaConf.to_container(whole, resolve=False), node) or ()
            key = ".".join(str(name) for name in conflict)
            raise InputError(
                f"{key or part.document.file} cannot be merged: {_first_line(error)}",
                hint="a map and a list do not merge: give both the same shape",
                file=part.document.file,
                line=part.document.line(conflict[len(part.package) :]) or 1,
            ) from error
    merged = OmegaConf.to_container(whole, resolve=False)
    if not isinstance(merged, dict):  # pragma: no cover - it began as one
        raise TypeError(type(merged).__name__)
    return merged


class _NotPlain(Exception):
    """The plain rule is not exact here."""


def _embedded(part: Part, *, or_list: bool = False) -> Any:
    """Return the document's body below its package, without Hydra's own node."""
    body = part.document.body
    if not part.package and isinstance(body, dict) and "hydra" in body:
        body = {name: value for name, value in body.items() if name != "hydra"}
    for name in reversed(part.package):
        body = {name: body}
    if not isinstance(body, dict) and not or_list:
        raise _NotPlain
    return body


def _plain_merge(old: dict[Any, Any], new: dict[Any, Any]) -> dict[Any, Any]:
    """Return what OmegaConf's merge of untyped nodes gives, sharing what does not change.

    Where OmegaConf would follow a reference, or refuse, _NotPlain is raised.
    """
    merged = dict(old)
    for name, value in new.items():
        before = merged.get(name)
        if name not in merged:
            merged[name] = value
            continue
        reference = isinstance(before, str) and "${" in before
        if value == "???" and isinstance(value, str):
            if reference:
                raise _NotPlain
        elif isinstance(value, dict):
            if isinstance(before, list) or reference:
                raise _NotPlain
            merged[name] = _plain_merge(before, value) if isinstance(before, dict) else value
        elif isinstance(value, list) and (isinstance(before, dict) or reference):
            raise _NotPlain
        else:
            merged[name] = value
    return merged


def _conflict(old: Any, new: Any, path: Path = ()) -> Path | None:
    """Return the first path at which a map meets a list."""
    if isinstance(new, DictConfig):
        new = OmegaConf.to_container(new, resolve=False)
    if isinstance(old, dict) and isinstance(new, dict):
        for name in new:
            found = _conflict(old[name], new[name], (*path, name)) if name in old else None
            if found:
                return found
        return None
    return (
        path if isinstance(old, dict | list) and isinstance(new, dict | list) and type(old) is not type(new) else None
    )


def _file(config_path: str) -> str:
    """Return the file of a config, as Hydra does from version base 1.2 on."""
    return config_path if config_path.endswith(".yaml") else f"{config_path}.yaml"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


__all__ = ["Composed", "Composer", "GitConfigSource", "Part"]
