"""`/metrics`, read back by Prometheus's own parser."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from modelcloud.dataplane.messages import CommandStats, Stats
from modelcloud.dataplane.metrics import BUCKETS, Counters
from modelcloud.serve.metrics_text import Sources, render
from modelcloud.types import Observed, State, WorkerView

FIB = {"service": "fib", "command": "fib", "version": "2", "generation": "5"}


def command(*latencies: float, status: int = 200, nan_outputs: int = 0) -> CommandStats:
    counters = Counters()
    for latency in latencies:
        counters.record(status, latency, 1.0)
    counters.nan_outputs = nan_outputs
    return counters.to_stats("fib", "fib", 2, 5)


def gateway(number: int, *commands: CommandStats) -> Stats:
    return Stats(
        seq=1, gateway_id=number, connections=3, connections_total=30, in_flight=2,
        queued={"fib": 4}, rejected={"queue_full": 6}, retried=1, commands=list(commands),
    )  # fmt: skip


def read(**given: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Sample → value, of what a server with these facts says."""
    facts = {
        "service": "fib", "gateways": [], "observed": Observed(), "generation": 5, "version": 2,
        "worker_restarts": 0, "rollouts": {}, **given,
    }  # fmt: skip
    body, content_type = render(Sources(**facts))
    assert content_type.startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return f"modelcloud_{name}", tuple(sorted(labels.items()))


def test_requests_are_summed_over_the_gateways_by_status() -> None:
    found = read(
        gateways=[
            gateway(0, command(0.01, 0.02), command(0.5, status=500)),
            gateway(1, command(0.03, nan_outputs=7)),
        ]
    )
    assert found[key("requests_total", **FIB, status="200")] == 3
    assert found[key("requests_total", **FIB, status="500")] == 1
    assert found[key("nan_outputs_total", **FIB)] == 7


def test_the_histogram_counts_each_latency_in_every_bucket_that_holds_it() -> None:
    found = read(gateways=[gateway(0, command(0.0001, 0.3, 0.5, 1000.0))])
    buckets = [
        found[key("request_duration_seconds_bucket", **FIB, le=le)]
        for le in [*map(str, BUCKETS), "+Inf"]
    ]
    assert buckets[0] == 1
    assert found[key("request_duration_seconds_bucket", **FIB, le="0.5")] == 3
    assert buckets[-2:] == [3, 4]
    assert buckets == sorted(buckets)
    assert found[key("request_duration_seconds_count", **FIB)] == 4
    assert found[key("request_duration_seconds_sum", **FIB)] == 1000.8001


def test_gateways_are_told_apart() -> None:
    found = read(gateways=[gateway(0), gateway(1)])
    for number in ("0", "1"):
        assert found[key("in_flight", gateway=number)] == 2
        assert found[key("open_connections", gateway=number)] == 3
        assert found[key("connections_total", gateway=number)] == 30
        assert found[key("queued", gateway=number, service="fib")] == 4
        assert found[key("rejected_total", gateway=number, reason="queue_full")] == 6
        assert found[key("retried_total", gateway=number)] == 1


def test_workers_are_counted_by_generation_and_state_and_a_state_left_falls_to_zero() -> None:
    workers = tuple(
        WorkerView(id=n, generation=5, state=state)
        for n, state in enumerate([State.SERVING, State.SERVING, State.LOADING])
    )
    found = read(observed=Observed(workers=workers, degraded="1 of 3"), worker_restarts=9)
    of = {"service": "fib", "generation": "5"}
    assert found[key("workers", **of, state="serving")] == 2
    assert found[key("workers", **of, state="loading")] == 1
    assert found[key("workers", **of, state="failed")] == 0
    assert found[key("worker_restarts_total", service="fib")] == 9
    assert found[key("degraded", service="fib")] == 1


def test_generation_version_and_rollouts_are_there() -> None:
    found = read(rollouts={"succeeded": 3, "failed": 1})
    assert found[key("generation", service="fib")] == 5
    assert found[key("version", service="fib")] == 2
    assert found[key("rollouts_total", service="fib", outcome="succeeded")] == 3
    assert found[key("rollouts_total", service="fib", outcome="failed")] == 1


def test_a_name_with_quotes_and_line_ends_stays_one_label() -> None:
    name = 'a"b\\c\nd'
    found = read(service=name)
    assert found[key("generation", service=name)] == 5
