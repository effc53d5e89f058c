"""What an update may and may not do: to requests under way, to other updates, with bad code.

Whatever is wrong with an update is said to who asked for it, and the old generation serves on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.load import failures, load
from support.models import obedient
from support.raw import Raw, connect, post
from support.server import Server, serve, wait_for

pytestmark = pytest.mark.xdist_group("acceptance")

MODEL = """
import modelcloud
from modelcloud.data_types import number, text

@modelcloud.setup(options={"answer": number(default=1)})
def setup(options):
    return options["answer"]

@modelcloud.command(
    "ask", inputs={"x": number(default=0)}, outputs={"answer": number, "code": text}
)
def ask(model, inputs):
    return {"answer": model + inputs["x"], "code": "A"}
"""


class InBackground:
    """A call in a thread; its result or what it raised."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._outcome: Any = None
        self._call = call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome = self._call()
        except BaseException as error:
            self._outcome = error

    def result(self) -> Any:
        self._thread.join()
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


def only(found: list[int]) -> list[int]:
    """It, if there is just one."""
    return found if len(found) == 1 else []


def newest(server: Server) -> dict[str, Any]:
    """The newest rollout."""
    return dict(server.get("/rollouts").json()["rollouts"][0])


def post_setup(server: Server, body: Any, query: str = "") -> httpx.Response:
    """From any thread."""
    return httpx.post(f"{server.url}/setup{query}", json=body, timeout=60)


# ---- what is under way


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = obedient(tmp_path_factory.mktemp("rules"))
    with serve(model, "--replicas", "1", "--keep-warm", "0") as running:
        yield running


def test_a_long_request_completes_on_the_generation_it_began_on(server: Server) -> None:
    before = server.post("/ask", {}).headers["x-model-generation"]
    with connect(server.port) as raw:
        raw.send(post("/slow", {"s": 5}))
        wait_for("it to be under way", lambda: "in_flight{gateway=\"0\"} 1" in
                 server.get("/metrics").text)  # fmt: skip
        updated = server.update(answer=2)
        assert updated.status_code == 200
        assert server.post("/ask", {}).json()["answer"] == 2
        assert len(server.pids("worker")) == 2, "the old one drains"
        answer = raw.read()
        assert answer.status == 200
        assert answer.headers["x-model-generation"] == before
    wait_for("the old worker to go", lambda: len(server.pids("worker")) == 1)


def test_idle_clients_outlive_any_number_of_updates(server: Server) -> None:
    clients = [Raw(server.port) for _ in range(20)]
    for client in clients:
        assert client.send(post("/ask", {})).read().status == 200
    for number in range(20):
        assert server.update(answer=number).status_code == 200
    for client in clients:
        assert client.send(post("/ask", {})).read().json()["answer"] == 19
        client.socket.close()


def test_a_request_that_comes_while_recreate_has_no_worker_waits_for_the_new_one(
    server: Server,
) -> None:
    body = {"options": {"answer": 77, "load_s": 2}, "strategy": "recreate"}
    update = InBackground(lambda: post_setup(server, body))
    wait_for("no old worker", lambda: newest(server)["step"] == "loading")
    assert server.get("/readyz").status_code == 503
    answer = server.post("/ask", {})
    assert (answer.status_code, answer.json()["answer"]) == (200, 77)
    done = update.result()
    assert done.status_code == 200, done.text
    assert answer.headers["x-model-generation"] == str(done.json()["generation"])
    server.update(load_s=0)


def test_a_slow_reader_is_let_go_of_when_its_old_worker_has_drained_for_long_enough(
    tmp_path: Path,
) -> None:
    with serve(obedient(tmp_path), "--replicas", "1", "--keep-warm", "0", "--drain", "2") as server:
        with connect(server.port) as slow:
            slow.send(post("/count", {"n": 10_000_000}, "Accept: text/event-stream"))
            slow.head()
            (old,) = server.pids("worker")
            assert server.update(answer=2).status_code == 200
            assert server.post("/ask", {}).json()["answer"] == 2
            wait_for("the old worker to go", lambda: old not in server.pids("worker"))
            assert "still in use after 2 s of draining" in server.output
            with pytest.raises((EOFError, OSError)):
                b"".join(slow.chunks())
        assert server.update(answer=3).status_code == 200


# ---- two at once


def test_a_newer_update_takes_the_place_of_one_that_still_loads(server: Server) -> None:
    slow = InBackground(lambda: post_setup(server, {"answer": 10, "load_s": 600}))
    wait_for("the load", lambda: newest(server)["step"] == "loading")
    loser = newest(server)["id"]
    quick = server.update(answer=11, load_s=0)
    assert quick.status_code == 200, quick.text
    lost = slow.result()
    assert lost.status_code == 409
    assert lost.json()["success"] is False
    assert lost.json()["rollout"] == loser
    assert quick.json()["rollout"] in lost.json()["error"], "it says which one took its place"
    assert server.get(f"/rollouts/{loser}").json()["state"] == "superseded"
    assert server.post("/ask", {}).json()["answer"] == 11
    wait_for("the loser's worker to go", lambda: len(server.pids("worker")) == 1)


def test_of_many_updates_at_once_one_wins_and_every_other_is_told(server: Server) -> None:
    before = int(server.post("/ask", {}).headers["x-model-generation"])
    with load(server.port) as running:
        asked = [
            InBackground(lambda n=n: post_setup(server, {"answer": 100 + n, "load_s": 0.2}))  # type: ignore[misc]
            for n in range(8)
        ]
        answers = [one.result() for one in asked]
    assert failures(running.samples) == []
    won = [answer.json() for answer in answers if answer.status_code == 200]
    lost = [answer.json() for answer in answers if answer.status_code == 409]
    assert len(won) + len(lost) == 8
    assert won
    assert {one["success"] for one in lost} <= {False}
    assert len({one["rollout"] for one in won + lost}) == 8
    last = max(won, key=lambda one: int(one["generation"]))
    now = server.post("/ask", {})
    assert now.headers["x-model-generation"] == str(last["generation"])
    assert last["generation"] == before + 8, "the one that was accepted last"
    server.update(load_s=0)


def test_a_bad_option_is_refused_before_any_process_starts(server: Server) -> None:
    rollouts, workers = newest(server)["id"], server.pids("worker")
    made = server.get("/setup").json()["values"]
    answer = server.update(answer="many")
    assert answer.status_code == 400
    assert "answer" in answer.json()["error"]
    assert answer.json()["accepted"] == "a number"
    unknown = server.update(colour="red")
    assert unknown.status_code == 400
    assert "colour" in unknown.json()["error"]
    assert newest(server)["id"] == rollouts
    assert set(server.pids("worker")) <= set(workers), "one of the last update may have left"
    assert server.get("/setup").json()["values"] == made
    # Worker numbers are given in order: the next one is that of the next good update.
    highest = max(worker["id"] for worker in newest(server)["workers"])
    server.update(answer=5)
    assert max(worker["id"] for worker in newest(server)["workers"]) == highest + 1


# ---- code and companions


class Edited:
    """A served folder, and what its server answers."""

    def __init__(self, folder: Path) -> None:
        self.model = folder / "model.py"
        self.folder = folder
        self.model.write_text(MODEL)

    def code(self, name: str) -> None:
        self.model.write_text(MODEL.replace('"A"', f'"{name}"'))

    def broken(self) -> int:
        """Write a syntax error; returns its line."""
        self.model.write_text(MODEL + "def half(:\n")
        return MODEL.count("\n") + 1


def answers(server: Server) -> tuple[str, str]:
    """Code and version of what answers."""
    answer = server.post("/ask", {})
    assert answer.status_code == 200, answer.text
    return answer.json()["code"], answer.headers["x-model-version"]


@pytest.mark.parametrize(
    ("file", "lines", "says"),
    [
        ("golden.jsonl", ['{"inputs": {"x": 1}, "expected": {"answer": 2, "code": "A"}}',
                          '{"inputs": {"x": 1}, "expected": {"answer": 9, "code": "A"}}'],
         ["golden.jsonl:2", "9"]),
        ("golden.jsonl", ["", '{"inputs": {"x": 1}}'], ["golden.jsonl:2", "expected"]),
        ("warmup.jsonl", ['{"inputs": {"x": 1}}', '{"inputs": {"x": "one"}}'],
         ["warmup.jsonl:2", "400"]),
        ("warmup.jsonl", ['{"command": "task", "inputs": {}}'], ["warmup.jsonl:1", "task"]),
    ],
)  # fmt: skip
def test_a_failed_proof_is_told_with_its_line_and_the_old_generation_serves(
    tmp_path: Path, file: str, lines: list[str], says: list[str]
) -> None:
    edited = Edited(tmp_path)
    with serve(edited.model, "--replicas", "2") as server, load(server.port) as running:
        (tmp_path / file).write_text("\n".join(lines) + "\n")
        answer = server.post("/setup", {})
        assert answer.status_code == 422, answer.text
        for text in says:
            assert text in answer.json()["error"].replace(" line ", ":"), answer.text
        assert answers(server) == ("A", "1")
        (tmp_path / file).unlink()
        assert server.post("/setup", {}).status_code == 200
    assert failures(running.samples) == []
    assert {sample.answer for sample in running.samples} == {2}


def test_one_replica_that_cannot_load_keeps_all_from_being_promoted(tmp_path: Path) -> None:
    """Fault row 33: the second one to try finds a file that the first one made."""
    edited = Edited(tmp_path)
    with serve(edited.model, "--replicas", "3") as server, load(server.port) as running:
        alone = MODEL.replace(
            '    return options["answer"]\n',
            "    import os, pathlib\n"
            "    place = pathlib.Path(__file__).parent / 'taken'\n"
            "    os.close(os.open(place, os.O_CREAT | os.O_EXCL))\n"
            '    return options["answer"]\n',
        )
        assert alone != MODEL
        edited.model.write_text(alone)
        answer = server.post("/setup", {})
        assert answer.status_code == 422
        assert "FileExistsError" in answer.json()["error"]
        assert (tmp_path / "taken").exists(), "one of them did load"
        assert answers(server) == ("A", "1")
        wait_for("the candidates to go", lambda: len(server.pids("worker")) == 3)
        workers = server.get("/readyz").json()["workers"]
        assert workers == {"ready": 3, "wanted": 3}
    assert failures(running.samples) == []
    assert {sample.version for sample in running.samples} == {1}


def test_an_edit_is_a_new_version_a_broken_one_is_none_and_a_restart_is_neither(
    tmp_path: Path,
) -> None:
    edited = Edited(tmp_path)
    with (
        serve(edited.model, "--replicas", "1", "--keep-warm", "0") as server,
        load(server.port) as running,
    ):
        assert answers(server) == ("A", "1")
        edited.code("B")
        done = server.post("/setup", {})
        assert done.status_code == 200, done.text
        assert done.json()["version"] == 2
        assert answers(server) == ("B", "2")
        again = server.post("/setup", {})
        assert (again.status_code, again.json()["version"]) == (200, 2), "nothing was edited"

        line = edited.broken()
        refused = server.post("/setup", {})
        assert refused.status_code == 422
        assert f"model.py:{line}" in refused.json()["error"]
        assert answers(server) == ("B", "2")

        (victim,) = wait_for("one worker", lambda: only(server.pids("worker")))
        os.kill(victim, signal.SIGKILL)
        wait_for("a replacement", lambda: server.pids("worker") not in ([], [victim])
                 and server.get("/readyz").status_code == 200)  # fmt: skip
        assert answers(server) == ("B", "2"), "a restart runs the code of its generation"

        edited.code("C")
        assert server.post("/setup", {}).status_code == 200
        assert answers(server)[0] == "C"
    assert failures(running.samples) == []


def test_watch_takes_an_edit_by_itself_and_leaves_a_broken_one(tmp_path: Path) -> None:
    edited = Edited(tmp_path)
    with serve(edited.model, "--replicas", "1", "--watch") as server, load(server.port) as running:
        for name in ("B", "C"):
            edited.code(name)
            wait_for(f"code {name}", lambda name=name: answers(server)[0] == name)  # type: ignore[misc]
        line = edited.broken()
        wait_for("the error in the log", lambda: f"model.py:{line}" in server.output)
        assert answers(server)[0] == "C"
        assert server.get("/readyz").json()["degraded"] is False
        edited.code("D")
        wait_for("code D", lambda: answers(server)[0] == "D")
    assert failures(running.samples) == []
