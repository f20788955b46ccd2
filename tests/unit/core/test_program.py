"""What a trial starts with: arguments, environment, late values."""

import json

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import InputError
from espalier.core.model import Data, Json, Program, Spec
from espalier.core.program import (
    Seat,
    argv,
    fill,
    hydra_value,
    late_values,
    missing_names,
    needed_names,
    nested,
    param_variables,
    variables,
)

SEAT = Seat(
    key="0" * 40,
    project="digits",
    job="digits/mlp",
    line=None,
    version=3,
    trial="1f0c9a2e4b5d",
    attempt=2,
    commit="c" * 40,
    work_dir="/w",
    output_dir="/o",
    checkpoint_dir="/k",
    params_file="/p.json",
    data={"train-set": "/w/data/digits.csv"},
    path_first=("/venv/bin",),
)
LATE = late_values(SEAT)


def the_variables(environ: dict[str, str], **fields: object) -> dict[str, str]:
    spec = Spec(("train",), **fields)  # type: ignore[arg-type]
    return variables(
        spec, Program(spec.command, spec.env, spec.data), spec.params, SEAT, environ, {"MLFLOW_RUN_ID": "r"}
    )


# Late values


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("${espalier.job}@${espalier.version}/${espalier.trial}", "digits/mlp@3/1f0c9a2e4b5d"),
        ("${espalier.data.train-set}", "/w/data/digits.csv"),
        ("${espalier.output_dir}/x ${espalier.checkpoint_dir}", "/o/x /k"),
        ("${oc.env:HOME}:${espalier.env:HOME}", "/home/ada:/home/ada"),
        ("${espalier.env:NOT,fall back}", "fall back"),
        ("${oc.env:NOT,'a, b'}", "a, b"),
        ("${oc.env:NOT,${oc.env:HOME}}", "/home/ada"),
        ("${oc.env:EMPTY}", ""),
        (r"\${espalier.job}", "${espalier.job}"),
        (r"\\${espalier.job}", r"\digits/mlp"),
        ("${TRICKY} ${not.ours} $HOME ${", "${TRICKY} ${not.ours} $HOME ${"),
        ("${espalier.env:TRICKY}", "${espalier.job}"),
    ],
)
def test_late_values_are_filled_in_once(text: str, filled: str) -> None:
    environ = {"HOME": "/home/ada", "EMPTY": "", "TRICKY": "${espalier.job}"}
    assert fill(text, LATE, environ) == filled


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(InputError, match="DATA_ROOT is not set"):
        fill("${oc.env:DATA_ROOT}", LATE, {})


def test_an_unknown_late_value_says_what_there_is() -> None:
    with pytest.raises(InputError, match="checkpoint_dir"):
        fill("${espalier.otput_dir}", LATE, {})


def test_needed_are_secrets_and_names_without_default() -> None:
    spec = Spec(
        ("train", "${espalier.env:A}", "${oc.env:B,1}"),
        env={"X": "${oc.env:C}", "Y": r"\${oc.env:NOT}", "Z": "${oc.env:D,${oc.env:E}}"},
        secrets=("TOKEN",),
        data={"d": Data(uri="file:${espalier.env:F}/x")},
    )
    assert needed_names(spec) == ("A", "C", "E", "F", "TOKEN")
    assert missing_names(spec, {"A": "", "D": "1", "TOKEN": "t"}) == ("C", "F")


# Arguments


def the_argv(params: dict[str, Json], pass_params: str = "flags") -> list[str]:
    return argv(Program(("t",), {}, {}), params, pass_params, LATE, {})[1:]  # type: ignore[arg-type]


def test_flags_are_strings_as_they_are_and_others_compact_json() -> None:
    params: dict[str, Json] = {"a.b": 1e-05, "s": "two words", "n": None, "l": [64, 64], "t": True, "m": {}}
    assert the_argv(params) == ["--a.b=1e-05", "--s=two words", "--l=[64,64]", "--t=true", "--m={}"]


def test_nothing_is_passed_on_the_command_line_where_it_is_not_asked_for() -> None:
    assert the_argv({"a": 1}, "env") == the_argv({"a": 1}, "file") == []


def test_late_values_in_parameters_and_command_stay_one_argument() -> None:
    late = {**LATE, "output_dir": "/with space"}
    words = argv(Program(("t", "${espalier.output_dir}"), {}, {}), {"o": "${espalier.output_dir}"}, "flags", late, {})
    assert words == ["t", "/with space", "--o=/with space"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
    | st.text("'\"\\$ {}[](),:=ab#\n", max_size=12),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@given(JSON)
def test_hydra_reads_back_the_value_that_was_passed(value: Json) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"a.b={hydra_value(value)}"])
    assert not override.is_sweep_override()
    assert override.value() == value
    assert type(override.value()) is type(value)


@pytest.mark.parametrize("text", ["", "true", "null", "1", "1e-3", "inf", "a,b", "choice(1)", "x y", "it's", "\\", "~"])
def test_a_string_that_looks_like_something_else_stays_a_string_for_hydra(text: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"a={hydra_value(text)}"])
    assert override.value() == text


def test_variables_of_parameters_that_collide_are_an_error() -> None:
    assert param_variables({"a.b": 1, "c": None, "d": "x"}) == {"PARAM_A_B": "1", "PARAM_D": "x"}
    with pytest.raises(InputError, match="PARAM_A_B"):
        param_variables({"a.b": 1, "a_b": 2})


def test_the_file_of_parameters_is_nested() -> None:
    assert nested({"a.b": 1, "a.c.d": [1], "e": None}) == {"a": {"b": 1, "c": {"d": [1]}}, "e": None}


# The environment


def test_what_steers_us_git_runs_and_ranks_is_left_behind() -> None:
    environ = {
        "PATH": "/usr/bin",
        "LANG": "C",
        "MLFLOW_TRACKING_TOKEN": "t",
        **dict.fromkeys(("ESPALIER_JOB", "ESPALIER_FOLLOWER", "GIT_DIR", "GIT_INDEX_FILE", "MLFLOW_RUN_ID"), "x"),
        **dict.fromkeys(("MLFLOW_EXPERIMENT_NAME", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID"), "9"),
    }
    seen = the_variables(environ)
    assert (seen["LANG"], seen["MLFLOW_TRACKING_TOKEN"]) == ("C", "t")
    assert (seen["MLFLOW_RUN_ID"], seen["ESPALIER_JOB"], seen["WORLD_SIZE"]) == ("r", "digits/mlp", "1")
    gone = {"ESPALIER_FOLLOWER", "GIT_DIR", "GIT_INDEX_FILE", "MLFLOW_EXPERIMENT_NAME", "LOCAL_RANK", "SLURM_PROCID"}
    assert gone.isdisjoint(seen)


def test_git_does_not_look_for_a_repository_above_the_trials_folder() -> None:
    assert the_variables({"GIT_CEILING_DIRECTORIES": "/home"})["GIT_CEILING_DIRECTORIES"] == "/"


def test_a_program_finds_what_the_contract_names() -> None:
    seen = the_variables({"TOKEN": "t", "PATH": "/usr/bin:/venv/bin"}, secrets=("TOKEN",), env={"OMP": "1"})
    assert seen["PATH"] == "/venv/bin:/usr/bin"
    assert (seen["TOKEN"], seen["OMP"]) == ("t", "1")
    said = {name.removeprefix("ESPALIER_"): value for name, value in seen.items() if name.startswith("ESPALIER_")}
    assert said == {
        "KEY": "0" * 40,
        "JOB": "digits/mlp",
        "LINE": "",
        "VERSION": "3",
        "TRIAL": "1f0c9a2e4b5d",
        "ATTEMPT": "2",
        "COMMIT": "c" * 40,
        "PARAMS": "/p.json",
        "OUTPUT_DIR": "/o",
        "CHECKPOINT_DIR": "/k",
        "DATA_TRAIN_SET": "/w/data/digits.csv",
    }
    assert seen["MASTER_ADDR"] == "127.0.0.1"
    assert 1024 < int(seen["MASTER_PORT"]) < 32768


def test_a_missing_secret_is_named() -> None:
    with pytest.raises(InputError, match="TOKEN is not set"):
        the_variables({}, secrets=("TOKEN",))


def test_parameters_can_be_variables() -> None:
    seen = the_variables({}, params={"optim.lr": 0.1, "sizes": [1]}, pass_params="env")
    assert (seen["PARAM_OPTIM_LR"], json.loads(seen["PARAM_SIZES"])) == ("0.1", [1])
