"""A model folder that is exchanged under a running server: each answer is of one whole model."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from modelcloud.monitors.publish import exchange
from support.load import failures, load, steady
from support.onnx_model import MAIN, STEP, write_model
from support.server import Server, serve, wait_for

STAMP = "fluid_time_file"
TIMES = 20


class Producer:
    """Puts models in the place of a served folder, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._next = folder.parent / ".next"
        self.number = 1
        write_model(folder, 1)

    def publish(self, damaged: bytes = b"") -> int:
        """The next model, in one step, its timestamp the newest; with `damaged`, a broken one."""
        self.number += 1
        write_model(self._next, self.number)
        if damaged:
            (self._next / MAIN).write_bytes(damaged)
        (self._next / STAMP).touch()
        exchange(self._next, self.folder)
        shutil.rmtree(self._next)
        return self.number


@pytest.fixture
def producer(tmp_path: Path) -> Producer:
    return Producer(tmp_path / "uci_housing_model")


@pytest.fixture
def server(producer: Producer) -> Iterator[Server]:
    flags = ("--thread", "10", "--replicas", "1", "--keep-warm", "0")
    with serve("--model", producer.folder, *flags) as server:
        yield server


def answer(server: Server) -> float:
    """Of the model that serves, its number."""
    found: dict[str, Any] = server.post("/predict", {"inputs": [1.0]}).json()
    return float(found["outputs"]["y"][0]) / STEP


def serves(server: Server, number: int) -> bool:
    return answer(server) == number


def rollouts(server: Server) -> list[dict[str, Any]]:
    """Newest first."""
    found: list[dict[str, Any]] = server.get("/rollouts").json()["rollouts"]
    return found


def test_twenty_exchanges_under_load_fail_no_request_and_mix_no_model(
    producer: Producer, server: Server
) -> None:
    with load(server.port, "/predict", {"inputs": [1.0]}, rate=50.0) as running:
        for time in range(TIMES):
            number = producer.publish()
            if time % 2:  # every other one comes before the one before it serves
                wait_for(f"model {number} to serve", partial(serves, server, number))
        steady(running)
    samples = running.finish()
    assert not failures(samples)
    answers: list[Any] = [sample.answer for sample in samples]
    numbers = [float(one["y"][0]) / STEP for one in answers]
    assert all(number == int(number) for number in numbers), "a graph and weights of two models"
    assert {*range(3, TIMES + 2, 2)} <= {*numbers}
    assert {rollout["state"] for rollout in rollouts(server)} == {"succeeded"}


def test_a_broken_model_leaves_the_old_one_serving_and_is_tried_with_each_new_timestamp(
    producer: Producer, server: Server
) -> None:
    def failed() -> int:
        return sum(rollout["state"] == "failed" for rollout in rollouts(server))

    producer.publish(damaged=b"no model")
    wait_for("the broken model to be refused", lambda: failed() == 1)
    assert answer(server) == 1
    (producer.folder / STAMP).touch()
    wait_for("it to be tried again", lambda: failed() == 2)
    assert MAIN in rollouts(server)[0]["reason"]
    assert answer(server) == 1
    number = producer.publish()
    wait_for("a good one to serve", partial(serves, server, number))


def test_a_timestamp_that_is_touched_alone_begins_nothing(
    producer: Producer, server: Server
) -> None:
    (producer.folder / STAMP).touch()
    number = producer.publish()
    wait_for("the next model to serve", partial(serves, server, number))
    (producer.folder / STAMP).touch()
    number = producer.publish()
    wait_for("the one after it to serve", partial(serves, server, number))
    assert len(rollouts(server)) == 3


def test_a_worker_that_is_replaced_loads_the_model_that_was_taken(
    producer: Producer, server: Server
) -> None:
    write_model(producer.folder, 7)  # no timestamp says that it is whole
    (pid,) = server.pids("worker")

    os.kill(pid, signal.SIGKILL)
    wait_for("another worker", lambda: server.pids("worker") not in ([], [pid]))
    assert answer(server) == 1
