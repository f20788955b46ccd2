"""Commits, settings and what a repository is, read from real repositories of every kind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from espalier.core.content import digest
from espalier.core.errors import InputError, UnavailableError
from espalier.core.model import Commit
from espalier.source import git
from espalier.source.commit import GitSource
from espalier.source.git import Objects
from tests.contract.source.repository import CONFIG, Repo

BARE = "command: python x.py\ncode: []\n"


# Revisions


def test_a_revision_resolves_to_its_commit(repo: Repo) -> None:
    first = repo.commit({"a": "1\n"}, "First: ünï\n\nbody")
    repo.commit({"a": "2\n"}, "Second")
    repo.git("tag", "-a", "v1", "-m", "tagged", first)
    expected = Commit(first, "First: ünï", "Ada <ada@example.org>")
    for rev in ("v1", "HEAD~1", first, first[:10], "main^", f"{first}^{{commit}}"):
        assert repo.source.resolve(rev) == expected


@pytest.mark.parametrize(
    "rev",
    ["", "nope", "--all", "-h", "--output=/tmp/x", "HEAD:a", "HEAD^{tree}", "a\nb", "HEAD\0", "0" * 40, "HEAD..HEAD"],
)
def test_what_names_no_commit_is_refused(repo: Repo, rev: str) -> None:
    repo.commit({"a": "1\n"})
    with pytest.raises(InputError, match="names no commit") as raised:
        repo.source.resolve(rev)
    assert raised.value.hint


def test_no_commit_yet_says_so(repo: Repo) -> None:
    with pytest.raises(InputError, match="no commit yet"):
        repo.source.resolve("HEAD")


def test_a_folder_that_is_no_repository_says_so(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    with pytest.raises(InputError, match="not in a git repository"):
        GitSource(plain)
    with pytest.raises(InputError, match="not a folder"):
        GitSource(tmp_path / "absent")


def test_a_bare_repository_says_so(repo: Repo, tmp_path: Path) -> None:
    repo.commit()
    repo.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare.git"))
    with pytest.raises(InputError, match="bare repository"):
        GitSource(tmp_path / "bare.git")
    with pytest.raises(InputError, match="no working tree"):
        GitSource(repo.top / ".git")


def test_git_that_is_not_installed_says_so(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="git is not installed"):
        GitSource(repo.top)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_repository_of_another_user_says_how_to_trust_it(repo: Repo) -> None:
    repo.commit()
    os.chown(repo.top, 12345, 12345)
    os.chown(repo.top / ".git", 12345, 12345)
    with pytest.raises(InputError, match="belongs to another user") as raised:
        GitSource(repo.top)
    assert "safe.directory" in raised.value.hint


def test_a_folder_below_the_top_and_a_worktree_find_the_same_jobs(repo: Repo, tmp_path: Path) -> None:
    repo.job_file("command: x\ncode: ['src/*.py']\ndata: {d: {path: src}}\n", src__a="1\n")
    repo.commit({"src/a.py": "1\n"})
    repo.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "other"))
    (repo.top / "src/deep").mkdir()
    expected = repo.job()
    for place in (repo.top / "src/deep", tmp_path / "other", tmp_path / "other" / "conf"):
        source = GitSource(place)
        assert source.specs(source.resolve("HEAD")).jobs == (expected,)


def test_a_repository_of_sha256_works(tmp_path: Path) -> None:
    top = tmp_path / "repo"
    top.mkdir()
    repo = Repo(top)
    repo.git("init", "--quiet", "--object-format=sha256")
    repo.write({"conf/config.yaml": CONFIG, "conf/backend/local.yaml": "kind: local\n"})
    repo.job_file("command: x\ncode: ['s*']\n", src__a="1\n")
    assert len(repo.job().spec.code["src/a"]) == 64


def test_variables_that_steer_git_elsewhere_are_ignored(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.job_file("command: x\ncode: ['src/*']\n", src__a="1\n")
    expected = repo.job()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "1")
    source = GitSource(repo.top)
    assert source.specs(source.resolve("HEAD")).jobs == (expected,)


def test_planning_runs_no_hook_and_changes_nothing_in_the_repository(repo: Repo, tmp_path: Path) -> None:
    repo.job_file("command: x\ncode: ['src/*']\n", src__a="1\n")
    proof = tmp_path / "ran"
    for hook in ("post-index-change", "reference-transaction", "fsmonitor-watchman"):
        path = repo.top / ".git/hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {proof}\n")
        path.chmod(0o755)
    repo.git("config", "core.fsmonitor", str(repo.top / ".git/hooks/fsmonitor-watchman"))
    repo.git("config", "core.pager", f"touch {proof}")
    proof.unlink(missing_ok=True)

    def state() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(repo.top.rglob("*")) if path.is_file()}

    before = state()
    assert repo.job().spec.code
    repo.source.dirty()
    assert state() == before
    assert not proof.exists()


def test_a_replaced_object_is_not_what_was_committed(repo: Repo) -> None:
    repo.job_file("command: x\ncode: []\nparams: {a: 1}\n")
    old = repo.git("rev-parse", "HEAD:conf/job/a.yaml")
    repo.commit({"other.yaml": "command: x\ncode: []\nparams: {a: 2}\n"})
    repo.git("replace", old, repo.git("rev-parse", "HEAD:other.yaml"))
    assert repo.job().spec.params == {"a": 1}


def test_the_child_process_ends_and_a_missing_object_says_so(repo: Repo) -> None:
    commit = repo.commit({"big": "x" * 5000})
    with Objects(repo.top, commit) as objects:
        assert objects.read("conf/config.yaml", 10_000)
        with pytest.raises(InputError, match="larger than"):
            objects.read("big", 4096)
        assert objects.read("conf/config.yaml", 10_000)  # the stream is still in step
        with pytest.raises(UnavailableError, match="does not have the object"):
            objects.blob("0" * 40, 10)
        process = objects._process
    assert process is not None
    assert process.returncode == 0


def test_links_are_followed_inside_the_repository_only(repo: Repo) -> None:
    links = {"in": "->a/b", "up": "->a/../a", "out": "->../x", "abs": "->/etc", "loop": "->loop", "a/back": "->../in"}
    commit = repo.commit({**links, "a/b/c": "1\n"})
    with Objects(repo.top, commit) as objects:
        assert objects.real("in/c") == "a/b/c"
        assert objects.real("up/b/c") == "a/b/c"
        assert objects.real("a/back/c") == "a/b/c"
        assert objects.kind("in") == "tree"
        assert objects.kind("in/c") == "blob"
        assert objects.kind("in/d") is None
        for name in ("out", "abs", "loop", "out/x", "..", "a/../../x"):
            assert objects.real(name) is None
            assert objects.kind(name) is None


# Settings


def test_settings_have_the_defaults_of_the_example(repo: Repo) -> None:
    repo.commit()
    settings = repo.source.settings(repo.source.resolve("HEAD"))
    assert settings.project == "digits"
    assert settings.experiment == "${espalier.project}/${espalier.job}"
    assert settings.max_new_trials == 100


def test_settings_are_read_where_jobs_are_broken(repo: Repo) -> None:
    repo.commit(
        {"conf/config.yaml": CONFIG + "ledger: {remote: origin}\n", "conf/job/a.yaml": "x: [", "conf/job/b.yaml": "?"}
    )
    assert repo.source.settings(repo.source.resolve("HEAD")).ledger_remote == "origin"
    assert repo.declared().settings.ledger_remote == "origin"


def test_settings_may_come_from_groups_and_references(repo: Repo) -> None:
    repo.commit(
        {
            "conf/config.yaml": "defaults: [{team: ours}, {job: '???'}, _self_]\nproject: ${name}\nname: p\n",
            "conf/team/ours.yaml": "# @package _global_\ntracking: {uri: 'https://m.org'}\nlimits: {max_cost: 5}\n",
            "conf/job/a.yaml": "broken: [",
        }
    )
    settings = repo.source.settings(repo.source.resolve("HEAD"))
    assert (settings.project, settings.tracking_uri, settings.max_cost) == ("p", "https://m.org", 5.0)


def test_usual_settings_need_no_hydra(repo: Repo) -> None:
    repo.commit()
    program = (
        "import sys; from pathlib import Path; from espalier.source.commit import GitSource\n"
        f"source = GitSource(Path({str(repo.top)!r}))\n"
        "source.settings(source.resolve('HEAD'))\n"
        "print('hydra' in sys.modules)\n"
        "import espalier.source.git\n"
    )
    here = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=here, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("project: ''\n", "project is no name"),
        ("", "project is required"),
        ("project: p\ntracking: {url: x}\n", "unknown key 'tracking.url'"),
        ("project: p\nledger: {remote: 'https://u@evil/x'}\n", "credentials"),
        ("project: p\nledger: {remote: 'ssh://evil/x'}\n", "no name of a remote"),
        ("project: p\nledger: {remote: '--upload-pack=x'}\n", "no name of a remote"),
        ("project: p\nledger: {follow: '-x'}\n", "no branch"),
        ("project: p\ntracking: {uri: '${oc.env:SECRET}'}\n", "planning does not know"),
        ("project: p\ntracking: {uri: 'postgresql://u:p@h/db'}\n", "credentials"),
        ("project: p\nlimits: {max_new_trials: many}\n", "not a whole number"),
        ("project: ${now:%Y}\n", "the resolver 'now' is refused"),
    ],
)
def test_wrong_settings_name_file_and_line(repo: Repo, text: str, expected: str) -> None:
    repo.commit({"conf/config.yaml": text, "conf/job/a.yaml": BARE})
    with pytest.raises(InputError, match=expected) as raised:
        repo.source.settings(repo.source.resolve("HEAD"))
    assert raised.value.file == "conf/config.yaml"
    errors = repo.errors()
    assert [error for error in errors if not error.job and expected in error.message]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pyproject.toml", '[tool.espalier]\nconfig_dir = "settings/hydra"\nconfig_name = "main"\n'),
        ("espalier.toml", 'config_dir = "settings/hydra"\nconfig_name = "main"\n'),
    ],
)
def test_the_commit_says_where_its_config_is(repo: Repo, file: str, text: str) -> None:
    repo.commit(
        {
            file: text,
            "settings/hydra/main.yaml": "defaults: [{job: '???'}, _self_]\nproject: elsewhere\n",
            "settings/hydra/job/z.yaml": BARE,
        }
    )
    declared = repo.declared()
    assert declared.settings.project == "elsewhere"
    assert [job.name for job in declared.jobs] == ["z"]
    assert declared.jobs[0].origins["command"] == "settings/hydra/job/z.yaml:1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('config_dr = "x"\n', "espalier.toml:1: unknown key"),
        ('config_dir = "../x"\n', "no plain path"),
        ('config_dir = "."\n', "no plain path"),
        ('config_dir = "/etc"\n', "no relative path"),
        ("config_dir = 3\n", "no relative path"),
        ("config_dir = \n", "not valid TOML"),
        ('config_dir = "nowhere"\n', "nowhere/config.yaml"),
    ],
)
def test_a_wrong_layout_is_refused(repo: Repo, text: str, expected: str) -> None:
    repo.commit({"espalier.toml": text, "conf/job/a.yaml": BARE})
    with pytest.raises(InputError, match=expected):
        repo.source.settings(repo.source.resolve("HEAD"))


def test_a_commit_without_config_is_an_error_of_the_settings(repo: Repo) -> None:
    repo.commit({"conf/config.yaml": None, "conf/job/a.yaml": BARE})
    declared = repo.declared()
    assert not declared.jobs
    assert all("conf/config.yaml" in error.message and not error.job for error in declared.errors)


def test_the_paths_that_differ_from_head_are_named(repo: Repo) -> None:
    repo.commit({"a": "1\n", "b": "1\n", "c": "1\n"})
    assert repo.source.dirty() == []
    repo.write({"a": "2\n", "b": None, "ü n": "3\n", "new/x": "4\n"})
    repo.git("mv", "c", "d")
    assert repo.source.dirty() == ["a", "b", "c", "d", "new/", "ü n"]


def test_a_git_command_that_fails_is_told_in_one_line(repo: Repo) -> None:
    with pytest.raises(InputError) as raised:
        git.git(repo.top, "log", "nope")
    assert "\n" not in raised.value.message


# Keep: what cannot change what runs

KEPT = {
    "conf/job/a.yaml": """
        defaults:
          - /optim@params.optim: adam
          - _self_
        command: python x.py --w ${.params.w}
        code: [src]
        env: {A: "1", B: x}
        params:
          hidden: 64
          w: ${.optim.lr}
        sweep:
          params: {optim.wd: "choice(0.001,0.1)", b: "1,2"}
        resources: {cpus: 2}
        """,
    "conf/optim/adam.yaml": "lr: 1e-3\neps: 0.5\n",
    "src/x.py": "1\n",
}

EDITS: dict[str, dict[str, str | None]] = {
    "comments": {"conf/optim/adam.yaml": "# the usual\nlr: 1e-3 # small\neps: 0.5\n"},
    "order of keys, quotes and spelling of numbers": {
        "conf/optim/adam.yaml": "eps: 5e-1\nlr: 0.001\n",
        "conf/job/a.yaml": """
        defaults: [{/optim@params.optim: adam}, _self_]
        resources:
          cpus: 2.0
        sweep: {params: {b: "choice(1,2)", optim: {wd: "1e-3,0.1"}}}
        params: {w: "${.optim.lr}", 'hidden': 0x40}
        env: {B: 'x', A: 1}
        code:
          - "src"
        command: "python 'x.py' --w ${.params.w}"
        """,
    },
    "a default written out": {
        "conf/job/a.yaml": KEPT["conf/job/a.yaml"].rstrip(" ")
        + "        pass_params: flags\n        grace_s: 30\n        data: {}\n        secrets: []\n"
        + "        backend: local\n"
    },
    "a description and a policy": {
        "conf/job/a.yaml": KEPT["conf/job/a.yaml"].rstrip(" ")
        + "        description: new\n        policy: {retries: 3}\n        artifacts: {max_mb: 1}\n"
    },
    "a value moved between files": {
        "conf/optim/adam.yaml": "defaults: [more]\nlr: 1e-3\n",
        "conf/optim/more.yaml": "eps: 0.5\n",
    },
    "a group file renamed": {
        "conf/optim/adam.yaml": None,
        "conf/optim/adam2.yaml": KEPT["conf/optim/adam.yaml"],
        "conf/job/a.yaml": KEPT["conf/job/a.yaml"].replace("optim: adam", "optim: adam2"),
    },
    "other paths": {"README.md": "x\n", "src2/y.py": "2\n"},
    "another spelling of pathspecs": {"conf/job/a.yaml": KEPT["conf/job/a.yaml"].replace("[src]", "['s*/*.py', src]")},
    "a value by reference": {
        "conf/config.yaml": CONFIG + "shared: {eps: 0.5}\n",
        "conf/optim/adam.yaml": "lr: 1e-3\neps: ${shared.eps}\n",
    },
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_that_cannot_change_what_runs_keeps_the_digest(repo: Repo, edit: str) -> None:
    repo.commit(KEPT)
    before = repo.job()
    repo.commit(EDITS[edit])
    after = repo.job()
    assert digest(after.spec) == digest(before.spec)
    assert {repr(point) for point in after.points} == {repr(point) for point in before.points}


CHANGES: dict[str, dict[str, str | None]] = {
    "a parameter": {"conf/optim/adam.yaml": "lr: 1e-3\neps: 0.25\n"},
    "a parameter's type": {"conf/job/a.yaml": KEPT["conf/job/a.yaml"].replace("hidden: 64", "hidden: 64.0")},
    "the code": {"src/x.py": "2\n"},
    "a new file of the code": {"src/y.py": "1\n"},
    "the environment": {"conf/job/a.yaml": KEPT["conf/job/a.yaml"].replace("B: x", "B: y")},
    "a dependent": {"conf/job/a.yaml": KEPT["conf/job/a.yaml"].replace("w: ${.optim.lr}", "w: ${.optim.wd}")},
    "the space": {"conf/job/a.yaml": KEPT["conf/job/a.yaml"].replace('b: "1,2"', 'b: "1,2,3"')},
}


@pytest.mark.parametrize("edit", CHANGES)
def test_an_edit_that_changes_what_runs_changes_the_digest(repo: Repo, edit: str) -> None:
    repo.commit(KEPT)
    before = repo.job()
    repo.commit(CHANGES[edit])
    assert digest(repo.job().spec) != digest(before.spec)
