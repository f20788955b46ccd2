"""The documentation holds: links lead somewhere, blocks parse and run, every command and key is described."""

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import documents
from tests.documents import PAGES, ROOT, Block
from tests.repository import Repository

RUN = [page for page in PAGES if any("run" in block.info for block in documents.blocks(page))]
PARSERS = {"json": json.loads, "yaml": lambda text: list(yaml.safe_load_all(text)), "toml": tomllib.loads}


@pytest.mark.parametrize("page", PAGES, ids=documents.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in documents.links(page):
        if link.startswith(("https://", "mailto:")):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), link
        assert not anchor or anchor in documents.anchors(file), link


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, left = set(), [ROOT / "README.md", ROOT / "docs/README.md"]
    while left:
        page = left.pop()
        if page in seen:
            continue
        seen.add(page)
        targets = (link.partition("#")[0] for link in documents.links(page) if "://" not in link)
        left += [(page.parent / target).resolve() for target in targets if target.endswith(".md")]
    assert set(PAGES) <= seen


@pytest.mark.parametrize("page", PAGES, ids=documents.name)
def test_every_block_of_data_parses(page: Path) -> None:
    for block in documents.blocks(page):
        if block.info and block.info[0] in PARSERS:
            PARSERS[block.info[0]](block.body)


@pytest.mark.parametrize("page", RUN, ids=documents.name)
def test_what_a_page_tells_to_type_does_what_the_page_shows(page: Path, tmp_path: Path, command_folder: Path) -> None:
    here = tmp_path
    environment = os.environ | {"PATH": f"{command_folder}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"}
    for block in documents.blocks(page):
        if "write" in block.info:
            file = here / block.info[-1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.body, "utf-8")
        elif "run" in block.info:
            here = run_block(block, here, tmp_path / "cwd", environment)


def run_block(block: Block, here: Path, memory: Path, environment: dict[str, str]) -> Path:
    """Run each command of a block as one shell would, compare its output; return the folder that it ends in."""
    for entry in documents.shown(block):
        done = subprocess.run(
            ["bash", "-c", f"{entry.command}\ncode=$?; pwd >{memory}; exit $code"],
            cwd=here,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        place = f"{documents.name(block.page)}:{block.line}: $ {entry.command}\n{done.stdout}"
        assert done.returncode == 0, place
        missing = documents.differs(entry.output, done.stdout)
        assert missing is None, f"{place}\nis said to print: {missing}"
        here = Path(memory.read_text("utf-8").strip())
    return here


# What the command line, the schema and the results have is in the reference.

Command = Callable[..., subprocess.CompletedProcess[str]]
REFERENCE = ROOT / "docs/reference"


def test_every_command_and_option_is_described(espalier: Command) -> None:
    commands = re.findall(r"^  ([a-z]+)  +\S", espalier("--help").stdout, re.MULTILINE)
    assert {"init", "plan", "apply", "fsck"} <= set(commands)
    for command in commands:
        described = documents.section(REFERENCE / "commands.md", f"## `{command}`")
        assert described, f"commands.md has no section on {command}"
        lines = re.findall(r"^  (-.+)$", espalier(command, "--help").stdout, re.MULTILINE)
        options = {option for line in lines for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", line.split("  ")[0])}
        for option in options - {"--format"}:
            assert f"`{option}" in described, f"commands.md, {command}: {option}"


def test_every_command_that_is_described_is_there(espalier: Command) -> None:
    there = set(re.findall(r"^  ([a-z]+)  +\S", espalier("--help").stdout, re.MULTILINE))
    described = re.findall(r"^## `([a-z]+)`$", (REFERENCE / "commands.md").read_text("utf-8"), re.MULTILINE)
    assert set(described) == there


def test_every_key_of_the_schema_is_described(espalier: Command) -> None:
    schema = json.loads(espalier("schema").stdout)
    described = set(re.findall(r"^\| `([A-Za-z_.]+)` \|", (REFERENCE / "config.md").read_text("utf-8"), re.MULTILINE))
    keys = set(properties(schema, schema))
    assert {"command", "sweep.objective", "policy.reuse", "data.NAME.path"} <= keys
    assert {key for key in keys if key not in described | ELSEWHERE} == set()


# described in the row of what they belong to, or by Hydra
ELSEWHERE = {"data.NAME", "sweep.objective.metric", "sweep.objective.goal", "defaults"}


def properties(schema: Any, root: Any, above: str = "") -> Iterator[str]:
    """Yield the dotted names that a JSON Schema knows; NAME stands for any name."""
    if "$ref" in schema:
        part = root
        for name in schema["$ref"].removeprefix("#/").split("/"):
            part = part[name]
        yield from properties(part, root, above)
    for key, inner in schema.get("properties", {}).items():
        yield above + key
        yield from properties(inner, root, f"{above}{key}.")
    if isinstance(schema.get("additionalProperties"), dict) and schema["additionalProperties"].get("type") == "object":
        yield f"{above}NAME"
        yield from properties(schema["additionalProperties"], root, f"{above}NAME.")
    for way in ("anyOf", "oneOf", "allOf"):
        for inner in schema.get(way, ()):
            yield from properties(inner, root, above)


def test_every_key_of_the_json_results_is_described(repo: Repository, espalier: Command) -> None:
    assert espalier("apply").returncode == 0
    words = set(re.findall(r"[`\"]([a-z_]+)[`\"]", (REFERENCE / "json.md").read_text("utf-8")))
    for line in (
        "status",
        "history single",
        "show group/sweep",
        "diff single single",
        "spec single",
        "plan",
        "doctor",
        "fsck",
    ):
        answer = json.loads(espalier(*line.split(), "--format", "json").stdout)
        assert {key for key in keys_of(answer) if key not in words} == set(), line


OPEN = {"params", "metrics", "spec", "origins", "results"}  # what is below these is the job's own


def keys_of(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for inner in value:
            yield from keys_of(inner)
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key not in OPEN:
                yield from keys_of(inner)
