"""Interpolations of one composed config. Never runs a resolver that is not pure, never reads an environment value.

Works on plain values with OmegaConf's own grammar. Late values stay the literal characters that they are; of each
value it is known whether it depends on a swept parameter, and which nodes outside the spec it went through.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf._utils import split_key
from omegaconf.errors import GrammarParseError
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser
from omegaconf.grammar_parser import parse
from omegaconf.grammar_visitor import GrammarVisitor

from espalier.core.errors import InputError
from espalier.source.guard import NODES_MAX, grammar, strings
from espalier.source.schema import Path, shown

LATE = ("job", "project", "commit", "version", "trial", "output_dir", "checkpoint_dir")
ENVIRONMENT = ("espalier.env", "oc.env")
PURE = ("oc.select", "oc.create", "oc.decode", "oc.dict.keys", "oc.dict.values")
CHAIN_MAX = 30  # references that lead to references; each takes some 20 frames of Python
TEXT_MAX = 100_000  # characters of a resolved string

_LATE_TEXT = re.compile(r"\$\{(?:espalier\.|oc\.env:)")
_NOT_FOUND: Any = object()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A resolved value, and what it took. ``size`` counts its nodes; ``through`` are paths outside the spec."""

    value: Any
    swept: bool = False
    through: frozenset[Path] = frozenset()
    variables: frozenset[str] = frozenset()
    data: frozenset[str] = frozenset()
    size: int = 1


@dataclass(slots=True)
class _Frame:
    """What resolving one node has met so far."""

    path: Path
    swept: bool = False
    through: set[Path] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)
    data: set[str] = field(default_factory=set)
    size: int = 1

    def add(self, outcome: Outcome) -> None:
        self.swept |= outcome.swept
        self.variables |= outcome.variables
        self.data |= outcome.data
        self.size += outcome.size


class Fault(InputError):
    """An interpolation that cannot be resolved; ``path`` is the node that holds it."""

    def __init__(self, message: str, *, hint: str, path: Path) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class Resolver:
    """Resolves nodes of ``tree`` by their path; ``swept`` are the paths that a sweep sets.

    ``inside`` tells the paths that the spec itself holds. ``base`` is a resolver of the same tree with other swept
    values, whose unswept results are taken over.
    """

    def __init__(
        self,
        tree: Mapping[Any, Any],
        swept: Collection[Path] = (),
        inside: Callable[[Path], bool] = lambda path: False,
        base: "Resolver | None" = None,
    ) -> None:
        self.tree = tree
        self._swept = tuple(swept)
        self._inside = inside
        self._base = base
        self._known: dict[Path, Outcome] = {}
        self._active: dict[Path, None] = {}
        self._frames: list[_Frame] = []
        self._chained = 0

    def node(self, path: Path) -> Outcome:
        """Return the node at ``path`` resolved, whole; Fault where that cannot be."""
        if path in self._known:
            return self._known[path]
        if self._base:
            before = self._base._known.get(path)
            if before and not before.swept:
                return before
        if path in self._active:
            chain = " → ".join(shown(step) for step in [*self._active, path])
            raise Fault(f"{shown(path)} refers to itself: {chain}", hint="break the circle", path=path)
        self._active[path] = None
        frame = _Frame(path)
        self._frames.append(frame)
        try:
            self._touch(path)
            value = self._resolved(path, _get(self.tree, path))
        finally:
            self._frames.pop()
            del self._active[path]
        if frame.size > NODES_MAX or (isinstance(value, str) and len(value) > TEXT_MAX):
            raise Fault(f"{shown(path)} grows without measure by its references", hint="refer to less", path=path)
        outcome = Outcome(
            value, frame.swept, frozenset(frame.through), frozenset(frame.variables), frozenset(frame.data), frame.size
        )
        self._known[path] = outcome
        return outcome

    def text(self, raw: str, path: Path) -> Outcome:
        """Return ``raw`` resolved as if it stood at ``path``."""
        if "${" not in raw:
            return Outcome(raw)
        frame = _Frame(path)
        self._frames.append(frame)
        try:
            value = self._text(raw, path)
        finally:
            self._frames.pop()
        return Outcome(
            value, frame.swept, frozenset(frame.through), frozenset(frame.variables), frozenset(frame.data), frame.size
        )

    def raw(self, path: Path) -> Any:
        """Return what is written at ``path``."""
        return _get(self.tree, path)

    def written(self, path: Path) -> Any:
        """Return the node at ``path`` with what depends on a swept value as written, all else resolved."""
        outcome, raw = self.node(path), _get(self.tree, path)
        if not outcome.swept:
            return outcome.value
        if isinstance(raw, dict):
            return {name: self.written((*path, name)) for name in raw}
        if isinstance(raw, list):
            return [self.written((*path, index)) for index in range(len(raw))]
        return raw

    def opened(self, path: Path) -> Any:
        """Return, for a reference to a map, a map whose leaves are references to that map's; None for all else."""
        raw = _get(self.tree, path)
        if not isinstance(raw, str) or "${" not in raw or _only_reference(raw) is None:
            return None
        self._frames.append(_Frame(path))
        try:
            spot = self._through(path)
        finally:
            self._frames.pop()
        if isinstance(spot, _Computed):
            return spot.value if isinstance(spot.value, dict) else None
        return _references(_get(self.tree, spot), spot) if isinstance(_get(self.tree, spot), dict) else None

    def _resolved(self, path: Path, raw: Any) -> Any:
        if isinstance(raw, dict):
            return {name: self._child((*path, name)) for name in raw}
        if isinstance(raw, list):
            return [self._child((*path, index)) for index in range(len(raw))]
        if isinstance(raw, str):
            if raw == "???":
                raise Fault(f"{shown(path)} is ???, a value that must be given", hint="give it a value", path=path)
            if "${" in raw:
                return self._text(raw, path)
        if raw is _NOT_FOUND:
            raise Fault(f"there is no {shown(path)}", hint="mend the reference", path=path)
        return raw

    def _child(self, path: Path) -> Any:
        outcome = self.node(path)
        self._frames[-1].add(outcome)
        if outcome.swept:
            self._frames[-1].through |= outcome.through
        return outcome.value

    def _text(self, raw: str, path: Path) -> Any:
        if re.search(r"\\\$\{(?:espalier\.|oc\.env:)", raw):
            raise Fault(
                f"{shown(path)}: an escaped late value cannot be told from a late value",
                hint="write the text in another way",
                path=path,
            )
        if self._chained >= CHAIN_MAX:
            raise Fault(f"more than {CHAIN_MAX} nested references", hint="refer directly", path=path)
        self._chained += 1
        try:
            return self._visitor(path).visit(grammar(raw))
        except InputError:
            raise
        except GrammarParseError as error:
            raise Fault(f"{shown(path)}: {raw!r} is no valid interpolation", hint=str(error), path=path) from error
        except RecursionError as error:
            raise Fault(f"{shown(path)} is nested too deeply", hint="flatten it", path=path) from error
        except Exception as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise Fault(f"{shown(path)}: {raw!r}: {said}", hint="mend the interpolation", path=path) from error
        finally:
            self._chained -= 1

    def _visitor(self, path: Path) -> "GrammarVisitor":
        return GrammarVisitor(
            node_interpolation_callback=lambda key, memo: self._reference(key, path),
            resolver_interpolation_callback=lambda name, args, args_str: self._call(name, args, args_str, path),
            memo=set(),
        )

    # References to nodes

    def _reference(self, key: str, path: Path) -> Any:
        key = key.strip()
        if key == "espalier" or key.startswith("espalier."):
            return self._late(key, path)
        self._refuse_late(key, path)
        found = self._select(key, path)
        if found is _NOT_FOUND:
            raise Fault(f"{shown(path)}: there is no {key!r} for ${{{key}}}", hint=self._nearest(key, path), path=path)
        return found

    def _late(self, key: str, path: Path) -> str:
        name = key.removeprefix("espalier.")
        if name.startswith("data.") and name.count(".") == 1:
            self._frames[-1].data.add(name.removeprefix("data."))
        elif name not in LATE:
            near = difflib.get_close_matches(name, LATE, 1)
            known = ", ".join((*LATE, "data.NAME", "env:NAME"))
            raise Fault(
                f"{shown(path)}: ${{{key}}} is no late value",
                hint=f"use ${{espalier.{near[0]}}}" if near else f"there is espalier.: {known}",
                path=path,
            )
        return f"${{{key}}}"

    def _select(self, key: str, path: Path) -> Any:
        """Return the resolved value that ``key`` leads to from the node at ``path``, ``_NOT_FOUND`` without one."""
        spot = self._locate(key, path)
        if not isinstance(spot, tuple):
            return spot.value
        if spot and _get(self.tree, spot) is _NOT_FOUND:
            return _NOT_FOUND
        return self._follow(spot)

    def _follow(self, spot: Path) -> Any:
        outcome = self.node(spot)
        frame = self._frames[-1]
        frame.add(outcome)
        if not self._inside(spot):
            frame.through.add(spot)
        if outcome.swept:
            frame.through |= outcome.through
        return outcome.value

    def _locate(self, key: str, path: Path) -> "Path | _Computed":
        """Return where ``key`` leads, through references on its way; a value where one of these is computed."""
        spot: Path | _Computed = ()
        dots = len(key) - len(key.lstrip("."))
        if dots:
            if dots > len(path):
                raise Fault(f"{shown(path)}: {key!r} leads above the top", hint="use fewer dots", path=path)
            spot = path[: len(path) - dots]
            key = key[dots:]
        for name in split_key(key) if key else ():
            spot = self._through(spot)
            spot = spot.step(name) if isinstance(spot, _Computed) else (*spot, _key(_get(self.tree, spot), name))
            if isinstance(spot, tuple):
                self._touch(spot)
        return spot

    def _through(self, spot: "Path | _Computed") -> "Path | _Computed":
        """Return where the node at ``spot`` leads when it is itself a reference."""
        for _ in range(CHAIN_MAX):
            if isinstance(spot, _Computed):
                return spot
            raw = _get(self.tree, spot)
            if not isinstance(raw, str) or "${" not in raw:
                return spot
            if not self._inside(spot):
                self._frames[-1].through.add(spot)
            only = _only_reference(raw)
            if only is None:
                return _Computed(self._follow(spot))
            key = self._key_of(only, spot)
            if key == "espalier" or key.startswith("espalier."):
                return _Computed(_NOT_FOUND)
            spot = self._locate(key, spot)
        raise Fault("references without end", hint="break the circle", path=spot if isinstance(spot, tuple) else ())

    def _key_of(self, ctx: Any, path: Path) -> str:
        """Return the key of a node reference, the references within it resolved."""
        keys: list[str] = []
        inner = self._visitor(path)

        class Outermost(GrammarVisitor):
            def visitConfigKey(self, ctx: Any) -> str:
                return str(inner.visitConfigKey(ctx))

        visitor = Outermost(
            node_interpolation_callback=lambda key, memo: keys.append(key),
            resolver_interpolation_callback=lambda name, args, args_str: None,
            memo=set(),
        )
        visitor.visitInterpolationNode(ctx)
        return keys[0].strip()

    def _touch(self, path: Path) -> None:
        if any(path[: len(swept)] == swept for swept in self._swept):
            self._frames[-1].swept = True

    def _nearest(self, key: str, path: Path) -> str:
        dots = len(key) - len(key.lstrip("."))
        head, _, last = key[dots:].rpartition(".")
        if dots:
            beside = _get(self.tree, (*path[: len(path) - dots], *(head.split(".") if head else ())))
            near = (
                difflib.get_close_matches(last, [str(name) for name in beside], 1) if isinstance(beside, dict) else []
            )
            if near:
                return f"use ${{{'.' * dots}{head}{'.' if head else ''}{near[0]}}}"
        names = [".".join(map(str, known)) for known in _paths(self.tree, 4)]
        same = [name for name in names if name.rpartition(".")[2] == last]
        near = difflib.get_close_matches(key[dots:], names, 1) or same
        return f"there is {near[0]!r}" if near else "refer to a node of the composed config; `.` means beside this one"

    # Resolvers

    def _call(self, name: str, args: tuple[Any, ...], written: tuple[str, ...], path: Path) -> Any:
        if name in ENVIRONMENT:
            return self._variable(name, args, written, path)
        self._refuse_late(args, path)
        if name == "oc.select" and args and len(args) <= 2 and isinstance(args[0], str):
            found = self._select(args[0], path) if not self._missing(args[0], path) else _NOT_FOUND
            return (args[1] if len(args) > 1 else None) if found is _NOT_FOUND else found
        if name == "oc.create" and len(args) == 1 and not isinstance(args[0], str):
            return args[0]
        if name == "oc.decode" and len(args) == 1 and isinstance(args[0], str | None):
            return None if args[0] is None else self._decoded(args[0], path)
        if name in ("oc.dict.keys", "oc.dict.values") and len(args) == 1 and isinstance(args[0], str):
            found = self._select(args[0], path)
            if not isinstance(found, dict):
                raise Fault(f"{shown(path)}: {args[0]!r} is no map, for {name}", hint="name a map", path=path)
            return list(found) if name == "oc.dict.keys" else list(found.values())
        if name in PURE:
            raise Fault(f"{shown(path)}: {name} cannot be called so", hint="look at OmegaConf's manual", path=path)
        near = difflib.get_close_matches(name, (*PURE, *ENVIRONMENT), 1)
        raise Fault(
            f"{shown(path)}: the resolver {name!r} is refused: planning runs no code of the repository",
            hint=f"did you mean {near[0]}?"
            if near
            else "write the value, or compute it in the program; what works: "
            f"{', '.join(PURE)}, and espalier.env in command, env and data",
            path=path,
        )

    def _missing(self, key: str, path: Path) -> bool:
        spot = self._locate(key, path)
        return isinstance(spot, tuple) and _get(self.tree, spot) == "???"

    def _decoded(self, text: str, path: Path) -> Any:
        return self._visitor(path).visit(parse(text, parser_rule="singleElement", lexer_mode="VALUE_MODE"))

    def _variable(self, name: str, args: tuple[Any, ...], written: tuple[str, ...], path: Path) -> str:
        if not 1 <= len(args) <= 2 or not isinstance(args[0], str) or not re.match(r"[A-Za-z_]\w*\Z", args[0]):
            raise Fault(
                f"{shown(path)}: {name} needs the name of an environment variable",
                hint=f"write ${{{name}:NAME}} or ${{{name}:NAME,default}}",
                path=path,
            )
        self._frames[-1].variables.add(args[0])
        default = ""
        if len(args) == 2:
            self._refuse_late(args[1], path)
            default = "," + (written[1] if "${" not in written[1] else _quoted(args[1]))
        return f"${{{name}:{args[0]}{default}}}"

    def _refuse_late(self, value: Any, path: Path) -> None:
        if any(_LATE_TEXT.search(text) for text in strings(value)):
            raise Fault(
                f"{shown(path)}: a late value is known only when a trial starts: nothing can be computed from it",
                hint="use it as text, by itself or within a string",
                path=path,
            )


@dataclass(frozen=True, slots=True)
class _Computed:
    """A value that has no place in the config."""

    value: Any

    def step(self, name: str) -> "_Computed":
        return _Computed(_get({0: self.value}, (0, _key(self.value, name))))


def late(value: Any) -> bool:
    """Return whether ``value`` holds a late value."""
    return any(_LATE_TEXT.search(text) for text in strings(value))


def overlaid(tree: Mapping[Any, Any], values: Mapping[Path, Any]) -> dict[Any, Any]:
    """Return ``tree`` with ``values`` set as Hydra applies overrides: maps merge, all else replaces.

    Shares what it does not change. Raises Fault where a value's place is below a reference or a plain value.
    """
    whole = dict(tree)
    for path, value in values.items():
        here = whole
        for index, name in enumerate(path[:-1]):
            inner = here.get(name)
            if inner is not None and not isinstance(inner, dict):
                above = shown(path[: index + 1])
                what = f"a reference ({inner})" if isinstance(inner, str) and "${" in inner else "no map"
                raise Fault(
                    f"{shown(path)} cannot be swept: {above} is {what}",
                    hint="sweep a key that lies in a map of its own",
                    path=path,
                )
            here[name] = dict(inner or {})
            here = here[name]
        here[path[-1]] = _merged(here.get(path[-1]), value)
    return whole


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}
    return new


def _only_reference(raw: str) -> Any:
    """Return the grammar's node when ``raw`` is exactly one reference to a node, else None."""
    text = grammar(raw).getChild(0)
    if text.getChildCount() == 1:
        inner = text.getChild(0)
        if isinstance(inner, OmegaConfGrammarParser.InterpolationContext):
            node = inner.getChild(0)
            if isinstance(node, OmegaConfGrammarParser.InterpolationNodeContext):
                return node
    return None


def _references(node: Any, path: Path) -> Any:
    """Return maps as they are, with a reference to each of their leaves; a key that no reference can name stays out."""
    if isinstance(node, dict) and node:
        return {name: _references(inner, (*path, name)) for name, inner in node.items()}
    named = all(isinstance(name, str) and re.match(r"[A-Za-z_$][\w$-]*\Z", name) for name in path)
    return "${" + ".".join(path) + "}" if named and not isinstance(node, dict) else node


def _key(node: Any, name: str) -> Any:
    return int(name) if isinstance(node, list) and re.match(r"[0-9]+\Z", name) else name


def _get(tree: Any, path: Path) -> Any:
    for name in path:
        if (isinstance(tree, dict) and name in tree) or (
            isinstance(tree, list) and isinstance(name, int) and name < len(tree)
        ):
            tree = tree[name]
        else:
            return _NOT_FOUND
    return tree


def _paths(tree: Any, depth: int, path: Path = ()) -> Iterator[Path]:
    if isinstance(tree, dict) and depth:
        for name, inner in tree.items():
            yield (*path, name)
            yield from _paths(inner, depth - 1, (*path, name))


def _quoted(value: Any) -> str:
    text = str(value)
    return text if re.match(r"[\w./+@-]*\Z", text) else "'" + text.replace("'", r"\'") + "'"
