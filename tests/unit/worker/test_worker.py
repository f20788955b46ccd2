"""The worker's files, and that an old Python can read it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from espalier.worker import files
from espalier.worker.files import create_whole, keep_new, lay_out, remove, write_whole

WORKER = Path(files.__file__).parent


@pytest.mark.parametrize("path", sorted(WORKER.glob("*.py")), ids=lambda path: path.name)
def test_an_old_python_reads_it_and_it_imports_nothing_of_ours(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"), feature_version=(3, 7))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("espalier"):
            assert (node.module or "").startswith("espalier.worker")


def test_it_loads_little() -> None:
    code = f"import sys; sys.argv = ['x']; sys.path.append({str(WORKER.parents[1])!r});" + (
        "import espalier.worker.main; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"typing", "dataclasses", "subprocess", "shutil", "pathlib", "threading", "logging"}.isdisjoint(loaded)


def test_the_program_writes_to_a_copy_and_what_is_new_is_kept(tmp_path: Path) -> None:
    source, work, output = tmp_path / "source", tmp_path / "work", tmp_path / "output"
    (source / "pkg").mkdir(parents=True)
    (source / "pkg" / "a.py").write_text("a")
    (source / "tool").write_text("t")
    (source / "tool").chmod(0o700)
    (source / "link").symlink_to("tool")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "data").write_text("d")
    output.mkdir()
    marks = lay_out(str(source), str(work), {"data/cifar": str(elsewhere)})
    assert (work / "data/cifar/data").read_text() == "d"
    assert (work / "tool").stat().st_mode & 0o100
    (work / "pkg" / "a.py").write_text("b")
    (work / "pkg" / "new").write_text("n")
    (work / "data" / "cifar" / "through").write_text("stays where the data is")
    (work / "pkg" / "__pycache__").mkdir()
    (work / "pkg" / "__pycache__" / "a.pyc").write_text("")
    keep_new(str(work), marks, str(output))
    kept = sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
    assert kept == ["workdir/pkg/a.py", "workdir/pkg/new"]
    assert (source / "pkg" / "a.py").read_text() == "a"
    remove(str(work))
    assert not work.exists()
    assert (elsewhere / "data").read_text() == "d"


def test_a_programs_own_folder_named_workdir_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "output" / "workdir").mkdir(parents=True)
    marks = lay_out(str(tmp_path / "source"), str(tmp_path / "work"), {})
    (tmp_path / "work" / "x").write_text("")
    keep_new(str(tmp_path / "work"), marks, str(tmp_path / "output"))
    assert (tmp_path / "output" / "workdir-1" / "x").exists()


def test_a_claim_is_made_once(tmp_path: Path) -> None:
    path = str(tmp_path / "claim")
    assert create_whole(path, {"pid": 1})
    assert not create_whole(path, {"pid": 2})
    assert Path(path).read_text() == '{"pid": 1}'
    write_whole(path, {"pid": 3})
    assert [entry.name for entry in tmp_path.iterdir()] == ["claim"]


def test_it_starts_as_a_file_with_its_order_on_stdin(tmp_path: Path) -> None:
    """As services start it, which have no runner; the backends' contract covers the rest."""
    (tmp_path / "layout").mkdir()
    order = {
        "key": "0" * 40,
        "argv": ["sh", "-c", "echo hello; exit 4"],
        "env": {"PATH": "/usr/bin:/bin"},
        "mask": [],
        "work": str(tmp_path / "work"),
        "layout": str(tmp_path / "layout"),
        "links": {},
        "params": {"a": 1},
        "output": str(tmp_path / "output"),
        "checkpoint": str(tmp_path / "kept"),
        "log": str(tmp_path / "log"),
        "spool": str(tmp_path / "spool"),
        "params_file": str(tmp_path / "params.json"),
        "notes": [],
        "time_limit_s": None,
        "grace_s": 1,
    }
    command = [sys.executable, "-I", "-S", str(WORKER / "main.py"), str(tmp_path), "1"]
    for _ in range(2):  # the second finds it claimed, and ends without effect
        subprocess.run(command, input=json.dumps(order).encode(), check=True)
    end = json.loads((tmp_path / "end.json").read_text())
    assert (end["state"], end["exit_code"], end["message"]) == ("failed", 4, "hello")
    assert (tmp_path / "log").read_text() == "hello\n"
