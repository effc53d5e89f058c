"""Every word of the pages is in the catalogue, and nothing else is."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

import modelcloud.dashboard
from modelcloud.control.access.permissions import Level
from modelcloud.control.deployments.deployment_forms import StickyBody
from modelcloud.control.deployments.deployment_states import Status
from modelcloud.control.monitors.history import Outcome
from modelcloud.dashboard.words import Words, catalogue, language_of
from modelcloud.rollout.records import Kind, RolloutState
from modelcloud.types import DispatchPolicy, State

SOURCE = Path(modelcloud.dashboard.__file__).parent

#: Words that stand in records, and texts that are put together.
OF_RECORDS = {
    *(status.value for status in Status),
    *(state.value.replace("_", " ") for state in [*RolloutState, *State]),
    *(level.word for level in Level if level is not Level.NONE),
    *(f"may {level.word}" for level in (Level.READ, Level.MODIFY, Level.MANAGE)),
    *(policy.value.replace("_", " ") for policy in DispatchPolicy),
    *(kind.value for kind in Kind),
    *(outcome.value for outcome in Outcome),
    *get_args(StickyBody.model_fields["kind"].annotation),
    "ok", "refused",
}  # fmt: skip


def called(node: ast.Call) -> str:
    return ast.unparse(node.func).rpartition(".")[2]


def said() -> set[str]:
    """Every text that the code asks the words for."""
    found: set[str] = set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and called(node) in {"t", "words"} and node.args:
                for one in ast.walk(node.args[0]):
                    if isinstance(one, ast.Constant) and isinstance(one.value, str):
                        found.add(one.value)
            if isinstance(node, ast.Call) and called(node) == "many":
                text = ast.literal_eval(node.args[1])
                found |= {text, f"{text}s"}
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith("_WORDS"):
                found |= set(ast.literal_eval(node.value))
    return {text for text in found if text not in {"may ", "_", " ", "s"}}


def test_all_that_is_said_has_a_translation() -> None:
    assert sorted((said() | OF_RECORDS) - catalogue().keys()) == []


def test_no_translation_is_left_over() -> None:
    assert sorted(catalogue().keys() - said() - OF_RECORDS) == []


def test_a_translation_has_the_places_of_what_it_translates() -> None:
    for english, chinese in catalogue().items():
        assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", chinese)), english


def test_words_are_looked_up_and_filled() -> None:
    assert Words("en")("{count} versions", count=3) == "3 versions"
    assert Words("zh")("Services") == "服务"
    assert Words("zh")("{count} versions", count=3) == "3 个版本"
    assert Words("xx").language == "en"
    assert Words("zh")("not in the catalogue") == "not in the catalogue"


@pytest.mark.parametrize(
    ("cookie", "accepts", "language"),
    [
        ("zh", "en", "zh"), ("xx", "zh-CN,zh;q=0.9", "zh"), (None, "fr, en-GB", "en"),
        (None, "fr, zh", "zh"), (None, "", "en"), (None, "*", "en"),
    ],
)  # fmt: skip
def test_the_language_is_the_chosen_one_or_the_first_accepted(
    cookie: str | None, accepts: str, language: str
) -> None:
    assert language_of(cookie, accepts) == language
