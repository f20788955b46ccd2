"""What is composed from git objects is what hydra.compose gives on a checkout."""
# ruff: noqa: E501 - a tree reads best with a file on a line

import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import hydra.version
import pytest
from hydra import compose, initialize_config_dir
from hydra._internal import defaults_list
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer

from espalier.core.errors import InputError
from espalier.source.compose import Composer, merge_exactly
from espalier.source.git import Objects
from tests.contract.source.repository import Repo

TREES: dict[str, dict[str, str]] = {
    "plain": {"conf/job/a.yaml": "x: 1\ny: {z: [1, 2, {w: null}]}\n"},
    "a primary without _self_": {
        "conf/config.yaml": "defaults:\n  - job: ???\nproject: p\njob: {x: 0}\n",
        "conf/job/a.yaml": "x: 1\n",
    },
    "_self_ first and last": {
        "conf/config.yaml": "defaults:\n  - _self_\n  - job: ???\njob: {x: 0, y: 0}\n",
        "conf/job/a.yaml": "defaults: [base, _self_]\nx: 1\n",
        "conf/job/base.yaml": "x: 2\nz: 3\n",
    },
    "override of a group": {
        "conf/optim/adam.yaml": "lr: 1\n",
        "conf/optim/sgd.yaml": "lr: 2\nmomentum: 0.9\n",
        "conf/config.yaml": "defaults:\n  - optim: adam\n  - job: ???\n  - _self_\n",
        "conf/job/a.yaml": "defaults:\n  - override /optim@_global_.optim: sgd\nx: ${optim.lr}\n",
    },
    "override of a group in a package": {
        "conf/backend/other.yaml": "kind: other\nn: 1\n",
        "conf/config.yaml": "defaults:\n  - backend@job.backend: local\n  - job: ???\n  - _self_\n",
        "conf/job/a.yaml": "defaults:\n  - override /backend: other\nx: 1\n",
    },
    "_global_ job file": {
        "conf/job/a.yaml": "# @package _global_\ndefaults:\n  - override /backend@job.backend: other\njob: {x: 1}\nshared: {y: 2}\n",
        "conf/backend/other.yaml": "kind: other\n",
    },
    "packages by header and by entry": {
        "conf/model/m.yaml": "# @package job.params.model\nwidth: 3\n",
        "conf/model/n.yaml": "# @package _group_\nwidth: 4\n",
        "conf/job/a.yaml": "defaults:\n  - /model: m\n  - /model@params.second: n\n  - /model@_global_.third: n\n  - /model@_here_: n\n",
    },
    "a header after a comment is none": {
        "conf/model/m.yaml": "# says nothing\n# @package _global_\nwidth: 3\n",
        "conf/job/a.yaml": "defaults: [/model/m]\n",
    },
    "optional": {
        "conf/model/m.yaml": "width: 3\n",
        "conf/job/a.yaml": "defaults:\n  - optional /model@m: m\n  - optional /model@n: absent\n  - optional /nowhere: x\n  - _self_\nx: 1\n",
    },
    "null, then chosen": {
        "conf/model/m.yaml": "width: 3\n",
        "conf/config.yaml": "defaults:\n  - model: null\n  - job: ???\n  - _self_\n",
        "conf/job/a.yaml": "# @package _global_\ndefaults:\n  - override /model: m\n",
    },
    "nested groups": {
        "conf/model/vit/small.yaml": "defaults:\n  - /act: relu\n  - head\n  - sub/deep@inner\nwidth: 3\n",
        "conf/model/vit/head.yaml": "classes: 10\n",
        "conf/model/vit/sub/deep.yaml": "d: 1\n",
        "conf/act/relu.yaml": "act: relu\n",
        "conf/job/a.yaml": "defaults:\n  - /model/vit@params.model: small\n",
    },
    "a list of group members": {
        "conf/callbacks/one.yaml": "one: {x: 1}\nshared: 1\n",
        "conf/callbacks/two.yaml": "two: {x: 2}\nshared: 2\n",
        "conf/job/a.yaml": "defaults:\n  - /callbacks@params.callbacks:\n    - one\n    - two\n",
    },
    "an overridden list of members": {
        "conf/callbacks/one.yaml": "one: {x: 1}\n",
        "conf/callbacks/two.yaml": "two: {x: 2}\n",
        "conf/config.yaml": "defaults:\n  - callbacks: [one]\n  - job: ???\n  - _self_\n",
        "conf/job/a.yaml": "# @package _global_\ndefaults:\n  - override /callbacks: [two, one]\n",
    },
    "an empty list of members": {
        "conf/callbacks/one.yaml": "one: {x: 1}\n",
        "conf/config.yaml": "defaults:\n  - callbacks: [one]\n  - job: ???\n  - _self_\n",
        "conf/job/a.yaml": "# @package _global_\ndefaults:\n  - override /callbacks: []\nx: 1\n",
    },
    "interpolated defaults": {
        "conf/model/vit.yaml": "name: vit\n",
        "conf/tuned/vit_adam.yaml": "lr: 7\n",
        "conf/optim/adam.yaml": "lr: 1\n",
        "conf/config.yaml": "defaults:\n  - optim: adam\n  - model: vit\n  - optional tuned: ${model}_${optim}\n  - job: ???\n  - _self_\n",
        "conf/job/a.yaml": "x: 1\n",
    },
    "search path inside the repository": {
        "conf/config.yaml": "defaults:\n  - optim: adam\n  - job: ???\n  - _self_\nhydra:\n  searchpath: [file://extra, more/conf]\n",
        "extra/optim/adam.yaml": "lr: 1\n",
        "extra/model/m.yaml": "from: extra\n",
        "more/conf/model/m.yaml": "from: more\n",
        "more/conf/act/relu.yaml": "act: relu\n",
        "conf/job/a.yaml": "defaults:\n  - /model@m: m\n  - /act@act: relu\n",
    },
    "hydra's own node": {
        "conf/config.yaml": "defaults:\n  - job: ???\n  - _self_\n  - override hydra/job_logging: none\nhydra: {run: {dir: out}}\nx: 1\n",
        "conf/job/a.yaml": "# @package _global_\ndefaults:\n  - override /hydra/hydra_logging: none\nx: 1\n",
    },
    "merging": {
        "conf/model/m.yaml": "a: {b: 1, c: [1, 2]}\nd: {e: 1}\nf: 1\ng: ???\nh: text\n",
        "conf/job/a.yaml": "defaults:\n  - /model@p: m\n  - _self_\np: {a: {b: {x: 1}, c: [3]}, d: null, f: '???', g: 2, h: {i: 1}}\n",
    },
    "merging over references": {
        "conf/model/m.yaml": "a: ${other}\nb: ${other.x}\nc: ${other}\n",
        "conf/config.yaml": "defaults:\n  - job: ???\n  - _self_\nother: {x: 1, y: {z: 2}}\n",
        "conf/job/a.yaml": "defaults:\n  - /model@p: m\n  - _self_\np: {a: {y: {z: 3}}, b: 5, c: null}\n",
    },
    "resolvers stay as written": {
        "conf/job/a.yaml": "x: ${now:%Y}\ny: ${oc.env:NOWHERE,3}\nz: ${my.own:1,${x}}\n",
    },
    "scalars of YAML 1.1": {
        "conf/job/a.yaml": "a: yes\nb: off\nc: 1e3\nd: 1_000\ne: 017\nf: 0x1f\ng: 12:30:45\nh: 2020-01-01\ni: .5\nj: y\nk: ~\nl: 1e-3\nm: !!str 5\nn: '1'\n1: int\ntrue: bool\n",
    },
    "anchors and merge keys": {
        "conf/job/a.yaml": "base: &b {x: 1, y: [1]}\nc: {<<: *b, y: 2}\nd: *b\ne: {<<: [{z: 1}, *b]}\n",
    },
    "unicode and windows line ends": {"conf/job/a.yaml": "näme: 'grün'\r\nx: |\r\n  one\r\n  two\r\n"},
    "links inside the repository": {
        "conf/optim/adam.yaml": "->../../shared/adam.yaml",
        "shared/adam.yaml": "lr: 5\n",
        "conf/linked": "->../shared",
        "conf/job/a.yaml": "defaults:\n  - /optim@o: adam\n  - /linked@p: adam\n",
    },
    "an empty file": {"conf/job/a.yaml": ""},
    "a file of comments": {"conf/job/a.yaml": "# nothing\n"},
    "names with dots and dashes": {
        "conf/job/a.yaml": "defaults:\n  - /g-1/sub.2@p: o.3-x\n",
        "conf/g-1/sub.2/o.3-x.yaml": "v: 1\n",
    },
    "relative parents": {"conf/job/a.yaml": "defaults:\n  - ../model/m@q\n", "conf/model/m.yaml": "w: 1\n"},
    "two packages of one file": {
        "conf/model/m.yaml": "w: 1\nv: ${.w}\n",
        "conf/job/a.yaml": "defaults:\n  - /model@one: m\n  - /model@two: m\n  - _self_\ntwo: {w: 3}\n",
    },
    "the same file twice": {
        "conf/job/a.yaml": "defaults: [base, /job/base, _self_]\n",
        "conf/job/base.yaml": "x: [1]\n",
    },
}

REFUSED: dict[str, dict[str, str]] = {
    "a missing option": {"conf/optim/adam.yaml": "lr: 1\n", "conf/job/a.yaml": "defaults: [{/optim: adm}]\n"},
    "an override of nothing": {"conf/job/a.yaml": "defaults: [{override /optim: adam}]\n"},
    "an override before others": {
        "conf/act/relu.yaml": "a: 1\n",
        "conf/job/a.yaml": "defaults:\n  - override /backend: local\n  - /act: relu\n",
    },
    "one group chosen twice": {
        "conf/optim/adam.yaml": "lr: 1\n",
        "conf/optim/sgd.yaml": "lr: 2\n",
        "conf/job/a.yaml": "defaults:\n  - /optim: adam\n  - /optim: sgd\n",
    },
    "_self_ twice": {"conf/job/a.yaml": "defaults: [_self_, _self_]\nx: 1\n"},
    "a list over a map": {"conf/job/a.yaml": "backend: [1]\n"},
    "a defaults list that is a map": {"conf/job/a.yaml": "defaults: {a: b}\n"},
    "an unclosed reference": {"conf/job/a.yaml": "x: ${a\n"},
    "a key twice": {"conf/job/a.yaml": "x: 1\nx: 2\n"},
    "files that include each other": {"conf/job/a.yaml": "defaults: [b]\n", "conf/job/b.yaml": "defaults: [a]\n"},
    "a group that must be chosen": {
        "conf/config.yaml": "defaults:\n  - optim: ???\n  - job: ???\n  - _self_\n",
        "conf/optim/adam.yaml": "lr: 1\n",
        "conf/job/a.yaml": "x: 1\n",
    },
    "a search path in a job": {"conf/job/a.yaml": "# @package _global_\nhydra: {searchpath: [file://x]}\n"},
    "a tag of Python": {"conf/job/a.yaml": "x: !!python/object/apply:os.getcwd []\n"},
}


def from_checkout(top: Path, job: str = "a") -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with initialize_config_dir(str(top / "conf"), version_base="1.3"):
            found = compose("config", overrides=[f"job={job}"])
    return OmegaConf.to_container(found, resolve=False)


def from_git(top: Path, commit: str, job: str = "a") -> Any:
    with Objects(top, commit) as objects:
        return Composer(objects, "conf", "config").compose(job).config


@pytest.mark.parametrize("name", TREES)
def test_a_commit_composes_to_what_hydra_gives_on_a_checkout(
    repo: Repo, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repo.commit(TREES[name])
    monkeypatch.chdir(repo.top)
    expected = from_checkout(repo.top)
    found = from_git(repo.top, commit)
    assert found == expected
    assert repr(found) == repr(expected)  # types and order too
    with Objects(repo.top, commit) as objects:
        exact = merge_exactly(list(Composer(objects, "conf", "config").compose("a").parts))
    assert repr(exact) == repr(expected)  # by OmegaConf itself, which the plain rule stands in for


@pytest.mark.parametrize("name", REFUSED)
def test_what_hydra_refuses_is_refused_with_a_place(repo: Repo, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = repo.commit(REFUSED[name])
    monkeypatch.chdir(repo.top)
    with pytest.raises(Exception):  # noqa: B017, PT011 - Hydra has many kinds
        from_checkout(repo.top)
    with pytest.raises(InputError) as raised:
        from_git(repo.top, commit)
    assert raised.value.file.startswith("conf/")
    assert raised.value.line
    assert raised.value.hint


def test_nested_jobs_compose_like_hydra(repo: Repo) -> None:
    commit = repo.commit(
        {
            "conf/job/vision/deep/a.yaml": "defaults: [/job/vision/_base, part]\nx: 1\n",
            "conf/job/vision/_base.yaml": "y: 2\n",
            "conf/job/part.yaml": "z: 3\n",
        }
    )
    assert from_git(repo.top, commit, "vision/deep/a") == from_checkout(repo.top, "vision/deep/a")


def test_composing_many_jobs_with_one_composer_equals_composing_each_alone(repo: Repo) -> None:
    files = {f"conf/optim/o{i}.yaml": f"lr: {i}\nnested: {{list: [{i}]}}\n" for i in range(3)}
    for i in range(6):
        files[f"conf/job/j{i}.yaml"] = f"defaults:\n  - /optim@o: o{i % 3}\n  - _self_\no: {{nested: {{x: {i}}}}}\n"
    commit = repo.commit(files)
    with Objects(repo.top, commit) as objects:
        composer = Composer(objects, "conf", "config")
        together = [composer.compose(f"j{i}").config for i in range(6)]
    assert together == [from_git(repo.top, commit, f"j{i}") for i in range(6)]


def test_a_launcher_that_is_not_installed_does_not_matter(repo: Repo) -> None:
    commit = repo.commit(
        {
            "conf/config.yaml": """
                defaults:
                  - job: ???
                  - _self_
                  - override hydra/launcher: submitit_slurm
                  - override hydra/job_logging: colorlog
                hydra:
                  launcher: {partition: gpu}
                  job: {env_copy: [NOT_SET]}
                """,
            "conf/job/a.yaml": "defaults:\n  - override /hydra/sweeper: optuna\nx: 1\n",
        }
    )
    assert from_git(repo.top, commit) == {"job": {"x": 1}}


def test_composing_leaves_nothing_global_behind(repo: Repo) -> None:
    commit = repo.commit({"conf/job/a.yaml": "x: ${b}\n", "conf/job/bad.yaml": "defaults: [nope]\n"})
    Singleton._instances.pop(hydra.version.VersionBase, None)
    before = (
        dict(Singleton._instances),
        BaseContainer._resolvers,
        dict(BaseContainer._resolvers),
        hydra.version._get_version,
        defaults_list._create_interpolation_map,
        os.getcwd(),
        dict(os.environ),
        list(sys.path),
        threading.active_count(),
    )
    with Objects(repo.top, commit) as objects:
        composer = Composer(objects, "conf", "config")
        composer.compose("a")
        with pytest.raises(InputError):
            composer.compose("bad")
    after = (
        dict(Singleton._instances),
        BaseContainer._resolvers,
        dict(BaseContainer._resolvers),
        hydra.version._get_version,
        defaults_list._create_interpolation_map,
        os.getcwd(),
        dict(os.environ),
        list(sys.path),
        threading.active_count(),
    )
    assert after == before
    assert after[1] is before[1]
    assert not GlobalHydra.instance().is_initialized()


def test_composing_reads_no_variable_of_the_environment(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAK", "leaked")
    commit = repo.commit(
        {
            "conf/model/m.yaml": 'x: ${oc.create:{u:"${oc.env:LEAK}"}}\ny: ${oc.env:LEAK}\n',
            "conf/job/a.yaml": "defaults:\n  - /model@p: m\n  - _self_\np: {x: {k: 2}, y: {k: 3}}\nz: ${oc.env:LEAK}\n",
        }
    )
    found = from_git(repo.top, commit)
    assert "leaked" not in repr(found)
    assert found["job"]["z"] == "${oc.env:LEAK}"


def test_a_resolver_is_never_called_while_composing(repo: Repo) -> None:
    called = []
    OmegaConf.register_new_resolver("called_while_composing", lambda *args: called.append(args))
    try:
        commit = repo.commit(
            {
                "conf/model/m.yaml": "x: ${called_while_composing:1}\n",
                "conf/job/a.yaml": "defaults:\n  - /model@p: m\n  - _self_\np: {x: 5}\n",
            }
        )
        assert from_git(repo.top, commit)["job"]["p"] == {"x": 5}
    finally:
        OmegaConf.clear_resolver("called_while_composing")
    assert not called


@pytest.mark.parametrize(
    "entry",
    ["//etc/passwd", "/../../outside", "../../../outside", "{/optim: ../../../outside}", "{/link: secret}"],
)
def test_a_default_outside_the_repository_is_refused(repo: Repo, entry: str, tmp_path: Path) -> None:
    (tmp_path / "outside.yaml").write_text("stolen: true\n")
    (tmp_path / "secret.yaml").write_text("stolen: true\n")
    commit = repo.commit({"conf/job/a.yaml": f"x: 1\ndefaults:\n  - {entry}\n", "conf/link": "->../.."})
    with pytest.raises(InputError, match=r"conf/job/a\.yaml:3: .*repository"):
        from_git(repo.top, commit)


@pytest.mark.parametrize(
    "entry", ["pkg://os", "structured://x", "/etc", "file:///etc", "../x", "${oc.env:HOME}", "file://${x}", "a/../../b"]
)
def test_a_search_path_outside_the_repository_is_refused(repo: Repo, entry: str) -> None:
    commit = repo.commit(
        {
            "conf/config.yaml": f"defaults:\n  - job: ???\nhydra:\n  searchpath: ['{entry}']\n",
            "conf/job/a.yaml": "x: 1\n",
        }
    )
    with pytest.raises(InputError, match=r"conf/config\.yaml:4: "):
        from_git(repo.top, commit)


@pytest.mark.parametrize("option", ["${oc.env:HOME}", "x_${oc.decode:1}", "${${a}:b}"])
def test_a_resolver_in_a_defaults_list_is_refused(repo: Repo, option: str) -> None:
    commit = repo.commit({"conf/job/a.yaml": f"defaults:\n  - /optim: '{option}'\n"})
    with pytest.raises(InputError, match=r"conf/job/a\.yaml:2: .*resolver"):
        from_git(repo.top, commit)
