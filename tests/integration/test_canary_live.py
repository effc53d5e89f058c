"""A canary of serve mode is judged by what real gateways counted, and goes on or back by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.server import Server, serve

MODEL = """
import modelcloud
from modelcloud.data_types import number, text

@modelcloud.setup(options={"word": text(default="one")})
def setup(options):
    return options["word"]

@modelcloud.command("ask", inputs={"n": number(default=1)}, outputs={"word": text})
def ask(word, inputs):
    if word == "bad":
        raise RuntimeError("this word is bad")
    return {"word": word}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for both: what a canary left behind is what the next one starts from."""
    model: Path = tmp_path_factory.mktemp("canary") / "model.py"
    model.write_text(MODEL, "utf-8")
    with serve(model, "--replicas", "1", "--gateways", "2") as started:
        yield started


@contextmanager
def asked(server: Server) -> Iterator[None]:
    """Clients ask all the while."""
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=60.0) as client:
            while not over.is_set():
                client.post(f"{server.url}/ask", json={})

    clients = [threading.Thread(target=ask) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        over.set()
        for client in clients:
            client.join()


def canary(server: Server, word: str) -> httpx.Response:
    steps = [{"percent": 20, "watch_s": 3}, {"percent": 60, "watch_s": 3}]
    strategy: dict[str, Any] = {"name": "canary", "steps": steps, "max_error_rate": 0.2}
    return server.post("/setup", {"options": {"word": word}, "strategy": strategy})


def test_a_canary_that_fails_too_often_goes_back_by_itself(server: Server) -> None:
    with asked(server):
        answer = canary(server, "bad")
    assert answer.status_code == 422, answer.text
    assert "answers were errors (the limit is 20.0%)" in answer.json()["error"]
    words = {server.post("/ask", {}).json()["word"] for _ in range(20)}
    assert words == {"one"}


def test_a_canary_that_answers_well_takes_over_and_says_what_it_was_judged_by(
    server: Server,
) -> None:
    with asked(server):
        answer = canary(server, "two")
    assert answer.status_code == 200, answer.text
    assert server.post("/ask", {}).json()["word"] == "two"
    log = server.get(f"/rollouts/{answer.json()['rollout']}").json()["log"]
    assert any("answers, 0.0% errors, p99 " in line for line in log), log
