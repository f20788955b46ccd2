"""The stored format: what is written today, and that it is read for ever."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from espalier.core.events import Created, CursorMoved, Event, Intended, Intent, Observed, Opened, Snapshot, fold
from espalier.core.model import Accepted, Data, Lease, Program
from espalier.ledger import records
from espalier.testing.ledger import LATER, NOW, PLACE, a_record, ended, key_of, over

HERE = Path(__file__).parent / "ledger"
EMPTY = Snapshot("0" * 40, "11111111-2222-3333-4444-555555555555", "digits")


def a_ledger() -> Snapshot:
    """A ledger in which every key of the format says something."""
    first, second = a_record(), a_record(number=2, rates=(1e-5, 0.1))
    side = a_record(line="lr-scan", base="digits/mlp@v1", rates=(0.5,), official=False)
    one, two = (trial.id for trial in second.trials)
    spec = replace(
        second.spec,
        env={"OMP_NUM_THREADS": "1", "NOTE": "a: b\nc"},
        data={"train": Data(path="data/digits.csv", id="d" * 40), "eval": Data(uri="gs://b/e/", version="3")},
        backend={"kind": "local", "nested": {"list": [1, 1.0, True, None, "1", [], {}, [[2]], [{"a": 1, "b": 2}]]}},
    )
    program = Program(("python", "x.py"), {"LR": "1"}, spec.data)
    waiting = replace(second.trials[1], attempt=0, key=None, place=None, waits_for=f"digits/mlp@v1/{two}")
    version = replace(second.version, accepted=Accepted("e" * 64, 1, "f" * 40, "Ada", "a comment"))
    second = replace(second, spec=spec, trials=(replace(second.trials[0], program=program), waiting), version=version)
    told: list[Event] = [
        Created(first),
        CursorMoved("main", "c" * 40),
        Created(side),
        *ended(side, metrics={"accuracy": 0.75, "loss": float("inf"), "gap": float("nan")}),
        Created(second),
        Opened("digits/mlp", 2, "r0", "http://mlflow", {one: "r1"}),
        Observed("digits/mlp", 2, one, 1, "lost", started_at=NOW, ended_at=LATER, message="pre-empted 🌱"),
        Intended(
            "digits/mlp",
            2,
            (Intent(one, 2, key_of(second.version, one, 2), PLACE, "recover"),),
            Lease("host:1", 1, LATER),
        ),
        Observed("digits/mlp", 2, one, 2, "running", started_at=LATER, environment={"python": "3.11.7"}),
        *over(first)[:1],
    ]
    return fold(EMPTY, told)


def test_the_files_of_a_ledger_are_as_they_always_were(golden: Callable[[Path, str], None]) -> None:
    files, _ = records.encode(EMPTY, a_ledger(), {}, {}, "0" * 32, records.blob_hash(40))
    files["FORMAT"] = records.encode_format(EMPTY.ledger_id or "", "digits")
    for path, content in files.items():
        assert content is not None
        golden(HERE / path.replace("/", "~"), content.decode())
    assert {path.name for path in HERE.iterdir()} == {path.replace("/", "~") for path in files}


def test_a_ledger_of_format_1_is_read() -> None:
    files = {path.name.replace("~", "/"): path.read_bytes() for path in HERE.iterdir()}
    assert records.decode_format(files["FORMAT"]) == (EMPTY.ledger_id, "digits")
    assert records.decode_cursor(files["cursor.json"]) == {"main": "c" * 40}
    (heads,) = [path for path in files if path.startswith("heads/")]
    read = dict(records.decode_heads(files[heads], heads))
    lines = {name: records.decode_line(files, head) for name, head in read.items()}
    path = records.reuse_path("digits/mlp")
    reuse = {"digits/mlp": records.decode_reuse(files[path], path)}
    snapshot = replace(EMPTY, heads=read, lines=lines, reuse=reuse, cursor={"main": "c" * 40})
    again, _ = records.encode(EMPTY, snapshot, {}, {}, "0" * 32, records.blob_hash(40))
    assert again == {path: content for path, content in files.items() if path != "FORMAT"}
    assert lines["digits/mlp"].open[1].version.counts.total == 2
    assert lines["digits/mlp"].last.trials[0].environment == {"python": "3.11.7"}
