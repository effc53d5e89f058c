"""A batching command behind the real gateway: one call answers many, each its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent

import httpx
import pytest

from support.server import Server, serve

pytestmark = pytest.mark.xdist_group("batching")

MODEL = """
    import modelcloud
    from modelcloud.data_types import number, text

    @modelcloud.command("waits", inputs={"a": number}, outputs={"result": number, "size": number},
                        batch=modelcloud.Batch(max_size=8, max_wait_ms=2000))
    def waits(model, items):
        return [{"result": 1 / item["a"], "size": len(items)} for item in items]

    @modelcloud.command("stacked", inputs={"a": number}, outputs={"result": number},
                        batch=modelcloud.Batch(max_size=8, stack=True))
    def stacked(model, inputs):
        return inputs["a"] * 2

    @modelcloud.command("plain", inputs={"a": number}, outputs={"result": number})
    def plain(model, inputs):
        return inputs["a"]
"""


@pytest.fixture(scope="module", params=["1", "2"], ids=["one thread", "two threads"])
def server(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Server]:
    model = tmp_path_factory.mktemp("batching") / "model.py"
    model.write_text(dedent(MODEL))
    (model.parent / "golden.jsonl").write_text(
        '{"command": "stacked", "inputs": {"a": 4}, "expected": 8}\n'
    )
    with serve(model, "--replicas", "1", "--threads", request.param) as running:
        yield running


def at_once(server: Server, path: str, values: list[float]) -> list[httpx.Response]:
    with httpx.Client() as client, ThreadPoolExecutor(len(values)) as threads:
        return list(
            threads.map(lambda a: client.post(server.url + path, json={"a": a}, timeout=30), values)
        )


def test_requests_that_come_together_are_one_call(server: Server) -> None:
    answers = [answer.json() for answer in at_once(server, "/waits", [1, 2, 4, 5, 8, 10, 16, 20])]
    assert [answer["result"] for answer in answers] == [1, 0.5, 0.25, 0.2, 0.125, 0.1, 0.0625, 0.05]
    assert {answer["size"] for answer in answers} == {8}


def test_a_bad_item_fails_alone_whether_the_type_or_the_model_refuses_it(server: Server) -> None:
    with httpx.Client() as client, ThreadPoolExecutor(8) as threads:
        bodies = [{"a": 1}, {"a": 0}, {"a": "x"}, {}, {"a": 2}, {"a": 4}, {"a": 5}, {"a": 8}]
        answers = list(
            threads.map(lambda b: client.post(server.url + "/waits", json=b, timeout=30), bodies)
        )
    assert [answer.status_code for answer in answers] == [200, 500, 400, 400, 200, 200, 200, 200]
    assert answers[4].json()["result"] == 0.5


def test_stacked_inputs_and_single_requests(server: Server) -> None:
    assert [a.json()["result"] for a in at_once(server, "/stacked", [1, 2, 3])] == [2, 4, 6]
    assert server.post("/stacked", {"a": 21}).json() == {"result": 42}


def test_a_client_that_leaves_takes_only_its_own_place(server: Server) -> None:
    with pytest.raises(httpx.ReadTimeout):
        server.post("/waits", {"a": 1}, timeout=0.2)
    answers = at_once(server, "/waits", [1, 2, 4, 5, 8, 10, 16, 20])
    assert [answer.status_code for answer in answers] == [200] * 8
    assert server.post("/plain", {"a": 3}).json() == {"result": 3}
