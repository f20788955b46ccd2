"""Records as files: what is written, what is left alone, what is refused."""

import hashlib
import json

import pytest

from espalier.core.errors import RejectedError
from espalier.core.events import Created, Event, Snapshot, Submitted, fold
from espalier.core.names import shard
from espalier.ledger import records
from espalier.testing.ledger import a_record, ended, over

EMPTY = Snapshot("0" * 40, "id", "digits")
HH = shard("digits/mlp")
FOLDER = f"jobs/{HH}/digits/mlp"


def encoded(before: Snapshot, after: Snapshot, stored: dict[str, bytes] | None = None) -> dict[str, bytes | None]:
    ids = dict.fromkeys(records.stored_paths(before, after), "b" * 40)
    return records.encode(before, after, stored or {}, ids, "tx", records.blob_hash(40))[0]


def folded(*events: Event, base: Snapshot = EMPTY) -> Snapshot:
    return fold(base, events)


def test_what_did_not_move_is_not_written() -> None:
    base = folded(Created(a_record()), Created(a_record("other")))
    assert encoded(base, base) == {}
    assert encoded(base, folded(*ended(a_record())[:0], base=base)) == {}


def test_a_moved_trial_rewrites_its_file_and_its_head_alone() -> None:
    base = folded(Created(a_record()), Created(a_record("other")))
    after = folded(Submitted("digits/mlp", 1, {a_record().trials[0].id: (1, "h")}), base=base)
    assert encoded(base, after).keys() == {f"heads/{HH}.jsonl", f"{FOLDER}/trials.jsonl"}


def test_a_version_that_is_over_is_superseded_by_the_ids_of_its_stored_files() -> None:
    base = folded(Created(a_record()))
    base = folded(*over(a_record()), base=base)
    after = folded(Created(a_record(number=2)), base=base)
    files = encoded(base, after)
    assert files.keys() == {
        f"heads/{HH}.jsonl",
        f"{FOLDER}/spec.yaml",
        f"{FOLDER}/trials.jsonl",
        f"{FOLDER}/versions.jsonl",
    }
    row = json.loads(files[f"{FOLDER}/versions.jsonl"] or b"")
    assert (row["spec_blob"], row["trial_blobs"], row["state"]) == ("b" * 40, ["b" * 40], "succeeded")


def test_a_version_with_fewer_trials_leaves_no_file_of_the_one_before() -> None:
    many = a_record(rates=tuple(float(n) for n in range(1500)))
    base = folded(Created(many))
    files = encoded(base, folded(Created(a_record(number=2)), base=base))
    assert files[f"{FOLDER}/trials-2.jsonl"] is None
    assert files[f"{FOLDER}/open/v1/trials-2.jsonl"]


def test_an_open_version_that_is_over_is_removed_as_a_folder() -> None:
    base = folded(Created(a_record()))
    base = folded(*over(a_record()), Created(a_record(number=2)), base=base)
    files = encoded(base, folded(*ended(a_record(number=2)), base=base))
    assert files[f"{FOLDER}/open/v1"] is None


def test_lines_of_a_file_are_sorted_and_others_stay_byte_for_byte() -> None:
    stored = {f"heads/{HH}.jsonl": b'{"job": "zzz", "line":null, "later": [1,  2]}\n'}
    text = encoded(EMPTY, folded(Created(a_record())), stored)[f"heads/{HH}.jsonl"] or b""
    first, second = text.splitlines()
    assert json.loads(first)["job"] == "digits/mlp"
    assert second == stored[f"heads/{HH}.jsonl"].strip()


def test_versions_are_sorted_as_numbers() -> None:
    rows = {str(number): b'{"version":%d}\n' % number for number in (2, 10, 1)}
    text = records._patched(b"", rows, lambda row: str(row["version"]), "x", key=int)
    assert text == b'{"version":1}\n{"version":2}\n{"version":10}\n'


def test_blob_ids_are_gits() -> None:
    assert records.blob_hash(40)(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert records.blob_hash(64)(b"") == hashlib.sha256(b"blob 0\0").hexdigest()


def test_half_a_surrogate_pair_in_a_message_is_kept() -> None:
    record = a_record(subject="\ud83d")
    (version,) = [version for _, version in records.decode_heads(records.encode_version(record.version), "x")]
    assert version == record.version


@pytest.mark.parametrize("content", [b"{}", b"[]", b"{", b'{"job":1}', b"\xff"])
def test_a_line_that_is_no_version_is_refused_with_its_place(content: bytes) -> None:
    good = records.encode_version(a_record().version)
    with pytest.raises(RejectedError) as caught:
        list(records.decode_heads(good + content, "heads/00.jsonl"))
    assert (caught.value.file, caught.value.line) == ("heads/00.jsonl", 2)


@pytest.mark.parametrize("content", [b"a: b: c", b"[]", b"", b"command: 1", b"!!python/name:os.system x"])
def test_a_spec_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(RejectedError, match="cannot be read"):
        records.decode_spec(content, a_record().version, "spec.yaml")


@pytest.mark.parametrize("content", [b'{"format":2,"id":"x"}', b'{"format":"1","id":"x"}', b'{"id":"x"}'])
def test_another_format_is_refused(content: bytes) -> None:
    with pytest.raises(RejectedError, match="format"):
        records.decode_format(content)


def test_a_line_lies_with_its_job() -> None:
    assert records.folder("digits/mlp+scan") == f"jobs/{HH}/digits/mlp+scan"
    assert records.trial_paths("x", 0) == records.trial_paths("x", 1000) == ["x/trials.jsonl"]
    assert records.trial_paths("x", 2001) == ["x/trials.jsonl", "x/trials-2.jsonl", "x/trials-3.jsonl"]
