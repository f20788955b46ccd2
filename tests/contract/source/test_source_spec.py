"""From a committed job file to a spec with its points."""

import subprocess
from typing import Any

import pytest

from espalier.core.content import digest, trial_id
from espalier.core.model import Data, Point, Program
from tests.contract.source.repository import Repo

BARE = "command: python x.py\ncode: []\n"


def said(repo: Repo, text: str, **more: str) -> list[str]:
    """Return what is wrong with a job of that text, as people read it."""
    repo.job_file(text, **more)
    return [f"{error.file}:{error.line}: {error.message}" for error in repo.errors()]


def points(repo: Repo, sweep: str, params: str = "{}") -> list[dict[str, Any]]:
    repo.job_file(f"{BARE}params: {params}\nsweep: {sweep}\n")
    return [dict(point.params) for point in repo.job().points]


def test_every_part_of_a_job_reaches_the_spec(repo: Repo) -> None:
    repo.job_file(
        """
        defaults:
          - /optim@params.optim: adam
        description: says what it is for
        command: python train.py --out 'a b'
        code: [src]
        pass_params: file
        env: {THREADS: 1, LIST: [1, 2.5, true], NONE: null, TEXT: "1"}
        secrets: [HF_TOKEN, A_KEY]
        grace_s: 5
        params: {hidden: 64, empty: {}, layers: [1, {w: 2}], none: null}
        data:
          train: {path: data/digits.csv}
          eval: {uri: "gs://bucket/eval/", version: 3}
          cifar: {uri: "file:data/cifar10"}
        resources: {cpus: 2, memory_gib: 4, gpus: 1, time_limit_s: 600}
        artifacts: {include: ["*.png"], max_mb: 5}
        policy: {retries: 2, reuse: false, on_supersede: cancel}
        """,
        conf__optim__adam="",
    )
    repo.commit(
        {
            "conf/optim/adam.yaml": "lr: 1e-3\n",
            "src/a.py": "1\n",
            "src/b.sh": "2\n",
            "data/digits.csv": "1,2\n",
        }
    )
    (repo.top / "src/b.sh").chmod(0o755)
    repo.commit()
    job = repo.job()
    spec = job.spec
    oid = {name: repo.git("rev-parse", f"HEAD:{name}") for name in ("src/a.py", "src/b.sh", "data/digits.csv")}
    assert spec.command == ("python", "train.py", "--out", "a b")
    assert spec.code == {"src/a.py": oid["src/a.py"], "src/b.sh": f"{oid['src/b.sh']} 100755"}
    assert spec.env == {"THREADS": "1", "LIST": "[1,2.5,true]", "TEXT": "1"}
    assert spec.secrets == ("A_KEY", "HF_TOKEN")
    assert spec.params == {"hidden": 64, "empty": {}, "layers": [1, {"w": 2}], "none": None, "optim.lr": 0.001}
    assert spec.data == {
        "train": Data("data/digits.csv", oid["data/digits.csv"]),
        "eval": Data(uri="gs://bucket/eval/", version="3"),
        "cifar": Data(uri="file:data/cifar10"),
    }
    assert (spec.resources.cpus, spec.resources.gpus, spec.grace_s) == (2.0, 1.0, 5.0)
    assert job.policy.reuse == "false"
    assert job.policy.on_supersede == "cancel"
    assert job.artifacts.include == ("*.png",)
    assert job.description == "says what it is for"
    assert job.points == (Point(dict(sorted(spec.params.items()))),)


def test_each_leaf_knows_its_file_and_line(repo: Repo) -> None:
    repo.job_file(
        """
        defaults:
          - /optim@params.optim: adam
        command: python x.py
        code: []
        params:
          hidden: 64
        sweep:
          params:
            optim.wd: 1,2
            deep:
              er: 3,4
        env:
          X: "1"
        resources: {cpus: 2}
        """,
        conf__optim__adam="",
    )
    repo.commit({"conf/optim/adam.yaml": "# a\nlr: 1\n"})
    origins = repo.job().origins
    file = "conf/job/a.yaml"
    assert origins["params.hidden"] == f"{file}:6"
    assert origins["params.optim.lr"] == "conf/optim/adam.yaml:2"
    assert origins["command"] == f"{file}:3"
    assert origins["sweep.params.optim.wd"] == f"{file}:9"
    assert origins["sweep.params.deep.er"] == f"{file}:11"
    assert origins["env.X"] == f"{file}:13"
    assert origins["resources.cpus"] == f"{file}:14"
    assert origins["backend.kind"] == "conf/backend/local.yaml:1"


# Interpolation


def test_a_swept_value_reaches_params_command_environment_and_data(repo: Repo) -> None:
    repo.job_file(
        """
        command: python x.py --lr ${.params.optim.lr} --tag=${.params.tag}
        code: []
        env: {LR: "${job.params.optim.lr}", LIST: ["${job.params.optim.lr}"], FIXED: "${shared.fixed}"}
        params:
          warmup: ${.optim.lr}
          tag: run-${.warmup}-${shared.fixed}
          fixed: ${shared.fixed}
          chain: ${shared.chain}
        data:
          d: {uri: "gs://b/${job.params.optim.lr}", version: "1"}
        sweep:
          params: {optim.lr: "choice(0.1,0.2)"}
        """
    )
    repo.commit(
        {
            "conf/config.yaml": (repo.top / "conf/config.yaml").read_text()
            + "shared:\n  fixed: 7\n  chain: ${job.params.optim.lr}\n"
        }
    )
    job = repo.job()
    assert job.spec.params == {
        "warmup": "${.optim.lr}",
        "tag": "run-${.warmup}-${shared.fixed}",
        "fixed": 7,
        "chain": "${shared.chain}",
    }
    assert job.spec.command == ("python", "x.py", "--lr", "${.params.optim.lr}", "--tag=${.params.tag}")
    assert job.spec.env == {"LR": "${job.params.optim.lr}", "LIST": '["${job.params.optim.lr}"]', "FIXED": "7"}
    assert job.spec.data == {"d": Data(uri="gs://b/${job.params.optim.lr}", version="1")}
    assert job.spec.context == {"shared.chain": "${job.params.optim.lr}", "shared.fixed": 7}
    first, second = job.points
    assert first.params == {"optim.lr": 0.1, "warmup": 0.1, "tag": "run-0.1-7", "fixed": 7, "chain": 0.1}
    assert second.program == Program(
        ("python", "x.py", "--lr", "0.2", "--tag=run-0.2-7"),
        {"LR": "0.2", "LIST": "[0.2]", "FIXED": "7"},
        {"d": Data(uri="gs://b/0.2", version="1")},
    )


def test_points_without_dependents_have_no_program(repo: Repo) -> None:
    repo.job_file(f"{BARE}params: {{a: 1, b: '${{.a}}'}}\nsweep: {{params: {{lr: '1,2'}}}}\n")
    assert [point.program for point in repo.job().points] == [None, None]
    assert repo.job().points[0].params == {"a": 1, "b": 1, "lr": 1}


def test_late_values_stay_literal_through_chains(repo: Repo) -> None:
    repo.job_file(
        """
        command: python x.py ${espalier.output_dir}/x ${espalier.data.d} ${oc.env:HOME} ${espalier.env:USER,nobody}
        code: []
        env: {WHO: "${oc.env:USER, 'a b'}", RUN: "${.TAG}", TAG: "${espalier.job}-${espalier.version}"}
        params: {out: "${espalier.checkpoint_dir}", tag: "${job.env.TAG}"}
        data: {d: {uri: "gs://b/${espalier.project}"}}
        """
    )
    spec = repo.job().spec
    assert spec.command[2:] == (
        "${espalier.output_dir}/x",
        "${espalier.data.d}",
        "${oc.env:HOME}",
        "${espalier.env:USER,nobody}",
    )
    assert spec.env == {
        "WHO": "${oc.env:USER,'a b'}",
        "RUN": "${espalier.job}-${espalier.version}",
        "TAG": "${espalier.job}-${espalier.version}",
    }
    assert spec.params == {"out": "${espalier.checkpoint_dir}", "tag": "${espalier.job}-${espalier.version}"}
    assert spec.data["d"].uri == "gs://b/${espalier.project}"
    assert not spec.context


def test_pure_resolvers_work(repo: Repo) -> None:
    repo.job_file(
        BARE
        + """
params:
  a: ${oc.select:job.params.none,5}
  b: ${oc.decode:'[1,2]'}
  c: ${oc.dict.keys:job.params.map}
  d: ${oc.dict.values:.map}
  e: ${oc.create:{x:1}}
  map: {p: 1, q: "${.p}"}
"""
    )
    assert repo.job().spec.params == {
        "a": 5,
        "b": [1, 2],
        "c": ["p", "q"],
        "d": [1, 1],
        "e.x": 1,
        "map.p": 1,
        "map.q": 1,
    }


def test_unrelated_nodes_may_hold_any_resolver(repo: Repo) -> None:
    config = (repo.top / "conf/config.yaml").read_text()
    repo.commit({"conf/config.yaml": config + "mine: {x: '${now:%Y}', y: '${oc.env:HOME}', z: 1}\n"})
    repo.job_file(BARE + "params: {z: '${mine.z}'}\n")
    assert repo.job().spec.params == {"z": 1}


def test_a_value_is_always_one_argument(repo: Repo) -> None:
    repo.job_file(
        """
        command: >-
          sh -c 'echo "$0" \\${HOME}' ${.params.text} "${oc.select: job.params.none, 'x y'}"
        code: []
        params: {text: "two words", list: [1, 2]}
        """
    )
    assert repo.job().spec.command == ("sh", "-c", 'echo "$0" ${HOME}', "two words", "x y")


def test_a_command_may_be_a_list_or_refer_to_one(repo: Repo) -> None:
    config = (repo.top / "conf/config.yaml").read_text()
    repo.commit({"conf/config.yaml": config + "shared: {program: [python, x.py, 3]}\n"})
    repo.job_file("command: [python, -c, 'print(1)', 5, true, 1e-5]\ncode: []\n")
    assert repo.job().spec.command == ("python", "-c", "print(1)", "5", "true", "1e-05")
    repo.job_file("command: ${shared.program}\ncode: []\n")
    assert repo.job().spec.command == ("python", "x.py", "3")


# Sweeps


def test_a_grid_gives_hydras_points_in_hydras_order(repo: Repo) -> None:
    found = points(repo, "{params: {b: 'range(0,2)', a: 'x,y', c: 5, d: [1, 2]}}")
    assert found == [
        {"a": a, "b": b, "c": 5, "d": [1, 2]} for b in (0, 1) for a in ("x", "y")
    ]  # fmt: skip


def test_names_are_nested_or_dotted_and_need_no_base(repo: Repo) -> None:
    assert points(repo, "{params: {optim: {lr: '1,2'}, optim.wd: 3}}", "{optim: {eps: 9}}") == [
        {"optim.eps": 9, "optim.lr": 1, "optim.wd": 3},
        {"optim.eps": 9, "optim.lr": 2, "optim.wd": 3},
    ]


def test_points_takes_a_list_of_maps(repo: Repo) -> None:
    found = points(
        repo, "{method: points, params: [{optim: {lr: 1}, h: 2}, {optim.lr: 3}]}", "{h: 7, k: '${.optim.lr}'}"
    )
    assert found == [{"h": 2, "k": 1, "optim.lr": 1}, {"h": 7, "k": 3, "optim.lr": 3}]
    assert repo.job().spec.params == {"h": 7, "k": "${.optim.lr}"}
    assert repo.job().spec.sweep.points == ({"optim.lr": 1, "h": 2}, {"optim.lr": 3})  # type: ignore[union-attr]


def test_equal_points_are_one_trial(repo: Repo) -> None:
    assert points(repo, "{params: {a: '1e-3,0.001,1'}}") == [{"a": 0.001}, {"a": 1}]


def test_a_swept_value_may_be_an_interpolation(repo: Repo) -> None:
    found = points(repo, r"{params: {a: 'choice(\${.b},${espalier.trial})'}}", "{b: 4}")
    assert [point["a"] for point in found] == [4, "${espalier.trial}"]


def test_the_base_value_of_a_swept_key_is_not_in_the_spec(repo: Repo) -> None:
    repo.job_file(f"{BARE}params: {{a: 1}}\nsweep: {{params: {{a: '1,2'}}}}\n")
    before = repo.job()
    repo.job_file(f"{BARE}params: {{a: 9}}\nsweep: {{params: {{a: '1,2'}}}}\n")
    assert digest(repo.job().spec) == digest(before.spec)


def test_a_grid_larger_than_allowed_is_refused_with_both_numbers(repo: Repo) -> None:
    text = BARE + "sweep: {max_trials: 5, params: {a: 'range(0,3)', b: '1,2'}}\n"
    (found,) = said(repo, text)
    assert "6" in found
    assert "5" in found


@pytest.mark.parametrize("values", ["range(0,1e12)", "range(0,1000000000)", "range(0,1,1e-12)"])
def test_an_endless_range_is_refused_at_once(repo: Repo, values: str) -> None:
    (found,) = said(repo, f"{BARE}sweep:\n  params:\n    a: {values}\n")
    assert found.startswith("conf/job/a.yaml:5: ")


def test_trial_ids_name_the_content_of_points(repo: Repo) -> None:
    repo.job_file(f"{BARE}sweep: {{params: {{a: '1,2'}}}}\n")
    before = [trial_id(point.params) for point in repo.job().points]
    repo.job_file(f"{BARE}sweep: {{params: {{a: '2,3,1'}}}}\n")
    after = [trial_id(point.params) for point in repo.job().points]
    assert set(before) < set(after)


# Code


PATHSPECS = [
    ["src"],
    ["src/"],
    ["."],
    ["src/*.py"],
    ["*.py"],
    ["src", ":!src/sub"],
    ["src", ":(exclude)src/*.txt"],
    [":!src"],
    [":(glob)src/*.py"],
    [":(glob)**/*.py"],
    [":(icase)SRC/A.PY"],
    [":/src/a.py"],
    [":(literal)src/[x].py"],
    ["src/[x].py"],
    ["src/a.py/"],
    ["./src/./a.py"],
    ["src//a.py"],
    ["src/a"],
    ["src/sub/", "top.py", ":^src/sub/deep"],
    ["src/?.py"],
    [":(top,exclude)src", "."],
    ["linked"],
    ["linked/a.py"],
    ["ünï"],
]


@pytest.mark.parametrize("pathspecs", PATHSPECS, ids=" ".join)
def test_code_selects_what_git_selects(repo: Repo, pathspecs: list[str]) -> None:
    from espalier.source.git import Objects
    from espalier.source.pathspec import Selector

    files = [
        "src/a.py",
        "src/b.txt",
        "src/sub/c.py",
        "src/sub/deep/d.py",
        "top.py",
        "src/[x].py",
        "src/x.py",
        "ünï/é.py",
    ]
    commit = repo.commit({**dict.fromkeys(files, "1\n"), "linked": "->src"})
    listed = subprocess.run(
        ["git", "-C", str(repo.top), "ls-files", "-z", "--", *pathspecs], capture_output=True, check=True
    )
    with Objects(repo.top, commit) as objects:
        selector = Selector(objects)
        try:
            found, _ = selector.select(pathspecs)
        finally:
            selector.close()
    assert found == frozenset(listed.stdout.decode().split("\0")[:-1])


def test_code_never_comes_from_the_working_tree(repo: Repo) -> None:
    repo.job_file("command: x\ncode: ['src/*']\n", src__a="1\n")
    before = repo.job().spec.code
    repo.write({"src/a": "2\n", "src/b": "3\n", "conf/job/a.yaml": "broken: ["})
    repo.git("add", "src/b")
    assert repo.job().spec.code == before
    assert repo.source.dirty() == ["conf/job/a.yaml", "src/a", "src/b"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("code: [src, nowhere]", "conf/job/a.yaml:3: code: 'nowhere' selects no file of the commit"),
        ("code: [src, '../x']", "conf/job/a.yaml:3: the pathspec '../x' leads out of the repository"),
        ("code: [src, ':!src']", "conf/job/a.yaml:3: code selects no file"),
        ("code: [bad]", "conf/job/a.yaml:2: 'bad/link' is a link that leads out of the repository"),
        ("code: [':(attr:x)src']", "conf/job/a.yaml:3: the pathspec ':(attr:x)src' asks for attributes"),
        ("code: []\ndata: {d: {path: bad}}", "conf/job/a.yaml:3: 'bad/link' is a link that leads out"),
        ("code: []\ndata: {d: {path: nope}}", "conf/job/a.yaml:3: the commit has no 'nope'"),
        ("code: []\ndata: {d: {path: ../x}}", "conf/job/a.yaml:3: the data path '../x' leads out"),
        ("code: [module]", "conf/job/a.yaml:2: 'module' is a submodule"),
    ],
)
def test_what_a_trial_cannot_have_is_refused_by_name(repo: Repo, text: str, expected: str) -> None:
    repo.commit({"src/a.py": "1\n", "bad/link": "->../../outside", "conf/job/a.yaml": f"command: x\n{text}\n"})
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{repo.git('rev-parse', 'HEAD')},module")
    repo.git("commit", "--quiet", "-m", "module")
    messages = [f"{error.file}:{error.line}: {error.message}" for error in repo.errors()]
    wanted = expected if ":3: code:" not in expected else expected.replace(":3:", ":2:")
    assert any(message.startswith((expected, wanted, expected.replace(":3:", ":2:"))) for message in messages), messages


# What is refused


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("command: x\ncode: []\nparam: {}\n", "conf/job/a.yaml:3: unknown key 'param'"),
        (BARE + "resources: {cpu: 1}\n", "conf/job/a.yaml:3: unknown key 'resources.cpu'"),
        (BARE + "sweep:\n  parms: {}\n  params: {a: 1}\n", "conf/job/a.yaml:4: unknown key 'sweep.parms'"),
        ("code: []\n", "command is required"),
        ("command: x\n", "code is required"),
        (BARE + "resources: {cpus: many}\n", "conf/job/a.yaml:3: resources.cpus is 'many', not a number"),
        (BARE + "resources: {cpus: true}\n", "not a number"),
        (BARE + "resources: {cpus: 0}\n", "not above 0"),
        (BARE + "resources: {gpus: 0.5}\n", "fractions are not there yet"),
        (BARE + "resources: {nodes: 2}\n", "nodes above 1 is not there yet"),
        (BARE + "pass_params: flag\n", "did you mean flags?"),
        (BARE + "grace_s: -1\n", "less than 0"),
        (BARE + "grace_s: .nan\n", "not a number that can be used"),
        (BARE + "policy: {reuse: maybe}\n", "not one of true, strict, false"),
        (BARE + "policy: {retries: 1.5}\n", "not a whole number"),
        (BARE + "hydra_app: {config_dir: x}\n", "hydra_app is not there yet"),
        (BARE + "moved: {from: b}\n", "renaming a job with its history is not there yet"),
        (BARE + "sweep: {method: tpe, params: {a: '1,2'}}\n", "not there yet; not one of grid, points"),
        (BARE + "sweep: {params: {a: '1,2'}, objective: {metric: x}}\n", "sweep.objective.goal is required"),
        (BARE + "sweep: {params: {a: 'interval(0,1)'}}\n", "not there yet"),
        (BARE + "sweep: {params: {a: 'shuffle(1,2)'}}\n", "shuffle"),
        (BARE + "sweep: {params: {a: 'choice('}}\n", "not in Hydra's override grammar"),
        (BARE + "sweep: {params: {+a: '1,2'}}\n", "no name of a parameter"),
        (BARE + "sweep: {params: {a.b: '1,2', a: {b: 3}}}\n", "given twice"),
        (BARE + "sweep: {params: {}}\n", "a map of names and values"),
        (BARE + "params: {m: {x: 1}}\nsweep: {params: {m: '1,2'}}\n", "'m' is a map: a sweep would replace it whole"),
        (BARE + "params: {m: 1}\nsweep: {params: {m.x: '1,2'}}\n", "cannot be swept"),
        (BARE + "backend: {kind: vertex}\n", "backend 'vertex' is not there yet"),
        (BARE + "backend: vertex\n", "backend 'vertex' is not there yet"),
        (BARE + "backend: {kind: local, queue: x}\n", "unknown key 'backend.queue'"),
        (BARE + "params: {a.b: 1}\n", "holds a dot"),
        (BARE + "params: {1: 1}\n", "is no text"),
        (BARE + "params: {a: .inf}\n", "not finite"),
        (BARE + "params: {a: 9223372036854775808}\n", "over 64 bits"),
        (BARE + "params: {a: [1, .nan]}\n", "not finite"),
        (BARE + "params: {a: '???'}\n", "is ???"),
        (BARE + "params: {a: '${now:%Y}'}\n", "conf/job/a.yaml:3: params.a: the resolver 'now' is refused"),
        (BARE + "params: {a: '${oc.env:HOME}'}\n", "reads the environment"),
        (BARE + "params: {a: '${oc.env:HOME}'}\nsweep: {params: {b: '1,2'}}\n", "reads the environment"),
        (BARE + "params: {a: '${.nope}'}\n", "there is no '.nope'"),
        (BARE + "params: {a: '${.b}', b: '${.a}'}\n", "refers to itself"),
        (BARE + "params: {a: '${espalier.tral}'}\n", "no late value"),
        (BARE + "params: {a: '${espalier.data.x}'}\n", "the job has no data"),
        (BARE + "params: {a: '${oc.decode:${espalier.trial}}'}\n", "nothing can be computed from it"),
        (BARE + "resources: {cpus: '${espalier.version}'}\n", "late value"),
        (BARE + "resources: {cpus: '${job.params.a}'}\nsweep: {params: {a: '1,2'}}\n", "refers to a swept parameter"),
        (BARE + "secrets: [HF_TOKEN]\ndata: {d: {uri: 'gs://${oc.env:HF_TOKEN}'}}\n", "the secret HF_TOKEN"),
        ("command: x ${oc.env:HF_TOKEN}\ncode: []\nsecrets: [HF_TOKEN]\n", "the secret HF_TOKEN"),
        (BARE + "secrets: ['a b']\n", "no name of a variable"),
        (BARE + "env: {'a b': 1}\n", "no name that a job can set"),
        (BARE + "env: {ESPALIER_JOB: x}\n", "no name that a job can set"),
        (BARE + f"env: {{T: ghp_{'a' * 36}}}\n", "looks like a secret"),
        (BARE + f"params: {{t: hf_{'a' * 30}}}\n", "looks like a secret"),
        (BARE + "data: {d: {}}\n", "needs a path or a uri"),
        (BARE + "data: {d: {uri: x}}\n", "has no scheme"),
        (BARE + "data: {d: {uri: 'https://u:p@h/'}}\n", "holds a password"),
        (BARE + "pass_params: env\nparams: {a: {b: 1}, a_b: 2}\n", "PARAM_A_B"),
        ("command: 'x \"y'\ncode: []\n", "cannot be split"),
        ("command: ''\ncode: []\n", "no word"),
        ("command: ${.params.c}\ncode: []\nparams: {c: python x.py}\n", "is one word"),
        ("- 1\n", ""),
        ("x\n", "neither a map nor a list"),
    ],
)
def test_what_a_job_cannot_say_is_refused(repo: Repo, text: str, expected: str) -> None:
    messages = said(repo, text)
    assert any(expected in message for message in messages), messages
    assert all(message.startswith("conf/") for message in messages)


def test_a_word_that_is_none_of_the_choices_is_mended_by_the_nearest_one(repo: Repo) -> None:
    said(repo, BARE + "sweep: {params: {a: '1,2'}, objective: {metric: x, goal: maximise}}\n")
    assert [error.hint for error in repo.errors()] == ["use maximize"]


def test_all_errors_of_all_jobs_are_given_at_once(repo: Repo) -> None:
    repo.commit(
        {
            "conf/job/a.yaml": "comand: x\ncode: [nope]\nresources: {cpus: x, gpus: -1}\n",
            "conf/job/b.yaml": "command: x\ncode: []\nparams: {a: ${x}}\n",
            "conf/job/c.yaml": "defaults: [/nope]\n",
            "conf/job/d.yaml": BARE,
        }
    )
    declared = repo.declared()
    assert [job.name for job in declared.jobs] == ["d"]
    assert {error.job for error in declared.errors} == {"a", "b", "c"}
    assert len([error for error in declared.errors if error.job == "a"]) == 5
    assert all(error.hint and error.file and error.line for error in declared.errors)
    assert "use command" in [error.hint for error in declared.errors]


def test_a_secret_is_never_repeated_in_an_error(repo: Repo) -> None:
    secret = "ghp_" + "b" * 36
    repo.job_file(BARE + f"params: {{t: {secret}}}\n")
    assert secret not in repr(repo.errors())


def test_a_backend_of_a_plug_in_is_known_by_its_name_alone(
    repo: Repo, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = tmp_path / "site" / "plug-1.dist-info"
    meta.mkdir(parents=True)
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1\n")
    (meta / "entry_points.txt").write_text("[espalier.backends]\nmoon = no_such_module:Backend\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    repo.job_file(BARE + "backend: {kind: moon, crater: 3}\n")
    assert repo.job().spec.backend == {"kind": "moon", "crater": 3}


# Names of jobs


def test_every_yaml_file_below_job_is_a_job_but_for_hidden_ones(repo: Repo) -> None:
    names = ["a", "deep/er/b", "_base", "deep/_c", ".hidden", "_dir/d", "deep/.x/e"]
    repo.commit({f"conf/job/{name}.yaml": BARE for name in names} | {"conf/job/readme.md": "x"})
    assert [job.name for job in repo.declared().jobs] == ["a", "deep/er/b"]
    assert [job.name for job in repo.declared("deep*").jobs] == ["deep/er/b"]
    assert repo.declared("nothing*").jobs == ()


def test_names_that_are_not_legal_or_differ_in_case_alone_are_errors(repo: Repo) -> None:
    repo.commit({f"conf/job/{name}.yaml": BARE for name in ("a b", "open", "x", "X", "é")})
    declared = repo.declared()
    assert [job.name for job in declared.jobs] == ["X"]
    assert sorted(error.job for error in declared.errors) == ["a b", "open", "x", "é"]


def test_maps_of_a_job_may_be_references_and_a_sweep_may_reach_into_them(repo: Repo) -> None:
    config = (repo.top / "conf/config.yaml").read_text()
    shared = """
shared:
  params: {a: 1, m: {b: "${..a}", c: "${job.params.lr}"}}
  env: {X: "${job.params.lr}", Y: y}
  data: {d: {uri: "gs://x", version: "1"}}
"""
    repo.commit({"conf/config.yaml": config + shared})
    repo.job_file(
        """
        command: x
        code: []
        params: ${shared.params}
        env: ${shared.env}
        data: ${shared.data}
        sweep: {params: {lr: "1,2", m.e: 5}}
        """
    )
    job = repo.job()
    assert job.spec.params == {"a": 1, "m.b": 1, "m.c": "${shared.params.m.c}"}
    assert job.spec.env == {"X": "${shared.env.X}", "Y": "y"}
    assert job.spec.context == {"shared.params.m.c": "${job.params.lr}", "shared.env.X": "${job.params.lr}"}
    assert job.spec.data["d"].uri == "gs://x"
    assert job.points[1].params == {"a": 1, "m.b": 1, "m.c": 2, "m.e": 5, "lr": 2}
    assert job.points[1].program is not None
    assert job.points[1].program.env == {"X": "2", "Y": "y"}


def test_the_schema_of_a_job_file_knows_every_key() -> None:
    import json

    from espalier.source.schema import JOB, json_schema

    schema = json.loads(json.dumps(json_schema()))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    there = {name for name, field in JOB.items() if not field.later}
    assert set(schema["properties"]) == there | {"defaults"}
    assert schema["required"] == ["command", "code"]
    assert schema["additionalProperties"] is False
    assert all(entry.get("description") for entry in schema["properties"].values())
    assert schema["properties"]["grace_s"]["default"] == 30.0


@pytest.mark.parametrize(
    ("text", "expected", "hint"),
    [
        ("defaults:\n  - /optim@params.optim: adm\n", "2: there is no optim/adm.yaml", "use adam"),
        (
            "defaults:\n  - optim@params.optim: adam\n",
            "2: there is no job/optim/adam.yaml",
            "begin it with /: `/optim`",
        ),
        ("x: 1\ndefaults:\n  - override /backend: vertex\n", "3: there is no backend/vertex.yaml", "there is: local"),
        ("defaults:\n  - override /optim: adam\n", "2: nothing in the defaults list is optim@job.optim", ""),
        (BARE + "params: {bb: 1, a: '${.b}'}\n", "3: params.a: there is no '.b'", "use ${.bb}"),
        (
            BARE + "params: {bb: 1, a: '${params.bb}'}\n",
            "3: params.a: there is no 'params.bb'",
            "there is 'job.params.bb'",
        ),
        (BARE + "params: {a: '${oc.selct:x}'}\n", "3: params.a: the resolver 'oc.selct'", "did you mean oc.select?"),
        ("# @package _global_\ncommand: x\ncode: []\n", "2: command stands beside `job:`", "indent the job"),
        ("command: x\ncode: src\n", "2: code is 'src', not a list of text", "write a list"),
        ("command: x\ncode: []\nresorces: {}\n", "3: unknown key 'resorces'", "use resources"),
        (BARE + "sweep: {params: {a: '1,2'}, metod: x}\n", "3: unknown key 'sweep.metod'", "use method"),
    ],
)
def test_an_error_names_the_line_and_the_nearest_that_there_is(repo: Repo, text: str, expected: str, hint: str) -> None:
    repo.job_file(text, conf__optim__adam="")
    repo.commit({"conf/optim/adam.yaml": "lr: 1\n"})
    found = [
        error
        for error in repo.errors()
        if f"conf/job/a.yaml:{error.line}" and expected in f"{error.line}: {error.message}"
    ]
    assert found, repo.errors()
    assert found[0].file == "conf/job/a.yaml"
    assert hint in found[0].hint
