"""Laws of identity and of the record, over generated specs and events."""

import json
from collections.abc import Iterable
from dataclasses import replace

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from espalier.core.content import canonical, canonical_json, diff, digest, from_plain, plain
from espalier.core.errors import StaleError
from espalier.core.events import Event, Line, Record, Snapshot, fold
from espalier.core.model import FINAL, Json, Policy, Spec, Sweep
from espalier.core.names import line_name
from espalier.core.wire import spec_yaml, to_yaml, trial_from, trial_json, version_from, version_json
from espalier.ledger import records
from tests.builders import a_spec
from tests.property.specs import FLOATS, MAPS, METRICS, SPECS, STRINGS, histories, record_of

EMPTY = Snapshot("0" * 40, "id", "project")
MANY = settings(max_examples=200, deadline=None)


@given(SPECS, SPECS)
@example(a_spec(), a_spec(sweep=Sweep()))
@example(a_spec(backend={}), a_spec())
@example(a_spec(backend={"a.b": 1}), a_spec(backend={"a": {"b": 1}}))
@example(a_spec(params={"a": None}), a_spec())
@example(a_spec(app={"a": {}}), a_spec())
@example(a_spec(params={"a": -0.0}), a_spec(params={"a": 0.0}))
def test_law_1_digests_are_equal_exactly_when_nothing_differs(one: Spec, other: Spec) -> None:
    assert (digest(one) == digest(other)) == (diff(one, other) == ())
    assert diff(one, one) == ()


@given(SPECS, st.data())
def test_law_1_holds_for_one_field_that_differs(spec: Spec, data: st.DataObject) -> None:
    other = replace(data.draw(SPECS), command=spec.command)
    field = data.draw(st.sampled_from(["env", "params", "sweep", "data", "resources", "backend", "app", "context"]))
    changed = replace(spec, **{field: getattr(other, field)})
    changes = diff(spec, changed)
    assert (digest(spec) == digest(changed)) == (changes == ())
    assert all(change.path.partition(".")[0] == field for change in changes)


@given(SPECS)
def test_law_2_order_of_keys_and_written_defaults_change_no_digest(spec: Spec) -> None:
    turned = replace(
        spec,
        params=dict(reversed(spec.params.items())),
        env=dict(reversed(spec.env.items())),
        code=dict(reversed(spec.code.items())),
        sweep=replace(spec.sweep, parallel=9) if spec.sweep else None,
    )
    assert digest(turned) == digest(spec)
    assert digest(from_plain(plain(spec))) == digest(spec) == digest(from_plain(canonical(spec)))


@given(SPECS)
def test_a_stored_spec_is_read_back_equal_by_every_reader(spec: Spec) -> None:
    text = spec_yaml(spec)
    assert digest(from_plain(yaml.safe_load(text))) == digest(spec)
    assert digest(from_plain(yaml.load(text, Loader=yaml.CSafeLoader))) == digest(spec)
    stored = records.decode_spec(text.encode("utf-8", "surrogatepass"), record_of("x", 1, 0, Policy()).version)
    assert digest(stored) == digest(spec)


@given(MAPS, STRINGS, FLOATS)
def test_yaml_keeps_every_value_and_its_type(tree: dict[str, Json], text: str, number: float) -> None:
    tree = {**tree, "text": text, "number": number}
    text = to_yaml(tree)
    assert canonical_json(yaml.safe_load(text)) == canonical_json(tree)  # type: ignore[arg-type]
    if "${" not in text:  # there OmegaConf reads an interpolation, as it should
        read = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
        assert canonical_json(read) == canonical_json(tree)  # type: ignore[arg-type]


def folded(snapshot: Snapshot, events: Iterable[Event]) -> Snapshot:
    """Return ``snapshot`` after those of ``events`` that are not stale, each in turn told."""
    for event in events:
        try:
            snapshot = fold(snapshot, [event])
        except StaleError:
            continue
    return snapshot


def accepted(events: Iterable[Event]) -> list[Event]:
    """Return the events that are not stale when all before them are told in one fold."""
    kept: list[Event] = []
    for event in events:
        try:
            fold(EMPTY, [*kept, event])
        except StaleError:
            continue
        kept.append(event)
    return kept


def stored(snapshot: Snapshot) -> Snapshot:
    """Return ``snapshot`` as it is after being written and read."""
    files, after = records.encode(EMPTY, snapshot, {}, _AnyBlob(), "tx", records.blob_hash(40))
    texts = {path: text for path, text in files.items() if text is not None}
    heads = dict(
        sorted(
            pair
            for path, text in texts.items()
            if path.startswith("heads/")
            for pair in records.decode_heads(text, path)
        )
    )
    lines = {name: records.decode_line(texts, head) for name, head in heads.items()}
    assert as_text(replace(after, heads=heads, lines=lines)) == as_text(after)
    return replace(after, heads=heads, lines=lines)


class _AnyBlob(dict[str, str]):
    """Stands for the blobs of a commit before: versions that were over when they were superseded."""

    def __missing__(self, path: str) -> str:
        return "0" * 40


def as_text(snapshot: Snapshot) -> str:
    """Return all that ``snapshot`` says, NaN included, less what is on its way out of ``open`` and blob ids."""
    lines = {name: line_text(line) for name, line in sorted(snapshot.lines.items())}
    reuse = {job: sorted(index) for job, index in sorted(snapshot.reuse.items())}
    return json.dumps([lines, reuse, dict(sorted(snapshot.cursor.items()))], indent=1)


def line_text(line: Line) -> list[object]:
    open_now = {n: record_text(record) for n, record in line.open.items() if not is_over(record)}
    last = replace(line.last, version=replace(line.last.version, open=tuple(open_now)))
    return [record_text(last), [version_json(entry.version) for entry in line.earlier], open_now]


def record_text(record: Record) -> list[object]:
    return [version_json(record.version), spec_yaml(record.spec), [trial_json(trial) for trial in record.trials]]


def is_over(record: Record) -> bool:
    return record.version.tracked and all(t.tracked and t.state in FINAL for t in record.trials)


@MANY
@given(histories(), st.integers(0, 30))
def test_law_5_folding_in_two_steps_with_a_store_between_equals_folding_in_one(events: list[Event], cut: int) -> None:
    told = accepted(events)
    one = fold(EMPTY, told)
    first = stored(fold(EMPTY, told[:cut]))
    assert as_text(fold(first, told[cut:])) == as_text(one)


@MANY
@given(histories())
def test_law_5_folding_one_by_one_equals_folding_at_once(events: list[Event]) -> None:
    told = accepted(events)
    assert as_text(folded(EMPTY, told)) == as_text(fold(EMPTY, told))


@given(histories(), st.integers(0, 30))
def test_law_6_a_final_state_of_an_attempt_is_never_left(events: list[Event], cut: int) -> None:
    early, late = folded(EMPTY, events[:cut]), folded(EMPTY, events)
    ends = final_states(early)
    after = final_states(late, all_attempts=True)
    for at, (attempt, state) in ends.items():
        if at in after:  # a version that is over has left the lines
            assert after[at][0] > attempt or after[at] == (attempt, state)


def final_states(snapshot: Snapshot, *, all_attempts: bool = False) -> dict[tuple[str, int, str], tuple[int, str]]:
    return {
        (line_name(record.version.job, record.version.line), record.version.version, trial.id): (
            trial.attempt,
            trial.state,
        )
        for line in snapshot.lines.values()
        for record in (line.last, *line.open.values())
        for trial in record.trials
        if all_attempts or trial.state in FINAL
    }


@given(histories())
def test_law_4_versions_are_numbered_from_1_and_each_has_the_one_before_as_parent(events: list[Event]) -> None:
    for line in folded(EMPTY, events).lines.values():
        versions = [*(entry.version for entry in line.earlier), line.last.version]
        assert [version.version for version in versions] == list(range(1, len(versions) + 1))
        assert [version.parent for version in versions] == [None, *range(1, len(versions))]


@given(histories())
def test_events_told_twice_move_nothing_but_decisions(first: list[Event]) -> None:
    snapshot = folded(EMPTY, first)
    for event in first:
        try:
            again = fold(fold(snapshot, [event]), [event])
        except StaleError:
            continue
        assert as_text(again) == as_text(fold(snapshot, [event]))


@given(METRICS, histories())
def test_what_is_printed_as_json_is_read_back(metrics: dict[str, float], events: list[Event]) -> None:
    for line in folded(EMPTY, events).lines.values():
        version = json.loads(json.dumps(version_json(line.last.version), allow_nan=False))
        assert version_from(version) == line.last.version
        for trial in line.last.trials:
            text = json.dumps(trial_json(replace(trial, metrics=metrics)), allow_nan=False)
            assert json.dumps(trial_json(trial_from(json.loads(text)))) == text
