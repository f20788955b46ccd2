"""Markdown files as tests see them: links, headings, fenced blocks. Never judges what they say."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`\n]*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: ``info`` are the words after the fence, ``line`` is where it begins."""

    page: Path
    line: int
    info: tuple[str, ...]
    body: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A command of a console block, and the lines that are shown below it."""

    command: str
    output: tuple[str, ...]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of ``page`` in order."""
    text = page.read_text("utf-8")
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, tuple(match["info"].split()), match["body"])


def prose(page: Path) -> str:
    """Return the page without its fenced blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


def links(page: Path) -> list[str]:
    return [match["target"] for match in _LINK.finditer(prose(page))]


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings, as hosts of Markdown make them."""
    found = (match["text"].strip().lower() for match in _HEADING.finditer(prose(page)))
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in found}


def section(page: Path, heading: str) -> str:
    """Return what stands below ``heading`` up to the next one of its level; empty when there is none."""
    text = page.read_text("utf-8")
    level = heading.split()[0]
    match = re.search(
        rf"^{re.escape(heading)}$(?P<body>.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL
    )
    return match["body"] if match else ""


def shown(block: Block) -> list[Shown]:
    """Return the commands of a console block, each with the output that the page shows."""
    found: list[Shown] = []
    for line in block.body.splitlines():
        if line.startswith("$ "):
            found.append(Shown(line.removeprefix("$ "), ()))
        elif line.startswith("> ") and found and not found[-1].output:
            found[-1] = Shown(f"{found[-1].command}\n{line.removeprefix('> ')}", ())
        else:
            assert found, f"{name(block.page)}:{block.line}: output without a command"
            found[-1] = Shown(found[-1].command, (*found[-1].output, line))
    return found


def differs(expected: tuple[str, ...], actual: str) -> str | None:
    """Return the first expected line that does not follow in ``actual``; ``…`` stands for any text or lines."""
    left = [line.rstrip() for line in actual.splitlines()]
    for line in expected:
        if not line.strip() or line.strip() == "…":
            continue
        pattern = re.compile(".*".join(re.escape(part) for part in line.rstrip().split("…")))
        for at, real in enumerate(left):
            if pattern.fullmatch(real):
                left = left[at + 1 :]
                break
        else:
            return line
    return None
