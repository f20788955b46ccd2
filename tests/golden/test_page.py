"""The pages of runs, as reviewed files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.content import Change
from espalier.core.model import Best, Counts, Objective, Spec, Sweep, Trial, Version
from espalier.core.ports import Subject
from espalier.tracking import page

HERE = Path(__file__).parent / "tracking"
V2 = Version(
    job="digits/mlp",
    line=None,
    version=2,
    parent=1,
    base=None,
    digest="b" * 64,
    scheme=1,
    commit="2" * 40,
    subject="Start",
    author="Ada Lovelace <ada@example.invalid>",
    actor="ada",
    reason="changed",
    created_at="2026-01-01T00:00:00Z",
    backend="local",
    state="succeeded",
    best=Best("0123456789ab", "val_accuracy", 0.95),
    objective=Objective("val_accuracy", "maximize"),
    run_id="f" * 32,
)
V3 = replace(
    V2,
    version=3,
    parent=2,
    digest="c" * 64,
    commit="3" * 40,
    subject="Raise the *hidden* size [see](http://evil.example) | `x`",
    best=Best("1f0c9a2e4b5d", "val_accuracy", 0.97),
    counts=Counts(total=4, succeeded=2, failed=1, reused=1),
    run_id=None,
)
SPEC = Spec(
    command=("python", "experiments/digits/train.py", "--note", "it's: #1"),
    code={"experiments/digits/train.py": "a" * 40},
    env={"OMP_NUM_THREADS": "1"},
    params={"hidden": 96, "optim.lr": 1e-05, "name": "yes", "deep": True, "none": None, "layers": [64, 64]},
    sweep=Sweep(params={"optim.lr": (0.1, 0.01)}, objective=Objective("val_accuracy", "maximize")),
)
CHANGES = (
    Change("code.experiments/digits/train.py", "a" * 40, "b" * 40),
    Change("params.hidden", 64, 96, "conf/job/digits/mlp.yaml:12"),
    Change("params.name", None, "a ``` fence\nand | a pipe <script>", "conf/job/digits/mlp.yaml:13"),
    Change("sweep.params.optim.lr", [0.1], [0.1, 0.01], "conf/job/digits/mlp.yaml:15"),
)
TRIAL = Trial("1f0c9a2e4b5d", {"optim.lr": 0.01, "hidden": 96, "layers": [64, 64]}, "c", "s", "queued", 1)
WHOLE = Subject(
    key="1" * 40,
    ledger_id="11111111-2222-3333-4444-555555555555",
    experiment="digits/digits/mlp",
    version=V3,
    spec=SPEC,
    parent=V2,
    changes=CHANGES,
    description="A small MLP",
    repository="git@github.com:ada/digits.git",
    swept=("optim.lr", "hidden"),
)
FIRST = replace(
    WHOLE,
    version=replace(V2, version=1, parent=None, best=None),
    parent=None,
    changes=(),
    repository="",
    description="",
)
SIDE = replace(
    WHOLE,
    version=replace(V3, line="lr-scan", version=1, parent=None, base="digits/mlp@v2", official=False),
    repository="ssh://git@gitlab.example:2222/team/digits.git",
)
CHILD = replace(WHOLE, trial=TRIAL)
REUSED = replace(CHILD, trial=replace(TRIAL, state="reused", attempt=0, reused_from="digits/mlp@v2/1f0c9a2e4b5d"))
FAILED = replace(CHILD, trial=replace(TRIAL, state="failed", exit_code=1, message="ValueError: *boom*"))
ALONE = replace(WHOLE, spec=replace(SPEC, sweep=None), trial=TRIAL, swept=())
SUBJECTS = {
    "whole": WHOLE,
    "first": FIRST,
    "side": SIDE,
    "child": CHILD,
    "reused": REUSED,
    "failed": FAILED,
    "alone": ALONE,
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_run_shows_what_the_file_says(name: str, golden: Callable[[Path, str], None]) -> None:
    subject = SUBJECTS[name]
    state = subject.trial.state if subject.trial else subject.version.state
    strays = [("loud-fox-1", "e" * 32)] if name == "whole" else []
    tags = page.tags(subject, version_run="a" * 32, parent_version_run="f" * 32)
    shown = [
        f"name: {page.run_name(subject)}",
        f"status: {page.status_of(state)}",
        "tags:",
        *(f"  {key}: {value}" for key, value in sorted(tags.items())),
        "params:",
        *(f"  {key}: {value}" for key, value in sorted(page.params(subject).items())),
        "note:",
        page.note(subject, state, strays),
    ]
    golden(HERE / f"{name}.txt", "\n".join(shown) + "\n")


def test_the_difference_is_a_page_of_its_own(golden: Callable[[Path, str], None]) -> None:
    golden(HERE / "diff.md", page.diff_page(WHOLE))


def test_the_spec_is_a_page_of_its_own(golden: Callable[[Path, str], None]) -> None:
    golden(HERE / "spec.yaml", page.spec_page(SPEC))


def test_a_long_name_is_cut_and_ends_with_the_id() -> None:
    long = replace(CHILD, trial=replace(TRIAL, params={"optim.lr": "x" * 200, "hidden": 96}))
    name = page.run_name(long)
    assert len(name) == page.NAME_MAX
    assert name.startswith("v3 optim.lr=xxx")
    assert name.endswith("… 1f0c9a2e4b5d")


def test_a_long_note_is_cut_visibly() -> None:
    many = replace(WHOLE, changes=[Change(f"params.{n}", "a" * 200, "b" * 200) for n in range(100)])
    assert len(page.note(many, "succeeded")) <= 8000
    assert "75 more in" in page.note(many, "succeeded")
    assert page.note(replace(WHOLE, description="a" * 9000), "succeeded").endswith("(cut)")


def test_secret_shapes_are_masked_everywhere() -> None:
    token = "ghp_" + "a" * 36
    leaky = replace(
        WHOLE, description=token, changes=[Change("env.T", None, token)], version=replace(V3, subject=token)
    )
    for shown in (
        page.note(leaky, "succeeded"),
        page.diff_page(leaky),
        page.spec_page(replace(SPEC, env={"T": token})),
    ):
        assert token not in shown
        assert "***" in shown or "\\*\\*\\*" in shown


@pytest.mark.parametrize(
    ("repository", "link"),
    [
        ("https://github.com/a/b.git", "https://github.com/a/b/commit/c"),
        ("git@github.com:a/b.git", "https://github.com/a/b/commit/c"),
        ("ssh://git@gitlab.com:22/a/b", "https://gitlab.com/a/b/-/commit/c"),
        ("https://bitbucket.org/a/b", "https://bitbucket.org/a/b/commits/c"),
        ("/srv/git/b.git", ""),
        ("file:///srv/b", ""),
        ("https://host/a)b(", ""),
        ("C:/repos/b", ""),
        ("", ""),
    ],
)
def test_a_commit_is_linked_where_its_host_is_known(repository: str, link: str) -> None:
    assert page.commit_url(repository, "c") == link


@given(st.text(max_size=60))
def test_no_value_leaves_its_code_span(value: str) -> None:
    span = page.code(value)
    fence = span[: len(span) - len(span.lstrip("`"))]
    inner = span[len(fence) : -len(fence)]
    assert span.endswith(fence)
    assert "\n" not in span
    assert fence not in inner.replace("`" * (len(fence) + 1), "")
    assert not inner.startswith("`")
    assert not inner.endswith("`")


def test_ordinary_text_stays_readable() -> None:
    for value in ("Raise hidden_size to 64 (R&D)", "fix: a -> b, v1.2", "c|d > e"):
        assert page.text(value) == value
    shown = {"_a_": "\\_a\\_", "- x": "\\- x", "1. x": "1\\. x", "&lt;": "\\&lt;", "https://x": "https\\://x"}
    assert {value: page.text(value) for value in shown} == shown


@given(st.text(max_size=60))
def test_no_text_opens_a_tag_a_link_or_a_line(value: str) -> None:
    shown = page.text(value)
    assert "\n" not in shown
    bare = shown.replace("\\\\", "")
    for character in "`*[]<~":
        assert bare.count(character) == bare.count("\\" + character)
