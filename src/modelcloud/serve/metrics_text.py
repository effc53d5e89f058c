"""`/metrics`: the counters of gateways and workers as Prometheus text, in `serve` and `up` mode.

Must never: count anything itself; it only words what others counted. prometheus_client is
imported when first asked for, because most nodes of a laptop never are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from modelcloud.dataplane.messages import CommandStats, Stats
from modelcloud.dataplane.metrics import BUCKETS
from modelcloud.types import Observed, State

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_BY_COMMAND = ("service", "command", "version", "generation")


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the text is made of.

    Attributes:
        gateways: the latest counters of each gateway.
        observed: the workers as they are now.
        generation: the serving one; 0 before any serves.
        version: of the serving generation.
        worker_restarts: workers that were replaced since the node started.
        rollouts: how many rollouts ended how (`succeeded`, `failed` …).
    """

    service: str
    gateways: Sequence[Stats]
    observed: Observed
    generation: int
    version: int
    worker_restarts: int
    rollouts: Mapping[str, int]


def render(sources: Sources) -> tuple[bytes, str]:
    """Return the text and its content type."""
    return text(_families(sources))


def text(families: Iterable[Metric]) -> tuple[bytes, str]:
    """Return the text of some families, and its content type."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
    from prometheus_client.registry import Collector

    class Once(Collector):
        def collect(self) -> Iterable[Metric]:
            return families

    return generate_latest(Once()), CONTENT_TYPE_LATEST


def _families(sources: Sources) -> Iterator[Metric]:
    yield from command_families(sources.gateways)
    yield from gateway_families(sources.gateways)
    yield from _service_families(sources)
    yield from worker_families([(sources.service, sources.observed)])
    yield from rollout_families({sources.service: sources.rollouts})


def command_families(gateways: Sequence[Stats]) -> Iterator[Metric]:
    """What was answered, by service, command, version and generation."""
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    requests = CounterMetricFamily(
        "modelcloud_requests", "Answered requests.", labels=(*_BY_COMMAND, "status")
    )
    latency = HistogramMetricFamily(
        "modelcloud_request_duration_seconds",
        "From arrival of a request to its answer, by what answered.",
        labels=_BY_COMMAND,
    )
    nan_outputs = CounterMetricFamily(
        "modelcloud_nan_outputs", "NaN or infinite values answered as null.", labels=_BY_COMMAND
    )
    queueing = CounterMetricFamily(
        "modelcloud_queue_seconds", "Time that requests waited for a worker.", labels=_BY_COMMAND
    )
    shadowed = CounterMetricFamily(
        "modelcloud_shadowed", "Copies of other versions' requests.", labels=_BY_COMMAND
    )
    compared = CounterMetricFamily(
        "modelcloud_shadow_compared",
        "Answers to copies, by how they compare with the answers that clients got.",
        labels=(*_BY_COMMAND, "answer"),
    )
    for stats in _summed(gateways):
        labels = (stats.service, stats.command, str(stats.version), str(stats.generation))
        for status, count in sorted(stats.by_status.items()):
            requests.add_metric((*labels, str(status)), count)
        latency.add_metric(labels, _cumulative(stats.buckets), stats.latency_sum_s)
        nan_outputs.add_metric(labels, stats.nan_outputs)
        queueing.add_metric(labels, stats.queue_sum_s)
        if stats.shadowed:
            shadowed.add_metric(labels, stats.shadowed)
            compared.add_metric((*labels, "same"), stats.shadow_same)
            compared.add_metric((*labels, "different"), stats.shadow_different)
    yield from (requests, latency, nan_outputs, queueing, shadowed, compared)


def _summed(gateways: Sequence[Stats]) -> list[CommandStats]:
    """One record for each (service, command, version, generation) over all gateways."""
    sums: dict[tuple[str, str, int, int], CommandStats] = {}
    for gateway in gateways:
        for one in gateway.commands:
            key = (one.service, one.command, one.version, one.generation)
            total = sums.get(key)
            if total is None:
                total = sums[key] = CommandStats(
                    service=one.service,
                    command=one.command,
                    version=one.version,
                    generation=one.generation,
                    buckets=[0] * (len(BUCKETS) + 1),
                )
            total.by_status = dict(Counter(total.by_status) + Counter(one.by_status))
            total.buckets = [a + b for a, b in zip(total.buckets, one.buckets, strict=True)]
            total.latency_sum_s += one.latency_sum_s
            total.nan_outputs += one.nan_outputs
            total.queue_sum_s += one.queue_sum_s
            total.shadowed += one.shadowed
            total.shadow_same += one.shadow_same
            total.shadow_different += one.shadow_different
    return [sums[key] for key in sorted(sums)]


def _cumulative(buckets: Sequence[int]) -> list[tuple[str, float]]:
    """Prometheus counts each bucket with all below it; ours count only their own."""
    bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
    out: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip(bounds, buckets, strict=True):
        total += count
        out.append((bound, total))
    return out


def gateway_families(gateways: Sequence[Stats]) -> Iterator[Metric]:
    """Connections, queues and refusals, by gateway."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    in_flight = GaugeMetricFamily(
        "modelcloud_in_flight", "Requests under way.", labels=("gateway",)
    )
    connections = GaugeMetricFamily(
        "modelcloud_open_connections", "Open client connections.", labels=("gateway",)
    )
    connections_total = CounterMetricFamily(
        "modelcloud_connections", "Client connections accepted.", labels=("gateway",)
    )
    queued = GaugeMetricFamily(
        "modelcloud_queued", "Requests waiting for a worker.", labels=("gateway", "service")
    )
    rejected = CounterMetricFamily(
        "modelcloud_rejected", "Requests refused by a gateway.", labels=("gateway", "reason")
    )
    retried = CounterMetricFamily(
        "modelcloud_retried", "Requests sent again after their worker died.", labels=("gateway",)
    )
    for gateway in gateways:
        name = str(gateway.gateway_id)
        in_flight.add_metric((name,), gateway.in_flight)
        connections.add_metric((name,), gateway.connections)
        connections_total.add_metric((name,), gateway.connections_total)
        retried.add_metric((name,), gateway.retried)
        for service, waiting in sorted(gateway.queued.items()):
            queued.add_metric((name, service), waiting)
        for reason, count in sorted(gateway.rejected.items()):
            rejected.add_metric((name, reason), count)
    yield from (in_flight, connections, connections_total, queued, rejected, retried)


def _service_families(sources: Sources) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    def gauge(name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, text, labels=("service",))
        family.add_metric((sources.service,), value)
        return family

    yield gauge("modelcloud_generation", "The serving generation.", sources.generation)
    yield gauge("modelcloud_version", "Version of the serving artifact.", sources.version)
    yield gauge("modelcloud_degraded", "1 below wanted strength.", bool(sources.observed.degraded))
    restarts = CounterMetricFamily(
        "modelcloud_worker_restarts", "Workers replaced after they died.", labels=("service",)
    )
    restarts.add_metric((sources.service,), sources.worker_restarts)
    yield restarts


def worker_families(observed: Iterable[tuple[str, Observed]]) -> Iterator[Metric]:
    """How many workers are in each state, by service and generation."""
    from prometheus_client.core import GaugeMetricFamily

    workers = GaugeMetricFamily(
        "modelcloud_workers", "Worker processes.", labels=("service", "generation", "state")
    )
    states = Counter((service, w.generation, w.state) for service, o in observed for w in o.workers)
    for service, generation in sorted({(service, number) for service, number, _ in states}):
        for state in State:
            labels = (service, str(generation), state.value)
            workers.add_metric(labels, states[service, generation, state])
    yield workers


def rollout_families(by_service: Mapping[str, Mapping[str, int]]) -> Iterator[Metric]:
    """How many rollouts ended how (`succeeded`, `failed` …), by service."""
    from prometheus_client.core import CounterMetricFamily

    rollouts = CounterMetricFamily(
        "modelcloud_rollouts", "Updates by how they ended.", labels=("service", "outcome")
    )
    for service, outcomes in sorted(by_service.items()):
        for outcome, count in sorted(outcomes.items()):
            rollouts.add_metric((service, outcome), count)
    yield rollouts
