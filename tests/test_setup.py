"""What surrounds the product: pinned requirements, the set-up script, the workflows."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dev

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))
PINNED = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>[0-9][^ ]*)(?: ; [a-z_]+ [^:]*)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")


def pins(file: Path) -> dict[str, str]:
    return {m["name"]: m["version"] for line in file.read_text().splitlines() if (m := PINNED.fullmatch(line))}


def wanted(extra: str | None) -> dict[str, str]:
    """Return the dependencies of pyproject.toml and their lower bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    pairs = (line.split(">=") for line in lines if not line.startswith("espalier["))
    return {name.lower().replace("_", "-"): bound for name, bound in pairs}


@pytest.mark.parametrize("file", REQUIREMENTS, ids=lambda file: file.name)
def test_requirements_are_names_versions_and_hashes_and_nothing_else(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert [line for line in lines if not PINNED.fullmatch(line) and not HASH.fullmatch(line)] == []


def test_everything_that_the_project_names_is_pinned() -> None:
    for extra in (None, "testing", "examples", "dev"):
        assert wanted(extra).keys() <= pins(ROOT / "requirements/dev.txt").keys()


def test_the_oldest_versions_that_are_tested_are_the_lower_bounds() -> None:
    oldest = pins(ROOT / "requirements/lowest.txt")
    for name, bound in wanted(None).items():
        assert (oldest[name] + ".0").startswith(bound + "."), f"{name}>={bound} is tested with {oldest[name]}"


def test_the_set_up_script_uses_the_standard_library_alone() -> None:
    tree = ast.parse((ROOT / "dev.py").read_text("utf-8"))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_what_the_caller_s_shell_says_does_not_reach_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CI", "GIT_DIR", "MLFLOW_TRACKING_URI", "ESPALIER_JOB", "PYTHONPATH"):
        monkeypatch.setenv(name, "mine")
    environment = dev.clean_environment(tmp_path)
    assert "mine" not in environment.values()
    assert environment["PATH"].startswith(f"{tmp_path}/bin{os.pathsep}")


def test_an_installation_is_known_by_what_it_was_made_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = dev.fingerprint(ROOT / "requirements/dev.txt")
    assert dev.fingerprint(ROOT / "requirements/dev.txt") == before
    changed = tmp_path / "dev.txt"
    changed.write_text((ROOT / "requirements/dev.txt").read_text() + "\n")
    assert dev.fingerprint(changed) != before


def test_a_demo_never_writes_into_a_folder_that_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit, match="there already"):
        dev.demo({}, tmp_path)


@pytest.mark.parametrize("file", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda file: file.name)
def test_workflows_pin_actions_by_commit_and_pass_no_expression_to_a_shell(file: Path) -> None:
    text = file.read_text()
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", used) for used in re.findall(r"uses: (\S+)", text))
    assert not [line for line in text.splitlines() if "run:" in line and "${{" in line]
    assert re.search(r"^permissions: \{\}$", text, re.MULTILINE)


def test_ci_runs_the_command_of_the_readme() -> None:
    assert "python3 dev.py test" in (ROOT / "README.md").read_text("utf-8")
    script = (ROOT / ".ci/run").read_text()
    assert script.rstrip().endswith("exec python3 dev.py test")
    assert subprocess.run(["bash", "-n", ROOT / ".ci/run"]).returncode == 0
