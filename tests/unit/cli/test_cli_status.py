"""`status` shows what the server says, whatever it says."""

from __future__ import annotations

import pytest

from support.commands import Run
from support.fake_server import FakeServer

META = {
    "modelcloud": "1",
    "service": "fib",
    "version": 1,
    "generation": 3,
    "status": "RUNNING",
}
ROLLOUT = {
    "id": "r2",
    "kind": "update",
    "state": "rolled_back",
    "step": "loading",
    "to": {"generation": 2, "version": 2},
    "accepted_at": "2026-01-02T03:04:05.678+00:00",
    "reason": "a [bold]rollback[/bold] was asked for",
}


@pytest.fixture
def serving(server: FakeServer) -> FakeServer:
    server.on("GET", "/meta", (200, META))
    readiness = {"ready": True, "workers": {"ready": 2, "wanted": 2}, "reasons": []}
    server.on("GET", "/readyz", (200, readiness))
    server.on("GET", "/rollouts", (200, {"rollouts": [ROLLOUT] * 9}))
    return server


def test_what_serves_and_the_last_rollouts_are_shown(run: Run, serving: FakeServer) -> None:
    said = run("status", serving.url)
    assert (said.status, said.err) == (0, "")
    service, rollouts = said.out.splitlines()[1], said.out.splitlines()[3:]
    assert service.split() == ["fib", "1", "3", "2", "of", "2", "RUNNING"]
    assert len(rollouts) == 5
    assert "rolled back" in rollouts[0]
    assert "a [bold]rollback[/bold] was asked for" in rollouts[0]


def test_a_server_that_serves_nothing_yet_is_shown_with_the_reason(
    run: Run, serving: FakeServer
) -> None:
    nothing = {"version": None, "generation": None, "status": "INITIALIZING"}
    serving.on("GET", "/meta", (200, {**META, **nothing}))
    readiness = {"ready": False, "workers": {"ready": 0, "wanted": 2}}
    serving.on("GET", "/readyz", (503, {**readiness, "reasons": ["no worker is ready"]}))
    said = run("status", serving.url)
    assert said.status == 0, said.err
    assert "INITIALIZING" in said.out
    assert "no worker is ready" in said.out


def test_status_sends_the_token_and_changes_nothing(run: Run, serving: FakeServer) -> None:
    run("status", serving.url, "--token", "s3cret")
    assert {asked.authorization for asked in serving.asked} == {"Bearer s3cret"}
    assert serving.changes() == []


def test_without_the_token_all_but_the_rollouts_is_shown(run: Run, serving: FakeServer) -> None:
    serving.on("GET", "/rollouts", (401, {"error": "this needs the admin token"}))
    said = run("status", serving.url)
    assert said.status == 0
    assert "RUNNING" in said.out
    assert "rollouts: this needs the admin token" in said.out
