"""What a ledger commit says."""

from espalier.core.events import Created, CursorMoved, Observed, Opened, Retired
from espalier.ledger.message import LINES_MAX, SUBJECT_MAX, commit_message, one_line
from espalier.testing.ledger import a_record

TX = "0" * 32


def test_one_version_is_told_in_the_subject() -> None:
    message = commit_message([Created(a_record())], "intent", "Grace", TX)
    assert message == (
        "digits/mlp@v1: new job (2 trials)\n\n[skip ci]\n\n"
        "Espalier-Kind: intent\nEspalier-Job: digits/mlp\nEspalier-Version: 1\n"
        f"Espalier-Source: {1:040x}\nEspalier-Actor: Grace\nEspalier-Tx: {TX}\n"
    )


def test_several_versions_are_told_one_a_line() -> None:
    message = commit_message([Created(a_record(name)) for name in "abc"], "intent", "Grace", TX)
    assert message.startswith("intent: a@v1, b@v1 and 1 more\n\na@v1: new job (2 trials)\nb@v1: ")


def test_many_versions_are_all_in_the_trailers_and_not_all_in_the_text() -> None:
    names = [f"job-{number:03}" for number in range(200)]
    message = commit_message([Retired(name, 1) for name in names], "retired", "Grace", TX)
    assert message.count("Espalier-Job: ") == 200
    assert message.count(": retired\n") == LINES_MAX + 1  # the trailer of the kind too
    assert "and 150 more\n" in message


def test_states_are_counted() -> None:
    told = [Observed("a", 1, str(n), 1, "failed" if n else "succeeded") for n in range(4)]
    assert commit_message(told, "observed", "G", TX).startswith("a@v1: 3 failed, 1 succeeded\n")


def test_a_moved_cursor_names_branch_and_commit() -> None:
    assert commit_message([CursorMoved("main", "c" * 40)], "intent", "G", TX).startswith(
        "cursor: main at cccccccccccc\n"
    )


def test_runs_that_were_opened_are_told() -> None:
    assert commit_message([Opened("a", 1, "r", "u", {})], "submitted", "G", TX).startswith("a@v1: shown in MLflow\n")


def test_a_long_subject_is_cut_and_a_foreign_line_end_is_none() -> None:
    message = commit_message([Created(a_record(reason="x\n" * 500))], "intent\nEspalier-Tx: 1", "a\r\nb", TX)
    subject, _, rest = message.partition("\n")
    assert len(subject) == SUBJECT_MAX
    assert "Espalier-Kind: intent Espalier-Tx: 1\n" in rest
    assert "Espalier-Actor: a b\n" in rest
    assert one_line("a\x1b[31m\u2029b\x85c") == "a [31m b c"
