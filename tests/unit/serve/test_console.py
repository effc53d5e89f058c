"""What the terminal shows can be pasted, and says each step once."""

from __future__ import annotations

import shlex
from typing import Any

import msgspec
import pytest

from modelcloud.config import ServeConfig
from modelcloud.rollout.records import Kind, Rollout, RolloutState
from modelcloud.serve.console import Narrator, banner, update_example, url_of
from modelcloud.types import GenerationSpec, State, StrategySpec
from support.serving import SIGNATURE

COMMANDS = SIGNATURE.to_dict()["commands"]
OPTIONS = [{**option, "value": option["default"]} for option in SIGNATURE.to_dict()["options"]]


def words(lines: list[str], name: str) -> list[str]:
    """The shell's words of the command on the line that begins with `name`."""
    line = next(line for line in lines if line.split()[:1] == [name])
    return shlex.split(line)[1:]


def test_the_commands_can_be_pasted_as_they_are() -> None:
    lines = banner(ServeConfig(target="m.py", port=5001), COMMANDS, OPTIONS)
    assert lines[0] == "Serving at http://127.0.0.1:5001"
    curl, address, flag, body = words(lines, "predict")
    assert (curl, address, flag) == ("curl", "http://127.0.0.1:5001/fib", "-d")
    assert msgspec.json.decode(body) == {"n": 0, "note": ""}
    assert words(lines, "update") == [
        "curl", "http://127.0.0.1:5001/setup", "-d", '{"model": "small"}',
    ]  # fmt: skip
    assert words(lines, "docs") == ["http://127.0.0.1:5001/redoc"]


def test_a_token_is_asked_of_the_environment_and_never_shown() -> None:
    config = ServeConfig(target="m.py", admin_token="canary")
    text = "\n".join(banner(config, COMMANDS, OPTIONS))
    assert "canary" not in text
    assert '-H "Authorization: Bearer $MODELCLOUD_ADMIN_TOKEN"' in text


def test_quotes_in_an_example_survive_the_shell() -> None:
    command = {**COMMANDS[0], "example": {"say": 'it\'s "so"'}}
    *_, body = words(banner(ServeConfig(target="m.py"), [command], []), "predict")
    assert msgspec.json.decode(body) == {"say": 'it\'s "so"'}


def test_an_example_too_long_for_a_terminal_is_left_out() -> None:
    command = {**COMMANDS[0], "example": {"picture": "x" * 10_000}}
    assert words(banner(ServeConfig(target="m.py"), [command], []), "predict") == [
        "curl", "http://127.0.0.1:8080/fib",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "url"),
    [
        ({"host": "0.0.0.0"}, "http://127.0.0.1:8080"),
        ({"host": "::"}, "http://[::1]:8080"),
        ({"host": "model.internal", "tls_cert": "c", "port": 443}, "https://model.internal:443"),
    ],
)
def test_the_address_is_one_that_can_be_reached_from_here(config: dict[str, Any], url: str) -> None:
    assert url_of(ServeConfig(target="m.py", **config)) == url


@pytest.mark.parametrize(
    ("options", "example"),
    [
        ([], {}),
        ([{"name": "a", "type": "text", "value": "x"}], {"a": "x"}),
        ([{"name": "a", "type": "text", "value": "x" * 1000}], {}),
        (
            [{"name": "a", "type": "text", "value": "x"},
             {"name": "b", "type": "boolean", "value": True}],
            {"b": False},
        ),
        ([{"name": "c", "type": "category", "oneOf": ["p", "q"], "value": "q"}], {"c": "p"}),
    ],
)  # fmt: skip
def test_the_update_shown_changes_something_where_that_is_evident(
    options: list[dict[str, Any]], example: dict[str, Any]
) -> None:
    assert update_example(options) == example


def rollout(kind: Kind = Kind.UPDATE) -> Rollout:
    spec = GenerationSpec(
        service="s", generation=4, version=2, target="m.py", snapshot="", digest=""
    )
    return Rollout(
        id="3", service="s", kind=kind, strategy=StrategySpec(), target=spec, accepted_at=0.0,
        state=RolloutState.RUNNING,
    )  # fmt: skip


def test_each_step_is_said_once_and_then_the_end() -> None:
    said: list[str] = []
    update = rollout()
    narrator = Narrator(said.append, lambda: [update])
    for step in (State.PENDING, State.LOADING, State.LOADING, State.WARMING, State.SERVING):
        update.step = step
        narrator.look()
    update.state = RolloutState.SUCCEEDED
    narrator.look()
    narrator.finished(update)
    assert said == [
        "Update 3: loading", "Update 3: warming", "Update 3: version 2, generation 4 serves",
    ]  # fmt: skip


def test_a_failure_is_said_with_its_reason() -> None:
    said: list[str] = []
    update = rollout()
    update.state, update.reason = RolloutState.ROLLED_BACK, "rolled back on request"
    Narrator(said.append, list).finished(update)
    assert said == ["Update 3: rolled back: rolled back on request"]


def test_of_the_first_rollout_only_the_steps_are_said() -> None:
    said: list[str] = []
    first = rollout(Kind.INITIAL)
    narrator = Narrator(said.append, lambda: [first])
    first.step = State.LOADING
    narrator.look()
    first.state = RolloutState.FAILED
    narrator.finished(first)
    assert said == ["  loading"]
