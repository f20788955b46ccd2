"""Versions, trials and specs as JSON and YAML."""

import json

import yaml

from espalier.core.content import from_plain
from espalier.core.model import Counts, Lease
from espalier.core.wire import metrics_from, metrics_json, spec_yaml, to_yaml, trial_json, version_from, version_json
from tests.builders import a_job, a_spec, a_trial, a_version

VERSION = """job line version parent base digest commit subject state retired official reason author actor created_at
ended_at backend run_id trials best"""
TRIAL = "id params state attempt exit_code message handle run_id started_at ended_at metrics reused_from"


def test_a_version_begins_with_the_keys_of_the_contract() -> None:
    row = version_json(a_version(a_job(), counts=Counts(total=2, queued=2)))
    assert " ".join(row).startswith(" ".join(VERSION.split()))
    assert row["trials"] == {
        "total": 2, "queued": 2, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0, "lost": 0, "reused": 0,
    }  # fmt: skip


def test_a_trial_begins_with_the_keys_of_the_contract() -> None:
    row = trial_json(a_trial(a_job()))
    assert " ".join(row).startswith(TRIAL)
    assert row["attempt"] == 0


def test_a_row_of_a_later_release_and_one_of_an_earlier_are_read() -> None:
    version = a_version(a_job(), lease=Lease("me", 1, "2027"), open=(1, 2), parallel=3)
    row = json.loads(json.dumps(version_json(version)))
    assert version_from({**row, "later": 1, "policy": {**row["policy"], "later": 1}}) == version
    contract = {key: row[key] for key in VERSION.split()}
    assert version_from(contract) == a_version(a_job())


def test_metrics_that_are_not_finite_are_words() -> None:
    metrics = {"a": float("inf"), "b": float("-inf"), "c": 1.0}
    assert metrics_json(metrics) == {"a": "Infinity", "b": "-Infinity", "c": 1.0}
    assert metrics_from(metrics_json(metrics)) == metrics
    assert metrics_json({"a": float("nan")}) == {"a": "NaN"}
    assert str(metrics_from({"a": "NaN"})["a"]) == "nan"


def test_a_spec_is_block_yaml_with_sorted_keys() -> None:
    spec = a_spec(params={"lr": 1e-05, "on": "1e3", "layers": [64, [1.0, {}]]}, env={"A": "x: y"})
    assert spec_yaml(spec) == (
        "code:\n  train.py: " + "a" * 40 + "\n"
        "command:\n- python\n- train.py\n"
        'env:\n  A: "x: y"\n'
        'params:\n  layers:\n  - 64\n  - - 1.0\n    - {}\n  lr: 1.0e-05\n  "on": "1e3"\n'
    )
    assert from_plain(yaml.safe_load(spec_yaml(spec))) == spec


def test_nothing_is_an_empty_map() -> None:
    assert to_yaml({}) == "{}\n"
