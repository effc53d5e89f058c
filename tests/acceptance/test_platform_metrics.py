"""How versions fare is seen over time: requests, errors, times, batches, memory, processors.

On a started platform, from outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

from support.served import POINT_S, Served, shop

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.xdist_group("acceptance")

#: Slow, wrong, or for many at once.
MODEL = """
import time
import modelcloud
from modelcloud.data_types import boolean, number

@modelcloud.command("ask", inputs={"fail": boolean(default=False), "s": number(default=0)},
                    outputs={"result": number})
def ask(model, inputs):
    end = time.process_time() + inputs["s"]
    while time.process_time() < end:
        pass
    if inputs["fail"]:
        raise ValueError("asked to")
    return {"result": 1}

@modelcloud.command("batch", inputs={"a": number(default=1)}, outputs={"result": number},
                    batch=modelcloud.Batch(max_size=8, max_wait_ms=2000))
def batch(model, items):
    return [{"result": item["a"]} for item in items]
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with shop(tmp_path_factory.mktemp("metrics")) as running:
        service = running.service(MODEL)
        for _ in range(3):
            service.deploy(service.register())
        yield service


def at_once(served: Served, version: int, number: int, command: str) -> list[httpx.Response]:
    """The answers to so many requests that are under way together."""
    one = partial(served.ask, version, {"s": 0.02} if command == "ask" else {"a": 1})
    with ThreadPoolExecutor(number) as threads:
        return [*threads.map(lambda _: one(command=command), range(number))]


def test_the_metrics_of_each_version_are_its_own(served: Served) -> None:
    assert {answer.status_code for answer in at_once(served, 1, 40, "ask")} == {200}
    for _ in range(3):
        assert {answer.status_code for answer in at_once(served, 2, 8, "batch")} == {200}
    failing = [served.ask(3, {"fail": n % 4 == 0}).status_code for n in range(40)]
    assert (failing.count(500), failing.count(200)) == (10, 30)
    assert served.ask(3, {"s": "much"}).status_code == 400

    busy = served.metrics_once(1, lambda m: m["requests"] >= 40)
    assert (busy["requests"], busy["errors"], busy["batch_size"]) == (40, 0, 0)
    assert 20 <= busy["p50_ms"] <= busy["p95_ms"] <= busy["p99_ms"]
    assert busy["queue_ms"] > 10, "most of them waited for the one worker"
    assert busy["cpu"] * POINT_S > 0.4, "it worked for 40 times 20 ms"

    batching = served.metrics_once(2, lambda m: m["requests"] >= 24)
    assert (batching["requests"], batching["errors"]) == (24, 0)
    assert batching["batch_size"] > 4

    wrong = served.metrics_once(3, lambda m: m["requests"] >= 41)
    assert (wrong["requests"], wrong["errors"]) == (41, 10)
    for metrics in (busy, batching, wrong):
        assert metrics["memory"] > 5 * 1024 * 1024
        assert metrics["in_flight"] > 0

    together = served.metrics_once(None, lambda m: m["requests"] >= 105)
    assert (together["requests"], together["errors"]) == (105, 10)
    assert together["memory"] > batching["memory"]


def test_points_are_of_ten_seconds_without_gaps_and_of_what_span_is_asked_for(
    served: Served,
) -> None:
    history = served.admin.metrics(served.name, 1)
    assert history["span_s"] == POINT_S
    assert len(history["points"]) in {360, 361}
    wider = served.admin.metrics(served.name, 1, span=600)
    assert (wider["span_s"], len(wider["points"])) in {(600, 6), (600, 7)}
    counted = [sum(p["requests"] for p in one["points"]) for one in (history, wider)]
    assert counted[0] <= counted[1]


def test_the_same_is_there_for_prometheus_and_for_administrators_only(served: Served) -> None:
    place = f"{served.admin.url}/metrics"
    assert served.up.client.get(place).status_code == 401
    for version in (1, 2, 3):
        assert served.ask(version).status_code == 200
    text = served.up.client.get(
        place, headers={"authorization": f"Bearer {served.admin.token}"}
    ).text
    for version in (1, 2, 3):
        named = f'service="{served.name}"', f'version="{version}"'
        lines = [line for line in text.splitlines() if all(label in line for label in named)]
        assert any(line.startswith("modelcloud_requests_total{") for line in lines), text
        assert any(line.startswith("modelcloud_request_duration_seconds_") for line in lines)
        assert any(line.startswith("modelcloud_worker_memory_bytes{") for line in lines)
