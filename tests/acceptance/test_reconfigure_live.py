"""In serve mode: options that a model takes while it serves, by `POST /setup`."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.load import failures, load, steady
from support.server import serve

pytestmark = pytest.mark.xdist_group("acceptance")

#: Calls are on several threads, and take the time that is asked for.
BACKEND = """
import os, threading, time

class Said:
    def __init__(self, model_path):
        self.word = "none"
        self.running = 0
        self.lock = threading.Lock()
        self._model_init()

    def _model_init(self):
        pass

    def _model_inference(self, param_dict):
        with self.lock:
            self.running += 1
        before = self.word
        time.sleep(param_dict.get("s", 0))
        with self.lock:
            self.running -= 1
        assert self.word == before
        return {"pid": os.getpid(), "word": before}

    def reconfigure(self, config):
        if self.running:
            raise RuntimeError(f"{self.running} requests are running")
        self.word = config["word"]
        if self.word == "slow":
            time.sleep(0.3)
        if self.word == "bad":
            raise ValueError("not this word")
"""


def test_calls_that_run_end_before_and_those_that_come_are_answered_after(tmp_path: Path) -> None:
    (tmp_path / "backend.py").write_text(BACKEND)
    with serve(tmp_path, "--threads", "3", "--replicas", "2") as server:
        meta = server.client.get(f"{server.url}/meta").json()
        assert [(one["name"], one["light"]) for one in meta["options"]] == [("config", True)]

        def ask() -> dict[str, object]:
            answer = server.client.post(f"{server.url}/predict", json={"s": 0}).json()
            assert answer["status"] == 1, answer
            found: dict[str, object] = answer["result"]
            return found

        def change(word: str) -> dict[str, object]:
            answer = server.client.post(f"{server.url}/setup", json={"config": {"word": word}})
            said: dict[str, object] = answer.json()
            return said

        pids = server.pids("worker")
        with load(server.port, "/predict", {"s": 0.05}, rate=40.0) as running:
            steady(running)
            for word in ("a", "slow", "b"):
                change(word)
                assert (ask()["word"], server.pids("worker")) == (word, pids)
            steady(running)
            refused = change("bad")
            assert "not this word" in str(refused)
            steady(running)
            assert (ask()["word"], server.pids("worker")) == ("b", pids)
        assert failures(running.samples) == []
        assert {sample.generation for sample in running.samples} == {1}
        assert all(sample.answer == 1 for sample in running.samples), "each is a status of 1"
        (option,) = server.client.get(f"{server.url}/meta").json()["options"]
        assert option["value"] == {"word": "b"}
        server.client.post(f"{server.url}/rollback")
        assert ask()["word"] == "slow"
        (tmp_path / "backend.py").write_text(BACKEND + "\n# edited\n")
        change("c")
        assert ask()["word"] == "c"
        assert ask()["pid"] not in pids
