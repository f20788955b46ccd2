"""Which files go, and what is said of the others."""

import os
from pathlib import Path

import pytest

from espalier.core.errors import RejectedError
from espalier.core.model import Artifacts
from espalier.tracking import artifact
from espalier.tracking.artifact import copy_in, left_out_page, log_name, masked_log, select


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    for path in ("model.bin", "logs/a.txt", "logs/b.tmp", "espalier/spec.yaml"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("12345")
    return folder


def test_all_but_our_folder_goes(output: Path) -> None:
    found = select(output, Artifacts())
    assert [path for path, _ in found.files] == ["model.bin", "logs/a.txt", "logs/b.tmp"]
    assert found.left_out == (("espalier/spec.yaml", "the folder espalier/ is not the program's"),)


def test_patterns_are_those_of_gitignore(output: Path) -> None:
    found = select(output, Artifacts(include=("logs/",), exclude=("*.tmp",)))
    assert [path for path, _ in found.files] == ["logs/a.txt"]
    assert {path for path, _ in found.left_out} == {"model.bin", "logs/b.tmp", "espalier/spec.yaml"}


def test_what_is_over_the_limit_is_named_and_smaller_files_go(output: Path) -> None:
    (output / "large").write_bytes(b"0" * 50)
    found = select(output, Artifacts(max_mb=0.00002))
    assert "large" not in dict(found.files)
    assert len(found.files) == 3
    assert "max_mb" in dict(found.left_out)["large"]


def test_links_are_followed_inside_only(output: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (output / "best").symlink_to("model.bin")
    (output / "out").symlink_to(tmp_path / "secret")
    (output / "folder").symlink_to(tmp_path)
    (output / "dangling").symlink_to("nowhere")
    found = select(output, Artifacts())
    assert "best" in dict(found.files)
    assert {"out", "folder", "dangling"} <= set(dict(found.left_out))


def test_what_can_never_be_read_is_named_and_holds_nothing_up(output: Path) -> None:
    (output / "self").symlink_to("self")
    (output / "long").symlink_to("x" * 300)
    os.mkfifo(output / "pipe")
    found = select(output, Artifacts())
    assert {"model.bin", "logs/a.txt"} <= set(dict(found.files))
    assert {"self", "long", "pipe"} <= set(dict(found.left_out))


def test_nothing_goes_where_nothing_may(output: Path) -> None:
    assert select(output, Artifacts(max_mb=0)).files == ()


def test_names_that_would_break_the_list_are_escaped() -> None:
    assert left_out_page([("a\nb", "why")]) == "a\\nb: why\n"


def test_each_attempt_has_a_log() -> None:
    assert [log_name(attempt) for attempt in (0, 1, 2)] == [
        "espalier/log.txt",
        "espalier/log.txt",
        "espalier/log-2.txt",
    ]


def test_secrets_are_masked_in_logs(tmp_path: Path) -> None:
    log, to = tmp_path / "log", tmp_path / "to"
    log.write_bytes(b"token=sesame-open\nghp_" + b"a" * 36 + b"\n\xff fine\n")
    masked_log(log, to, ["sesame-open"])
    assert to.read_text("utf-8") == "token=***\n***\n� fine\n"


def test_a_long_log_keeps_head_and_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "LOG_MAX", 100)
    monkeypatch.setattr(artifact, "LOG_HEAD", 20)
    log, to = tmp_path / "log", tmp_path / "to"
    log.write_text("first\n" + "middle\n" * 100 + "last\n")
    masked_log(log, to, [])
    text = to.read_text()
    assert text.startswith("first\n")
    assert text.endswith("last\n")
    assert "are cut out here" in text
    assert len(text) < 250


def test_a_copy_stays_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    copy_in(tmp_path / "run", "a/b", tmp_path / "file")
    assert (tmp_path / "run/a/b").read_text() == "x"
    with pytest.raises(RejectedError):
        copy_in(tmp_path / "run", "../b", tmp_path / "file")
    assert [file.name for file in (tmp_path / "run/a").iterdir()] == ["b"]
