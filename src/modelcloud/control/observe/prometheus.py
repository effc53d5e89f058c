"""`/metrics` of the control plane: everything on the node, for Prometheus.

Must never: count anything itself; the words are those of `serve.metrics_text`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func, select

from modelcloud.control.deployments.deployment_states import Wanted
from modelcloud.control.deployments.generation_specs import key_of
from modelcloud.control.deployments.rollouts import UNFINISHED
from modelcloud.serve import metrics_text
from modelcloud.store.tables import Deployment, RolloutRow, Service

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from sqlalchemy.orm import Session

    from modelcloud.node.orders import Counters, WorkerUsage
    from modelcloud.types import Observed


class Stored(NamedTuple):
    """What the store tells.

    Attributes:
        deployments: key → service and state, of those that are not deleted.
        rollouts: service → how many rollouts ended how.
    """

    deployments: Mapping[str, tuple[str, str]]
    rollouts: Mapping[str, Mapping[str, int]]


def stored(tx: Session) -> Stored:
    """Read it."""
    deployments = tx.execute(
        select(Service.name, Deployment.id, Deployment.state)
        .join(Service, Service.id == Deployment.service_id)
        .where(Deployment.wanted != Wanted.DELETED.value)
    )
    ended = tx.execute(
        select(Service.name, RolloutRow.state, func.count())
        .join(Service, Service.id == RolloutRow.service_id)
        .where(RolloutRow.state.not_in(UNFINISHED))
        .group_by(Service.name, RolloutRow.state)
    )
    rollouts: dict[str, dict[str, int]] = defaultdict(dict)
    for service, outcome, count in ended:
        rollouts[service][outcome] = count
    return Stored(
        {key_of(service, number): (service, state) for service, number, state in deployments},
        rollouts,
    )


def render(
    counters: Counters, known: Stored, observed: Mapping[str, Observed]
) -> tuple[bytes, str]:
    """Return the text and its content type.

    Args:
        counters: of the gateways and workers, now.
        known: what the store tells.
        observed: what the node tells of each deployment, by its key.
    """
    return metrics_text.text(_families(counters, known, observed))


def _families(
    counters: Counters, known: Stored, observed: Mapping[str, Observed]
) -> Iterator[Metric]:
    yield from metrics_text.command_families(counters.gateways)
    yield from metrics_text.gateway_families(counters.gateways)
    yield from metrics_text.worker_families(
        (known.deployments[key][0], seen) for key, seen in observed.items()
    )
    yield from metrics_text.rollout_families(known.rollouts)
    yield _deployments(known.deployments.values())
    yield from _usage(counters.workers)


def _deployments(states: Iterable[tuple[str, str]]) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(
        "modelcloud_deployments", "Deployments, by their state.", labels=("service", "state")
    )
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for one in states:
        counts[one] += 1
    for labels, count in sorted(counts.items()):
        family.add_metric(labels, count)
    return family


def _usage(workers: Sequence[WorkerUsage]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    names = ("service", "version", "generation", "worker")
    memory = GaugeMetricFamily(
        "modelcloud_worker_memory_bytes", "Resident bytes of a worker.", labels=names
    )
    cpu = CounterMetricFamily(
        "modelcloud_worker_cpu_seconds", "Processor seconds of a worker.", labels=names
    )
    batches = CounterMetricFamily(
        "modelcloud_worker_batches", "Calls of batching commands.", labels=names
    )
    batched = CounterMetricFamily(
        "modelcloud_worker_batched_requests", "Requests that those calls took.", labels=names
    )
    for one in workers:
        service = one.deployment.partition("/")[0]
        labels = (service, str(one.version), str(one.generation), str(one.worker))
        memory.add_metric(labels, one.memory)
        cpu.add_metric(labels, one.cpu_s)
        batches.add_metric(labels, one.batches)
        batched.add_metric(labels, one.batched)
    yield from (memory, cpu, batches, batched)
