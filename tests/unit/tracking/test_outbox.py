"""What was sent is noted; what is torn waits."""

from pathlib import Path

from espalier.tracking.outbox import Outbox, Sent, last_values, unsent
from espalier.tracking.store import Metric

LINE = '{"key": "loss", "value": 0.5, "step": 1, "timestamp": 1000}\n'


def test_a_torn_line_waits_until_it_is_whole(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.write_text(LINE + LINE[:20])
    points, offset = unsent(spool, 0, ended=False)
    assert points == [Metric("loss", 0.5, 1000, 1)]
    assert unsent(spool, offset, ended=False) == ([], offset)
    spool.write_text(LINE + LINE)
    assert unsent(spool, offset, ended=False) == (points, 2 * len(LINE))


def test_the_last_line_of_an_ended_trial_needs_no_end(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.write_text(LINE.rstrip())
    assert len(unsent(spool, 0, ended=True)[0]) == 1
    assert unsent(spool, 0, ended=False)[0] == []


def test_a_shorter_file_is_another_one(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.write_text(LINE)
    assert len(unsent(spool, 5000, ended=False)[0]) == 1


def test_a_missing_file_is_empty(tmp_path: Path) -> None:
    assert unsent(tmp_path / "none", 7, ended=True) == ([], 7)
    assert last_values(tmp_path / "none") == {}


def test_lines_that_are_no_points_are_passed_over(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    bad = ["", "nonsense", "[]", '{"key": "a"}', '{"key": "a", "value": "x", "timestamp": 1}', "1"]
    spool.write_text("\n".join(bad) + "\n" + LINE)
    assert [point.key for point in unsent(spool, 0, ended=False)[0]] == ["loss"]


def test_times_before_1970_and_infinities_are_sent_as_mlflow_takes_them(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.write_text('{"key": "a", "value": "Infinity", "step": 0, "timestamp": -5}\n')
    assert unsent(spool, 0, ended=False)[0] == [Metric("a", 1.7976931348623157e308, 0, 0)]


def test_the_last_value_is_that_of_the_highest_step(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    points = [(2, 0.2), (1, 0.1), (2, 0.3)]
    spool.write_text("".join(f'{{"key": "a", "value": {value}, "step": {step}}}\n' for step, value in points))
    assert last_values(spool) == {"a": 0.3}


def test_what_was_sent_is_read_back(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "deep" / "tracking")
    assert outbox.read("a") == Sent()
    sent = Sent(running=2, artifacts=1, pages=True, spools={"/s": 7}, secrets=("TOKEN",))
    outbox.write("a", sent)
    assert outbox.read("a") == sent


def test_a_damaged_note_counts_as_none(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    for content in ("", "{", "[]", '{"running": 1}'):
        (tmp_path / "a.json").write_text(content)
        assert outbox.read("a") == Sent()
