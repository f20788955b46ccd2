"""What a program writes as metrics, however it writes it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from espalier.worker import metrics as module
from espalier.worker.metrics import Metrics


class Place:
    def __init__(self, folder: Path) -> None:
        self.output = folder / "output"
        self.output.mkdir(parents=True)
        self.spool = folder / "spool.jsonl"
        self.time = 100.0
        self.metrics = self.anew()

    def anew(self) -> Metrics:
        return Metrics(str(self.output), str(self.spool), lambda: self.time)

    def write(self, text: str, name: str = "metrics.jsonl") -> None:
        with (self.output / name).open("a") as file:
            file.write(text)

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.spool.read_text().splitlines()] if self.spool.exists() else []

    def read(self, final: bool = False) -> list[tuple[Any, ...]]:
        """Read once; return (key, value, step) of what this added."""
        before = len(self.entries())
        self.metrics.read(final)
        return [(entry["key"], entry["value"], entry["step"]) for entry in self.entries()[before:]]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_steps_are_the_numbers_of_the_lines_where_none_is_said(place: Place) -> None:
    place.write('{"loss": 0.3}\n{"loss": 0.2, "step": 10}\n\n{"loss": 0.1}\n')
    assert place.read() == [("loss", 0.3, 0), ("loss", 0.2, 10), ("loss", 0.1, 3)]
    assert place.read() == []


def test_the_time_is_said_or_that_of_first_sight(place: Place) -> None:
    place.write('{"loss": 1, "time": 12.5}\n{"loss": 2}\n')
    place.read()
    place.time = 200.0
    place.write('{"loss": 3}\n')
    place.read(final=True)
    assert [entry["timestamp"] for entry in place.entries()] == [12500, 100000, 200000]


def test_a_line_that_is_being_written_waits(place: Place) -> None:
    place.write('{"loss": 0.')
    assert place.read() == []
    place.write('5}\n{"loss": 0.25}')
    assert place.read() == [("loss", 0.5, 0)]
    assert place.read(final=True) == [("loss", 0.25, 1)]
    assert place.read(final=True) == []


def test_what_json_has_no_number_for_is_a_word(place: Place) -> None:
    place.write('{"a": NaN, "b": Infinity, "c": -Infinity, "d": "NaN"}\n')
    assert place.read() == [("a", "NaN", 0), ("b", "Infinity", 0), ("c", "-Infinity", 0), ("d", "NaN", 0)]


def test_nested_maps_have_dotted_names(place: Place) -> None:
    place.write('{"val": {"top": {"1": 0.5}}, "step": 2}\n')
    assert place.read() == [("val.top.1", 0.5, 2)]


def test_what_is_no_number_is_left_out_and_named_once(place: Place) -> None:
    place.write('{"a": "x", "b": [1], "c": null, "d": true, "ok": 1}\n' * 3 + "not json\n[1]\n")
    assert place.read() == [("ok", 1, 0), ("ok", 1, 1), ("ok", 1, 2)]
    assert [note.partition(": ")[2].split(" ")[0] for note in place.metrics.notes] == ["a", "b", "d", "line"]


def test_a_step_that_is_no_whole_number_is_the_lines(place: Place) -> None:
    place.write('{"a": 1, "step": 3.0}\n{"a": 2, "step": 0.5}\n{"a": 3, "step": "x"}\n')
    assert place.read() == [("a", 1, 3), ("a", 2, 1), ("a", 3, 2)]


def test_a_file_that_is_written_anew_repeats_nothing(place: Place) -> None:
    place.write('{"a": 1}\n{"a": 2}\n')
    place.read()
    (place.output / "metrics.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"a": 3}\n')
    assert place.read() == [("a", 3, 2)]
    (place.output / "other").write_text('{"a": 1}\n{"b": 2}\n')
    os.rename(place.output / "other", place.output / "metrics.jsonl")
    assert place.read() == [("b", 2, 1)]
    (place.output / "metrics.jsonl").write_text("")
    place.read()
    place.write('{"c": 1}\n')
    assert place.read() == [("c", 1, 0)]


def test_a_reader_that_starts_again_repeats_nothing(place: Place) -> None:
    place.write('{"a": 1}\n{"a": 1}\n')
    place.read()
    place.metrics = place.anew()
    place.write('{"a": 1}\n')
    assert place.read() == [("a", 1, 2)]


def test_one_object_is_read_when_it_changes(place: Place) -> None:
    place.write('{"acc": 0.5}', "metrics.json")
    assert place.read() == [("acc", 0.5, 0)]
    assert place.read(final=True) == []
    (place.output / "metrics.json").write_text('{"acc": 0.7')
    assert place.read() == []
    (place.output / "metrics.json").write_text('{"acc": 0.75}')
    assert place.read() == [("acc", 0.75, 1)]


def test_an_object_that_stays_broken_is_named(place: Place) -> None:
    place.write("{", "metrics.json")
    assert place.read(final=True) == []
    assert place.metrics.notes == ["metrics.json is not a JSON object"]


def test_a_line_that_is_too_long_is_left_out_and_the_next_is_not(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_MAX", 64)
    monkeypatch.setattr(module, "_CHUNK", 32)
    place.write('{"a": 1}\n{"b": "' + "x" * 500)
    assert place.read() == [("a", 1, 0)]
    place.write("x" * 500 + '"}\n{"c": 3}\n')
    assert place.read() == [("c", 3, 2)]


def test_a_pipe_in_the_place_of_the_file_does_not_hang(place: Place) -> None:
    os.mkfifo(place.output / "metrics.jsonl")
    assert place.read(final=True) == []
