"""Config files as bounded, exact values with their lines. Never constructs what a file could make expensive or alive.

The values are those that OmegaConf's own loader gives; files beyond the bounds are refused before they are built.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import GrammarParseError
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser
from omegaconf.grammar_parser import SIMPLE_INTERPOLATION_PATTERN, parse

from espalier.core.errors import InputError
from espalier.source.schema import Path, shown

BYTES_MAX = 256 * 1024
DEPTH_MAX = 60  # a composed Python recursion stays far from its limit
NODES_MAX = 50_000  # with every alias and merge key expanded: 16-25 ms for a bomb
DIGITS_MAX = 400  # sexagesimal and hexadecimal integers grow while they are built
TEXT_MAX = 20_000  # characters of a string with interpolations: its grammar takes 5 ms for 1,000

_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))
_INT = "tag:yaml.org,2002:int"
_MERGE = "tag:yaml.org,2002:merge"
_STR = "tag:yaml.org,2002:str"
_PURE = re.compile(r"\t|\ufeff|(?:^|[\s\[{,:-])!|^%", re.MULTILINE)  # where libyaml and PyYAML differ
_ACYCLIC = "write the value out"


@dataclass(frozen=True)
class Document:
    """One config file: header, defaults list and the rest, as plain values that nobody may change."""

    file: str
    package: str | None
    defaults: tuple[Any, ...]
    body: Any
    node: yaml.Node | None = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)

    @functools.cached_property
    def lines(self) -> dict[Path, int]:
        """The line of each key and list entry, by its path in the file."""
        found: dict[Path, int] = {}
        if self.node is not None:
            _mark(self.node, (), found, 0)
        return found

    def line(self, path: Path) -> int | None:
        """Return the line of ``path``, or of the nearest node above it."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return None

    def default_line(self, words: str) -> int | None:
        """Return the line of the first entry of the defaults list that has ``words``, None without one."""
        whole = re.compile(rf"(?<![\w-]){re.escape(words)}(?![\w-])")
        for index, entry in enumerate(self.defaults):
            if words and whole.search(str(entry)):
                return self.line(("defaults", index))
        return None


def load(content: bytes, file: str) -> Document:
    """Return the document; InputError with file and line for what is malformed or beyond the bounds."""
    if len(content) > BYTES_MAX:
        raise InputError(f"larger than {BYTES_MAX // 1024} KiB", hint="split it", file=file)
    try:
        text = content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError("not UTF-8", hint="save it as UTF-8", file=file, line=line) from None
    headers = _headers(text[:512], file)
    try:
        node, tree = _build(text, file)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InputError(
            f"not valid YAML: {error.problem or error.context}",
            hint="mend the syntax; quote text that begins with a special character",
            file=file,
            line=mark.line + 1 if mark else None,
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"not valid YAML: {problem}", hint="mend the syntax", file=file) from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict | list):
        raise InputError("the file is neither a map nor a list", hint="write `key: value` lines", file=file, line=1)
    defaults: Any = ()
    if isinstance(tree, dict):
        tree = dict(tree)
        defaults = tree.pop("defaults", ())
    document = Document(file, headers.get("package"), (), tree, node, headers)
    if not isinstance(defaults, list | tuple):
        raise InputError(
            "the defaults list is not a list", hint="write `- group: option` entries", file=file,
            line=document.line(("defaults",)),
        )  # fmt: skip
    document = Document(file, headers.get("package"), tuple(defaults), tree, node, headers)
    _check_strings(document)
    return document


def resolvers(text: str) -> list[str]:
    """Return the resolvers that ``text`` calls, as written; raises GrammarParseError for bad syntax."""
    return [ctx.resolverName().getText() for ctx in _contexts(grammar(text)) if _calls(ctx)]


@functools.lru_cache(maxsize=4096)
def grammar(text: str) -> Any:
    """Return OmegaConf's parse tree of a string with interpolations."""
    if len(text) > TEXT_MAX:
        raise GrammarParseError(f"longer than {TEXT_MAX} characters")
    return parse(text)


def _calls(ctx: Any) -> bool:
    return isinstance(ctx, OmegaConfGrammarParser.InterpolationResolverContext)


def _contexts(ctx: Any) -> Iterator[Any]:
    yield ctx
    for child in getattr(ctx, "children", None) or ():
        yield from _contexts(child)


def _headers(start: str, file: str) -> dict[str, str]:
    """Return the ``# @name value`` lines that a file begins with, by Hydra's rules."""
    found = {}
    for number, line in enumerate(start.splitlines(), 1):
        words = line.strip()
        if not words:
            continue
        if not re.match(r"#\s*@", words):
            break
        parts = words.lstrip("#").split()
        if len(parts) != 2:
            raise InputError(
                f"the header {words!r} is not a name and one value",
                hint="write `# @package name`",
                file=file,
                line=number,
            )
        if parts[0].startswith("@"):
            found[parts[0][1:]] = parts[1]
    return found


def _exact(base: type) -> Any:
    """Return a loader of ``base``'s speed with OmegaConf's rules, and without its tags for Python objects."""
    theirs = get_yaml_loader()

    class Loader(base):  # type: ignore[misc]
        def construct_mapping(self, node: yaml.Node, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if key.tag == _STR:
                    if key.value in seen:
                        raise yaml.constructor.ConstructorError(
                            "while constructing a mapping", node.start_mark, f"the key {key.value!r} is there twice",
                            key.start_mark,
                        )  # fmt: skip
                    seen.add(key.value)
            return super().construct_mapping(node, deep=deep)

    Loader.yaml_implicit_resolvers = theirs.yaml_implicit_resolvers
    return Loader


@functools.lru_cache(maxsize=1)
def _loaders() -> tuple[Any, Any]:
    pure = _exact(yaml.SafeLoader)
    return (_exact(yaml.CSafeLoader) if hasattr(yaml, "CSafeLoader") else pure), pure


def _build(text: str, file: str) -> tuple[yaml.Node | None, Any]:
    fast, pure = _loaders()
    kind = pure if _PURE.search(text) else fast
    _check_events(text, kind, file)
    loader = kind(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, None
        _check_nodes(node, file)
        return node, loader.construct_document(node)
    finally:
        loader.dispose()


def _check_events(text: str, kind: Any, file: str) -> None:
    """Refuse depth, number and tags while reading events, which no nesting can overflow."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=kind), 1):
        line = event.start_mark.line + 1 if event.start_mark else None
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH_MAX:
            raise InputError(f"nested deeper than {DEPTH_MAX}", hint="flatten it", file=file, line=line)
        if count > NODES_MAX:
            raise InputError(f"more than {NODES_MAX} nodes", hint="split it", file=file, line=line)
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _TAGS:
            raise InputError(
                f"the tag {tag!r} is refused: a config file holds plain values",
                hint="remove the tag",
                file=file,
                line=line,
            )


def _check_nodes(top: yaml.Node, file: str) -> None:
    """Refuse what aliases, merge keys and integers would grow to, before anything is built."""
    sizes: dict[int, tuple[int, int]] = {}
    active: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        if id(node) in sizes:
            return sizes[id(node)]
        line = node.start_mark.line + 1
        if id(node) in active:
            raise InputError("an alias that contains itself", hint=_ACYCLIC, file=file, line=line)
        if isinstance(node, yaml.ScalarNode):
            if node.tag == _INT and len(node.value) > DIGITS_MAX:
                raise InputError("an integer without end", hint="quote it", file=file, line=line)
            return 1, 1
        active.add(id(node))
        size, depth = 1, 0
        pairs = node.value if isinstance(node, yaml.SequenceNode) else [side for pair in node.value for side in pair]
        for child in pairs:
            more, deep = measure(child)
            size, depth = size + more, max(depth, deep)
            if size > NODES_MAX:
                raise InputError(
                    f"more than {NODES_MAX} nodes once aliases are written out", hint=_ACYCLIC, file=file, line=line
                )
        if depth >= DEPTH_MAX:
            raise InputError(f"nested deeper than {DEPTH_MAX} by aliases", hint=_ACYCLIC, file=file, line=line)
        active.discard(id(node))
        sizes[id(node)] = size, depth + 1
        return size, depth + 1

    measure(top)


def _check_strings(document: Document) -> None:
    """Refuse malformed interpolations, keys that OmegaConf has none of, and resolvers in the defaults list."""

    def walk(value: Any, path: Path) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key is None or isinstance(key, tuple | bytes):
                    raise InputError(
                        "a key that is null or no plain value", hint="quote the key", file=document.file,
                        line=document.line(path) or 1,
                    )  # fmt: skip
                walk(inner, (*path, key))
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                walk(inner, (*path, index))
        elif isinstance(value, str) and "${" in value and not SIMPLE_INTERPOLATION_PATTERN.match(value):
            try:
                grammar(value)
            except (GrammarParseError, RecursionError) as error:
                raise InputError(
                    f"{shown(path)}: {value!r} is no valid interpolation ({str(error).splitlines()[0]})",
                    hint="write ${a.b}; a literal ${ is written \\${",
                    file=document.file,
                    line=document.line(path),
                ) from None

    walk(document.body, ())
    for index, entry in enumerate(document.defaults):
        walk(entry, ("defaults", index))
        text = str(entry)
        if any("${" in part and resolvers(part) for part in strings(entry)):
            raise InputError(
                f"a resolver in the defaults list: {text}",
                hint="name the option, or refer to another entry as ${group}",
                file=document.file,
                line=document.line(("defaults", index)),
            )


def strings(value: Any) -> Iterator[str]:
    """Yield every string in ``value``, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from strings(name)
            yield from strings(inner)
    elif isinstance(value, Iterable):
        for inner in value:
            yield from strings(inner)


def _mark(node: yaml.Node, path: Path, found: dict[Path, int], depth: int) -> None:
    if depth > DEPTH_MAX:
        return
    if isinstance(node, yaml.SequenceNode):
        for index, inner in enumerate(node.value):
            found.setdefault((*path, index), inner.start_mark.line + 1)
            _mark(inner, (*path, index), found, depth + 1)
    elif isinstance(node, yaml.MappingNode):
        merged = []
        for key, inner in node.value:
            if key.tag == _MERGE:
                merged.append(inner)
                continue
            found.setdefault((*path, key.value), key.start_mark.line + 1)
            _mark(inner, (*path, key.value), found, depth + 1)
        for inner in merged:
            for source in inner.value if isinstance(inner, yaml.SequenceNode) else [inner]:
                _mark(source, path, found, depth + 1)
