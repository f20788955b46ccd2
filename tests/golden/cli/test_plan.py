"""What a person, a script and a pull request see of a plan."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from espalier.cli.views.markdown import LIMIT
from espalier.cli.views.plan import plan_json, plan_markdown, plan_text
from espalier.cli.views.style import Style
from tests.golden.cli.values import full_plan, hostile_plan, quiet_plan

TEXTS = Path(__file__).parent / "texts"
Golden = Callable[[Path, str], None]

PLANS = {
    "full": full_plan(),
    "quiet": quiet_plan(),
    "many_unchanged": quiet_plan(200),
    "hostile": hostile_plan(),
    "empty": quiet_plan(0),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_reads_as_it_was_reviewed(golden: Golden, name: str) -> None:
    golden(TEXTS / f"plan_{name}.txt", plan_text(PLANS[name]) + "\n")


def test_colours_change_no_letter_of_a_plan(golden: Golden) -> None:
    text = plan_text(full_plan(), Style(colour=True))
    assert re.sub(r"\x1b\[\d+m", "", text) == plan_text(full_plan())
    assert text != plan_text(full_plan())


@pytest.mark.parametrize("name", ["full", "quiet", "hostile"])
def test_a_plan_in_json_is_the_contract(golden: Golden, name: str) -> None:
    golden(TEXTS / f"plan_{name}.json", plan_json(PLANS[name]) + "\n")


@pytest.mark.parametrize("name", ["full", "quiet", "hostile"])
def test_a_plan_in_markdown_reads_as_it_was_reviewed(golden: Golden, name: str) -> None:
    golden(TEXTS / f"plan_{name}.md", plan_markdown(PLANS[name]) + "\n")


def test_the_json_has_every_key_of_the_contract() -> None:
    tree = json.loads(plan_json(full_plan()))
    assert list(tree) == ["format", "commit", "ledger", "ledger_id", "actions", "summary", "errors"]
    assert set(tree["actions"][0]) >= {
        *("action", "job", "line", "version", "parent", "digest", "reason", "changes", "trials"),
    }
    assert tree["summary"] == {"create": 1, "revise": 2, "retry": 1, "resume": 1, "retire": 1, "keep": 1}
    assert set(tree["actions"][0]["trials"]) == {"total", "reused", "waiting", "run", "cancel"}


@pytest.mark.parametrize("plan", [hostile_plan(3000, 3), hostile_plan(2, 3000), quiet_plan(20_000)])
def test_a_page_keeps_within_the_hosts_limit_and_closes_what_it_opens(plan: object) -> None:
    page = plan_markdown(plan)  # type: ignore[arg-type]
    assert len(page) <= LIMIT
    assert page.count("<details>") == page.count("</details>")
    assert page.count("```") == 0
    assert "plan `" in page.splitlines()[-1]


def test_a_page_lets_no_markup_of_the_config_through() -> None:
    page = plan_markdown(hostile_plan())
    for mark in ("@everyone", "<img", "](http", "\x1b", "**b**", "http://"):
        assert mark not in page


def test_a_thousand_unchanged_jobs_are_counted_and_those_that_need_a_person_are_named() -> None:
    text = plan_text(quiet_plan(1000))
    assert text == "1000 unchanged"
    quiet = quiet_plan(1000)
    failed = replace(quiet.actions[500], reason="failed (exit code 1); espalier retry job00500@v1 to try again")
    mixed = replace(quiet, actions=(*quiet.actions[:500], failed, *quiet.actions[501:]))
    assert plan_text(mixed).splitlines()[0] == f"= job00500  v1  {failed.reason}"
    assert len(plan_text(quiet_plan(1000), every=True).splitlines()) == 1002
