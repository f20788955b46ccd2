"""What a program finds when it is started: arguments, environment, files, data, secrets. Few applies, many jobs."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.e2e.conftest import NewDesk
from tests.e2e.desk import Desk
from tests.looking import HttpLook

TELL = """\
    import json, os, pathlib, sys
    here = pathlib.Path(".")
    seen = {
        "argv": sys.argv[1:],
        "env": {n: v for n, v in os.environ.items() if n != "MY_SECRET"},
        "params": json.loads(pathlib.Path(os.environ["ESPALIER_PARAMS"]).read_text()),
        "cwd": os.getcwd(),
        "files": sorted(p.as_posix() for p in here.rglob("*") if p.is_file()),
        "empty": os.listdir(os.environ["ESPALIER_OUTPUT_DIR"]) == [],
        "checkpoint": os.path.isdir(os.environ["ESPALIER_CHECKPOINT_DIR"]),
        "data": {n: open(v).read() for n, v in os.environ.items() if n.startswith("ESPALIER_DATA_") and "/" == v[0]},
    }
    (pathlib.Path(os.environ["ESPALIER_OUTPUT_DIR"]) / "seen.json").write_text(json.dumps(seen))
    """
TOLD = "command: python tell.py\ncode: [tell.py]\n"
VALUES = "params: {s: a b, e: '', n: 1e-05, b: true, l: [64, 64], z: null, deep: {x-y: 1, t: 'true'}}\n"
SECRET = "correct-horse-battery-staple"

JOBS = {
    "flags": f"{TOLD}{VALUES}",
    "hydra": f"{TOLD}{VALUES}pass_params: hydra\n",
    "env": f"{TOLD}{VALUES}pass_params: env\n",
    "file": f"{TOLD}{VALUES}pass_params: file\n",
    "deep/late": """\
        command: >-
          python tell.py ${espalier.job} "two words" ${espalier.env:SPACED} ${oc.env:NOT_SET,fallback} ${job.params.a}
        code: [tell.py]
        env:
          MAP: {b: [1, 2], a: null}
          NUMBER: 3
          PLACE: ${espalier.output_dir}|${espalier.checkpoint_dir}|${espalier.data.table}
          WHO: ${espalier.project} ${espalier.version} ${espalier.trial} ${espalier.commit}
          EMPTY: ${oc.env:NOT_SET,""}
        params: {a: 1, mark: "run-${espalier.trial}", own: "${own.name}"}
        data: {table: {path: data/in.csv}}
        """,
    "swept": """\
        command: python tell.py --warm ${job.params.warm}
        code: [tell.py]
        env: {LR: "${job.params.lr}"}
        params: {lr: 5, warm: "${.lr}", other: "${.warm}"}
        sweep: {params: {lr: "choice(1,2)"}}
        """,
    "data": """\
        command: python tell.py
        code: [tell.py, lib/]
        data:
          table: {path: data/in.csv}
          local: {uri: "file:untracked/big.bin"}
          far: {uri: "gs://bucket/eval/", version: "3"}
        """,
    "undeclared": "command: python -c 'open(\"other.txt\")'\ncode: [tell.py]\n",
    "leaves": 'command: python -c \'open("left.txt", "w").write("mine")\'\ncode: [tell.py]\n',
    "secret": """\
        command: sh secret.sh
        code: [secret.sh]
        secrets: [MY_SECRET]
        env: {HEADER: "Bearer ${oc.env:MY_SECRET}"}
        """,
    "nowhere": f"{TOLD}data: {{gone: {{uri: 'file:not/here'}}}}\n",
}
FILES = {
    "tell.py": TELL,
    "lib/one.py": "x = 1\n",
    "lib/two.sh": "echo\n",
    "other.txt": "not declared\n",
    "data/in.csv": "1,2\n",
    "data/out.csv": "3,4\n",
    ".gitignore": "untracked/\n",
    "secret.sh": 'echo "the secret is $MY_SECRET and $HEADER"; echo "on stderr $MY_SECRET" >&2\n',
}
GIVEN = {
    "MY_SECRET": SECRET,
    "SPACED": "kept as one",
    "MY_OWN": "goes along",
    **dict.fromkeys(("MLFLOW_RUN_ID", "ESPALIER_JOB", "ESPALIER_LINE", "GIT_AUTHOR_DATE"), "1700000000 +0000"),
    **dict.fromkeys(("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "MASTER_ADDR"), "7"),
}


@pytest.fixture(scope="module")
def ran(new_desk: NewDesk) -> Desk:
    """All the jobs, applied once."""
    desk = new_desk({name: dedent(text) for name, text in JOBS.items()}, FILES)
    desk.repo.write("conf/config.yaml", (desk.path / "conf/config.yaml").read_text() + "own: {name: mine}\n")
    desk.repo.write("untracked/big.bin", "big")
    desk.repo.commit("A node of our own")
    desk.run("apply", code=3, env=GIVEN)
    return desk


def told(desk: Desk, job: str) -> list[Any]:
    """Return what the program of each trial saw."""
    shown = desk.json("show", job)
    folders = [desk.state / "trials" / trial["handle"] / "output" for trial in shown["trials"]]
    return [json.loads((folder / "seen.json").read_text()) for folder in folders]


def test_flags_are_strings_as_they_are_and_others_compact_json(ran: Desk) -> None:
    [seen] = told(ran, "flags")
    assert seen["argv"] == [
        *("--s=a b", "--e=", "--n=1e-05", "--b=true", "--l=[64,64]", "--deep.x-y=1", "--deep.t=true"),
    ]
    assert seen["params"] == {
        "s": "a b",
        "e": "",
        "n": 1e-05,
        "b": True,
        "l": [64, 64],
        "z": None,
        "deep": {"x-y": 1, "t": "true"},
    }
    assert not [name for name in seen["env"] if name.startswith("PARAM_")]


def test_hydra_gets_its_own_quoting_and_null(ran: Desk) -> None:
    [seen] = told(ran, "hydra")
    assert seen["argv"] == [
        *("s='a b'", "e=''", "n=1e-05", "b=true", "l=[64,64]", "z=null", "deep.x-y=1", "deep.t='true'"),
    ]


def test_env_and_file_leave_the_command_line_alone(ran: Desk) -> None:
    [seen] = told(ran, "env")
    assert seen["argv"] == []
    assert {name: value for name, value in seen["env"].items() if name.startswith("PARAM_")} == {
        "PARAM_S": "a b",
        "PARAM_E": "",
        "PARAM_N": "1e-05",
        "PARAM_B": "true",
        "PARAM_L": "[64,64]",
        "PARAM_DEEP_X_Y": "1",
        "PARAM_DEEP_T": "true",
    }
    [seen] = told(ran, "file")
    assert seen["argv"] == []
    assert seen["params"]["deep"] == {"x-y": 1, "t": "true"}


def test_late_values_stay_in_the_spec_and_are_filled_in_at_the_start(ran: Desk) -> None:
    shown = ran.json("show", "deep/late")
    [trial] = shown["trials"]
    assert trial["params"] == {"a": 1, "mark": "run-${espalier.trial}", "own": "mine"}
    assert shown["spec"]["command"][2] == "${espalier.job}"
    [seen] = told(ran, "deep/late")
    assert seen["argv"] == [
        *("deep/late", "two words", "kept as one", "fallback", "1"),
        *("--a=1", f"--mark=run-{trial['id']}", "--own=mine"),
    ]
    env = seen["env"]
    assert env["MAP"] == '{"a":null,"b":[1,2]}'
    assert (env["NUMBER"], env["EMPTY"]) == ("3", "")
    output, checkpoint, table = env["PLACE"].split("|")
    assert (output, checkpoint) == (env["ESPALIER_OUTPUT_DIR"], env["ESPALIER_CHECKPOINT_DIR"])
    assert table == env["ESPALIER_DATA_TABLE"]
    project = ran.repo.git("show", "HEAD:conf/config.yaml").split("project: ")[1].split()[0]
    assert env["WHO"] == f"{project} 1 {trial['id']} {ran.repo.git('rev-parse', 'HEAD')}"


def test_a_swept_value_reaches_interpolated_parameters_command_and_environment(ran: Desk) -> None:
    seen = {one["params"]["lr"]: one for one in told(ran, "swept")}
    assert set(seen) == {1, 2}
    for lr, one in seen.items():
        assert one["params"] == {"lr": lr, "warm": lr, "other": lr}
        assert one["argv"][:2] == ["--warm", str(lr)]
        assert one["env"]["LR"] == str(lr)
    assert ran.json("spec", "swept")["spec"]["params"]["warm"] == "${.lr}"


def test_the_environment_is_the_commands_less_what_steers_and_what_the_contract_adds(ran: Desk) -> None:
    [seen] = told(ran, "flags")
    shown = ran.json("show", "flags")
    [trial] = shown["trials"]
    env = seen["env"]
    assert env["MY_OWN"] == "goes along"
    assert env["HOME"] == ran.environ["HOME"]
    home = ran.state / "trials" / trial["handle"]
    assert {name: value for name, value in env.items() if name.startswith("ESPALIER_")} == {
        "ESPALIER_JOB": "flags",
        "ESPALIER_LINE": "",
        "ESPALIER_VERSION": "1",
        "ESPALIER_TRIAL": trial["id"],
        "ESPALIER_ATTEMPT": "1",
        "ESPALIER_COMMIT": shown["commit"],
        "ESPALIER_PARAMS": str(home / "params.json"),
        "ESPALIER_OUTPUT_DIR": str(home / "output"),
        "ESPALIER_CHECKPOINT_DIR": env["ESPALIER_CHECKPOINT_DIR"],
        "ESPALIER_KEY": trial["handle"],
    }
    assert env["MLFLOW_TRACKING_URI"] == ran.environ["MLFLOW_TRACKING_URI"]
    assert env["MLFLOW_RUN_ID"] == trial["run_id"]
    assert env["MLFLOW_EXPERIMENT_ID"].isdigit()
    assert (env["RANK"], env["WORLD_SIZE"], env["MASTER_ADDR"]) == ("0", "1", "127.0.0.1")
    assert env["MASTER_PORT"].isdigit()
    assert not {"LOCAL_RANK", "SLURM_PROCID", "GIT_AUTHOR_DATE", "GIT_TERMINAL_PROMPT"} & set(env)
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert env["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert env["PWD"] == seen["cwd"]
    assert seen["empty"]
    assert seen["checkpoint"]


def test_a_trial_has_exactly_the_declared_files_in_a_folder_of_its_own(ran: Desk) -> None:
    [seen] = told(ran, "flags")
    assert seen["files"] == ["tell.py"]
    [seen] = told(ran, "data")
    assert seen["files"] == ["data/in.csv", "lib/one.py", "lib/two.sh", "tell.py", "untracked/big.bin"]
    assert seen["env"]["ESPALIER_DATA_FAR"] == "gs://bucket/eval/"
    assert seen["data"] == {"ESPALIER_DATA_TABLE": "1,2\n", "ESPALIER_DATA_LOCAL": "big"}
    [trial] = ran.json("show", "undeclared")["trials"]
    assert trial["state"] == "failed"
    assert "other.txt" in ran.run("logs", "undeclared").stdout


def test_files_that_a_program_leaves_in_its_folder_are_kept_with_its_outputs(ran: Desk, look: HttpLook) -> None:
    shown = look(ran.json("show", "leaves")["run_id"])
    assert [text for name, text in shown.artifacts.items() if name.endswith("left.txt")] == ["mine"]


def test_data_that_is_not_on_this_machine_is_recorded_as_failed_with_its_path(ran: Desk) -> None:
    [trial] = ran.json("show", "nowhere")["trials"]
    assert trial["state"] == "failed"
    assert "not/here is not on this machine" in trial["message"]
    assert trial["attempt"] == 1


def test_unpinned_data_is_said_in_the_plan_and_never_reused(new_desk: NewDesk) -> None:
    text = f"{TOLD}data: {{far: {{uri: 's3://bucket/x'}}}}\nparams: {{a: 1}}\n"
    desk = new_desk({"a": text}, FILES)
    assert "unpinned" in desk.run("plan").stdout
    desk.run("apply")
    desk.job("a", f"{text}resources: {{cpus: 0.5}}\n")
    desk.repo.commit("Less of a machine")
    assert desk.action("a")["trials"]["run"] == 1


def test_resources_belong_to_the_version_and_strict_reuse_counts_them_in(new_desk: NewDesk) -> None:
    text = f"{TOLD}params: {{a: 1}}\n"
    desk = new_desk({"loose": text, "strict": f"{text}policy: {{reuse: strict}}\n", "never": text}, FILES)
    desk.run("apply")
    for job, more in (("loose", ""), ("strict", "policy: {reuse: strict}\n"), ("never", "policy: {reuse: false}\n")):
        desk.job(job, f"{text}{more}resources: {{memory_gib: 0.1}}\ngrace_s: 7\n")
    desk.repo.commit("Other resources")
    counts = {a["job"]: (a["action"], a["trials"]["reused"], a["trials"]["run"]) for a in desk.json("plan")["actions"]}
    assert counts == {"loose": ("revise", 1, 0), "strict": ("revise", 0, 1), "never": ("revise", 0, 1)}


def test_a_secret_reaches_the_program_and_stands_nowhere(ran: Desk, look: HttpLook, run_folder: Path) -> None:
    log = ran.run("logs", "secret").stdout
    assert "the secret is *** and Bearer ***" in log
    assert "on stderr ***" in log
    shown = look(ran.json("show", "secret")["run_id"])
    assert "***" in "".join(shown.artifacts.values())
    holders = [file for file in walk(ran.state) if SECRET.encode() in file.read_bytes()]
    assert holders == []
    with closing(sqlite3.connect(ran.state / "queue.sqlite")) as queue:
        assert SECRET not in "\n".join(queue.iterdump())
    for reference in ran.repo.git("log", "--format=%H", "refs/espalier/ledger").split():
        found = subprocess.run(
            ["git", "grep", "-qF", SECRET, reference], cwd=ran.path, capture_output=True, env=dict(ran.environ)
        )
        assert found.returncode == 1
    assert SECRET not in ran.repo.git("log", "--format=%B", "refs/espalier/ledger")
    assert [file for file in walk(run_folder / "mlflow-server") if SECRET.encode() in file.read_bytes()] == []
    assert SECRET not in ran.run("show", "secret").stdout + ran.run("show", "secret", "--format", "json").stdout


def walk(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def test_what_cannot_be_passed_or_named_is_refused_while_planning(new_desk: NewDesk) -> None:
    desk = new_desk(
        {
            "nan": f"{TOLD}params: {{a: .nan}}\n",
            "big": f"{TOLD}params: {{a: 18446744073709551616}}\n",
            "collide": f"{TOLD}pass_params: env\nparams: {{a-b: 1, a_b: 2}}\n",
            "resolver": f"{TOLD}params: {{a: '${{now:%Y}}'}}\n",
            "secretarg": "command: 'sh t.sh ${oc.env:TOKEN}'\ncode: [tell.py]\nsecrets: [TOKEN]\n",
            "shape": f"{TOLD}env: {{KEY: ghp_{'a1B2' * 10}}}\n",
            "noname": f"{TOLD}params: {{a: '${{espalier.nothing}}'}}\n",
            "nocode": "command: sh t.sh\ncode: [nothere.py]\n",
            "nodata": f"{TOLD}data: {{x: {{path: nothere.csv}}}}\n",
            "nocommand": "code: []\n",
            "link": "command: sh t.sh\ncode: [out]\n",
        },
        FILES,
    )
    (desk.path / "out").symlink_to("/etc/hostname")
    desk.repo.commit("A link that leads out")
    plan = desk.json("plan", code=1)
    wrong = {error["job"]: f"{error['message']} | {error['hint']}" for error in plan["errors"]}
    assert sorted(wrong) == sorted(
        [
            *(
                "nan",
                "big",
                "collide",
                "resolver",
                "secretarg",
                "shape",
                "noname",
                "nocode",
                "nodata",
                "nocommand",
                "link",
            )
        ]
    )
    assert plan["actions"] == []
    assert "ghp_" not in json.dumps(plan["errors"]), "a secret is not repeated"
    for job, word in (("collide", "PARAM_A_B"), ("resolver", "now"), ("nocommand", "command"), ("link", "out")):
        assert word in wrong[job]
    assert all(error["file"] for error in plan["errors"])


def test_an_editable_install_is_shadowed_by_the_commits_copy_and_refused_when_not_in_code(
    new_desk: NewDesk, tmp_path: Path
) -> None:
    program = (
        "import pathlib, mine\nprint(mine.VALUE, pathlib.Path(mine.__file__).is_relative_to(pathlib.Path.cwd()))\n"
    )
    desk = new_desk(
        {
            "inside": "command: python use.py\ncode: [use.py, src/]\n",
            "outside": "command: python use.py\ncode: [use.py]\n",
        },
        {"use.py": program, "src/mine.py": "VALUE = 'committed'\n"},
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    [site] = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "mine.pth").write_text(f"{desk.path / 'src'}\n")
    desk.repo.write("src/mine.py", "VALUE = 'not committed'\n")
    desk.run("apply", code=3, env={"VIRTUAL_ENV": str(tmp_path / "venv")})
    assert desk.run("logs", "inside").stdout == "committed True\n"
    [trial] = desk.json("show", "outside")["trials"]
    assert trial["state"] == "failed"
    assert "src" in trial["message"]
