"""`update` and `rollback` ask once, follow the rollout, and end as it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from modelcloud.cli import follow
from modelcloud.cli.update import typed
from support.commands import Run
from support.fake_server import HANG_UP, FakeServer

OPTIONS = [{"name": "model", "type": "text"}, {"name": "n", "type": "number"}]


def rollout(state: str, step: str, percent: int, **more: Any) -> tuple[int, dict[str, Any]]:
    """The answer to GET /rollouts/r2."""
    record = {
        "id": "r2",
        "kind": "update",
        "state": state,
        "step": step,
        "percent": percent,
        "reason": "",
        "from": {"generation": 1, "version": 1},
        "to": {"generation": 2, "version": 1},
        "workers": [
            {"id": 1, "generation": 1, "version": 1, "state": "serving"},
            {"id": 2, "generation": 2, "version": 1, "state": step},
        ],
        "log": [],
    }
    return 200, {**record, **more}


SUCCESS = [
    rollout("pending", "pending", 0, workers=[]),
    rollout("running", "loading", 30),
    rollout("running", "loading", 30),
    rollout("succeeded", "serving", 100),
]


@pytest.fixture(autouse=True)
def accepting(server: FakeServer) -> None:
    accepted = (202, {"success": True, "rollout": "r2"})
    server.on("GET", "/meta", (200, {"modelcloud": "1", "options": OPTIONS}))
    server.on("POST", "/setup?wait=false", accepted)
    server.on("POST", "/rollback?wait=false", accepted)
    server.on("GET", "/rollouts/r2", *SUCCESS)


def test_an_update_is_followed_to_its_end_a_line_for_each_change(
    run: Run, server: FakeServer
) -> None:
    said = run("update", server.url, "-o", "model=1", "-o", "n=2.5")
    assert said.status == 0, said.err
    assert said.out.splitlines() == [
        "pending 0 %",
        "loading 30 % v1.1: 1 serving, v1.2: 1 loading",
        "serving 100 % v1.1: 1 serving, v1.2: 1 serving",
        "now serving version 1, generation 2",
    ]
    (change,) = server.changes()
    assert change.body == {"options": {"model": "1", "n": 2.5}}


def test_the_share_of_a_candidate_is_told_while_both_answer(run: Run, server: FakeServer) -> None:
    server.on(
        "GET", "/rollouts/r2",
        rollout("running", "loading", 30, share=0.0, workers=[]),
        rollout("running", "checking", 45, share=20.0, workers=[]),
        rollout("running", "serving", 95, share=100.0, workers=[]),
        rollout("succeeded", "serving", 100, share=None, workers=[]),
    )  # fmt: skip
    assert run("update", server.url).out.splitlines()[:-1] == [
        "loading 30 %",
        "checking 45 % (20 % of requests)",
        "serving 95 %",
        "serving 100 %",
    ]


def test_what_an_update_waits_for_is_told(run: Run, server: FakeServer) -> None:
    pending = rollout("pending", "pending", 0, reason="waits for rollout r1", workers=[])
    server.on("GET", "/rollouts/r2", pending, SUCCESS[-1])
    assert run("update", server.url).out.startswith("pending 0 % waits for rollout r1\n")


def test_an_update_carries_artifact_strategy_and_token(
    run: Run, server: FakeServer, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    said = run(
        "update", server.url, "--artifact", "v2", "--strategy", "rolling", "--max-surge", "1",
        "--token-file", str(token), "--no-wait",
    )  # fmt: skip
    assert said.status == 0, said.err
    assert said.out == f"rollout r2 accepted; modelcloud status {server.url} shows it\n"
    (change,) = server.changes()
    assert change.authorization == "Bearer s3cret"
    assert change.body == {
        "options": {},
        "artifact": "v2",
        "strategy": {"name": "rolling", "max_surge": 1, "max_unavailable": 1},
    }


def test_a_rollback_is_followed_too(run: Run, server: FakeServer) -> None:
    said = run("rollback", server.url)
    assert said.status == 0, said.err
    assert [asked.path for asked in server.changes()] == ["/rollback?wait=false"]


def test_a_rollback_that_calls_a_running_rollout_off_succeeds(run: Run, server: FakeServer) -> None:
    server.on("GET", "/rollouts/r2", SUCCESS[1], rollout("rolled_back", "loading", 40))
    said = run("rollback", server.url)
    assert said.status == 0, said.err
    assert said.out.splitlines()[-1] == "now serving version 1, generation 1"


@pytest.mark.parametrize("state", ["failed", "superseded", "rolled_back"])
def test_a_rollout_that_does_not_succeed_ends_in_1_with_its_reason_and_log(
    run: Run, server: FakeServer, state: str
) -> None:
    failed = rollout(state, "loading", 40, reason="setup raised KeyError", log=["Traceback …"])
    server.on("GET", "/rollouts/r2", SUCCESS[1], failed)
    said = run("update", server.url)
    assert said.status == 1
    assert "Traceback …" in said.out
    assert said.err.startswith("modelcloud: update r2 ")
    assert said.err.endswith("(loading): setup raised KeyError\n")
    assert said.err.count("\n") == 1


def test_a_connection_lost_while_following_is_made_again(run: Run, server: FakeServer) -> None:
    server.on("GET", "/rollouts/r2", SUCCESS[1], HANG_UP, HANG_UP, SUCCESS[-1])
    said = run("update", server.url)
    assert said.status == 0, said.err
    assert len(server.changes()) == 1


def test_a_server_that_stays_silent_is_given_up(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PATIENCE_S", 0.05)
    server.on("GET", "/rollouts/r2", HANG_UP)
    said = run("update", server.url)
    assert said.status == 1
    assert said.err.startswith(f"modelcloud: no answer from {server.url}")


@pytest.mark.parametrize(("status", "exit_status"), [(400, 2), (401, 1), (403, 1), (409, 1)])
def test_a_refused_update_says_the_servers_words(
    run: Run, server: FakeServer, status: int, exit_status: int
) -> None:
    server.on("POST", "/setup?wait=false", (status, {"error": "n: got 'x'; accepted: a number"}))
    said = run("update", server.url, "--option", "n=x")
    assert said == (exit_status, "", "modelcloud: n: got 'x'; accepted: a number\n")


def test_nothing_listening_is_one_line_and_1(run: Run) -> None:
    said = run("update", "http://127.0.0.1:1")
    assert said.status == 1
    assert said.err.startswith("modelcloud: no answer from http://127.0.0.1:1")
    assert said.err.count("\n") == 1


def test_a_terminal_gets_a_bar(server: FakeServer) -> None:
    from modelcloud.client import Client

    console = Console(force_terminal=True, width=120, record=True)
    with Client(server.url) as client:
        follow.follow(client, "r2", console)
    shown = console.export_text()
    assert "100 %" in shown
    assert "v1.2: 1 serving" in shown


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("[1, 2]", [1, 2]), ("true", True), ("null", None), ('"a"', "a"), ("a b", "a b"),
     ("NaN", "NaN"), ("[" * 100_000, "[" * 100_000)],
)  # fmt: skip
def test_an_option_that_is_no_text_is_read_as_json_where_it_is_json(text: str, value: Any) -> None:
    assert typed({"n": text}, OPTIONS) == {"n": value}
    assert typed({"model": text}, OPTIONS) == {"model": text}


def test_an_option_of_choices_is_the_choice_that_is_written_like_it() -> None:
    described = [{"name": "c", "type": "category", "oneOf": ["true", 3]}]
    assert typed({"c": "3"}, described) == {"c": 3}
    assert typed({"c": "true"}, described) == {"c": "true"}
    assert typed({"c": "else"}, described) == {"c": "else"}
