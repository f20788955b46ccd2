"""The repository's own settings, without Hydra where nothing needs composing. Never reads a job's file."""

import posixpath
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from espalier.core.errors import InputError
from espalier.source.git import Objects

BYTES_MAX = 256 * 1024
_KEYS = ("config_dir", "config_name")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a commit keeps its config: folder and name of the primary config."""

    config_dir: str = "conf"
    config_name: str = "config"

    @property
    def file(self) -> str:
        """The primary config's path."""
        return posixpath.join(self.config_dir, f"{self.config_name}.yaml")


def read_layout(objects: Objects) -> Layout:
    """Return what ``[tool.espalier]`` of pyproject.toml, or espalier.toml, say at the commit."""
    found: dict[str, Any] = {}
    where = ""
    for file in ("pyproject.toml", "espalier.toml"):
        content = objects.read(file, BYTES_MAX)
        if content is None:
            continue
        try:
            table: Any = tomllib.loads(content.decode("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            if file == "pyproject.toml" and b"espalier" not in content:
                continue  # not ours to complain about
            raise InputError(f"not valid TOML: {error}", hint="mend the syntax", file=file) from error
        if file == "pyproject.toml":
            tools = table.get("tool", {})
            table = tools.get("espalier", {}) if isinstance(tools, dict) else {}
        if not isinstance(table, dict):
            raise InputError("tool.espalier is no table", hint="write [tool.espalier]", file=file)
        if table and found:
            raise InputError(f"{where} says it too", hint="keep one of the two", file=file)
        if table:
            found, where = table, file
    for key, value in found.items():
        line = _line_of(objects, where, key)
        if key not in _KEYS:
            raise InputError(f"unknown key {key!r}", hint=f"there is: {', '.join(_KEYS)}", file=where, line=line)
        if not isinstance(value, str) or not re.match(r"[^\x00-\x1f/$][^\x00-\x1f$]*\Z", value):
            raise InputError(f"{key} is no relative path", hint=f'write {key} = "conf"', file=where, line=line)
        if {"", ".", ".."} & set(value.split("/")):
            raise InputError(f"{key} is no plain path", hint="name a folder of the repository", file=where, line=line)
    layout = Layout(found.get("config_dir", "conf"), found.get("config_name", "config").removesuffix(".yaml"))
    if "/" in layout.config_name:
        raise InputError("config_name is a path", hint="give the folder by config_dir", file=where)
    return layout


def plain_config(objects: Objects, layout: Layout) -> tuple[Mapping[Any, Any], Any] | None:
    """Return the primary config and its document where no entry of its defaults list can touch more than ``job``.

    None where Hydra must compose it.
    """
    from espalier.source.guard import load

    content = objects.read(layout.file, BYTES_MAX)
    if content is None:
        raise InputError(
            f"the commit has no {layout.file}",
            hint="commit it, or name another in [tool.espalier]: config_dir, config_name (espalier init makes one)",
        )
    document = load(content, layout.file)
    body = document.body
    if not isinstance(body, dict) or document.package not in (None, "_global_"):
        return None
    own = body.get("hydra")
    if isinstance(own, dict) and "searchpath" in own:
        return None
    for entry in document.defaults:
        if not _harmless(objects, layout, entry):
            return None
    return {name: value for name, value in body.items() if name != "hydra"}, document


def _harmless(objects: Objects, layout: Layout, entry: Any) -> bool:
    """Return whether an entry gives values below ``job`` only, or to Hydra's own node."""
    if entry == "_self_":
        return True
    if not isinstance(entry, dict) or len(entry) != 1:
        return False
    key, option = next(iter(entry.items()))
    if key == "job":
        return bool(option == "???")
    if not isinstance(key, str) or not isinstance(option, str):
        return False
    group, _, package = key.split(" ")[-1].partition("@")
    if group.removeprefix("/").startswith("hydra/"):
        return True
    if not re.match(r"job\.[A-Za-z0-9_.]+\Z", package) or not re.match(r"[A-Za-z0-9_/.-]+\Z", option):
        return False
    path = posixpath.join(layout.config_dir, group.removeprefix("/"), f"{option}.yaml")
    content = objects.read(path, BYTES_MAX)
    return content is not None and re.search(rb"\bdefaults\b", content) is None


def _line_of(objects: Objects, file: str, key: str) -> int | None:
    lines = (objects.read(file, BYTES_MAX) or b"").decode("utf-8", "replace").splitlines()
    return next((number for number, text in enumerate(lines, 1) if re.match(rf"\s*\"?{re.escape(key)}\b", text)), None)
