"""What versions did over a time, from counters that only grow: differences, sums, percentiles.

Must never: do more than compute on plain data; `metrics_keeper` keeps and `metrics` reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from modelcloud.dataplane.messages import CommandStats, Stats
from modelcloud.dataplane.metrics import BUCKETS
from modelcloud.node.orders import Counters, WorkerUsage
from modelcloud.rollout import canary

_NO_BUCKETS = (0,) * (len(BUCKETS) + 1)


class VersionKey(NamedTuple):
    """A version of a service."""

    service: str
    version: int


class Sum(msgspec.Struct, kw_only=True):
    """What a version did over a time; the fields are those of `store.tables.MetricPoint`."""

    requests: int = 0
    errors: int = 0
    buckets: Sequence[int] = _NO_BUCKETS
    latency_sum_s: float = 0.0
    queue_sum_s: float = 0.0
    batches: int = 0
    batched: int = 0
    shadowed: int = 0
    shadow_same: int = 0
    shadow_different: int = 0
    memory: int = 0
    cpu_s: float = 0.0


class Seen(msgspec.Struct, frozen=True):
    """The counters that the next ones are compared with, by gateway and by worker."""

    gateways: Mapping[int, Stats] = {}
    workers: Mapping[int, WorkerUsage] = {}


def seen(before: Seen | None, now: Counters) -> Seen:
    """What to compare the next counters with. A gateway that did not answer keeps its last."""
    earlier = before.gateways if before else {}
    return Seen(
        {**earlier, **{stats.gateway_id: stats for stats in now.gateways}},
        {usage.worker: usage for usage in now.workers},
    )


def delta(before: Seen | None, now: Counters) -> dict[VersionKey, Sum]:
    """What each version that answered, or has workers, did between two looks at the counters.

    A gateway whose counters became smaller was started anew: all it counted is new. So it is with
    a gateway and a worker that were not there before. Without `before` nothing is known to be new
    but the memory that is held now.
    """
    sums: dict[VersionKey, Sum] = {}
    if before is not None:
        for stats in now.gateways:
            _add_gateway(sums, before.gateways.get(stats.gateway_id), stats)
    for usage in now.workers:
        key = VersionKey(usage.deployment.partition("/")[0], usage.version)
        total = sums.setdefault(key, Sum())
        total.memory += usage.memory
        if before is not None:
            _add_worker(total, before.workers.get(usage.worker), usage)
    return {key: done for key, done in sums.items() if done.requests or done.memory}


def merge(a: Sum, b: Sum) -> Sum:
    """What a version did over two times: counts and seconds added up, memory the greater."""
    if not any(a.buckets):
        buckets = b.buckets
    else:
        buckets = [x + y for x, y in zip(a.buckets, b.buckets, strict=True)]
    return Sum(  # each by name: a month of points is added up this way
        requests=a.requests + b.requests,
        errors=a.errors + b.errors,
        buckets=buckets,
        latency_sum_s=a.latency_sum_s + b.latency_sum_s,
        queue_sum_s=a.queue_sum_s + b.queue_sum_s,
        batches=a.batches + b.batches,
        batched=a.batched + b.batched,
        shadowed=a.shadowed + b.shadowed,
        shadow_same=a.shadow_same + b.shadow_same,
        shadow_different=a.shadow_different + b.shadow_different,
        memory=max(a.memory, b.memory),
        cpu_s=a.cpu_s + b.cpu_s,
    )


def beside(a: Sum, b: Sum) -> Sum:
    """What two versions did over one time: as `merge`, but they hold their memory together."""
    both = merge(a, b)
    both.memory = a.memory + b.memory
    return both


def percentile(buckets: Sequence[int], share: float) -> float | None:
    """The latency, in seconds, that `share` (0 to 1) of the requests did not exceed.

    Within a bucket latencies are taken to be spread evenly. Those over the last bound count as
    that bound. None without requests.
    """
    return canary.percentile(BUCKETS, buckets, share) if any(buckets) else None


def pack(buckets: Sequence[int]) -> bytes:
    """Buckets as they are stored; nothing where nothing was counted."""
    return struct.pack(f"<{len(buckets)}I", *buckets) if any(buckets) else b""


def unpack(stored: bytes) -> Sequence[int]:
    """The buckets. Those of a version of this program with other bounds are left out."""
    if len(stored) != 4 * len(_NO_BUCKETS):
        return _NO_BUCKETS
    return struct.unpack(f"<{len(_NO_BUCKETS)}I", stored)


def _add_gateway(sums: dict[VersionKey, Sum], before: Stats | None, now: Stats) -> None:
    earlier = {_command(one): one for one in before.commands} if before else {}
    if before and (
        now.connections_total < before.connections_total
        or any(_shrank(earlier.get(_command(one)), one) for one in now.commands)
    ):
        earlier = {}
    for one in now.commands:
        change = _change(earlier.get(_command(one)), one)
        key = VersionKey(one.service, one.version)
        sums[key] = merge(sums[key], change) if key in sums else change


def _add_worker(total: Sum, before: WorkerUsage | None, now: WorkerUsage) -> None:
    # Each may become smaller: a process that the worker had started is gone, with its seconds.
    total.cpu_s += max(now.cpu_s - (before.cpu_s if before else 0.0), 0.0)
    total.batches += max(now.batches - (before.batches if before else 0), 0)
    total.batched += max(now.batched - (before.batched if before else 0), 0)


def _command(one: CommandStats) -> tuple[str, str, int, int]:
    return one.service, one.command, one.version, one.generation


def _shrank(before: CommandStats | None, now: CommandStats) -> bool:
    return before is not None and (
        now.latency_sum_s < before.latency_sum_s
        or any(x < y for x, y in zip(now.buckets, before.buckets, strict=True))
    )


def _change(before: CommandStats | None, now: CommandStats) -> Sum:
    if before is None:
        before = CommandStats(
            service=now.service, command=now.command, version=now.version,
            generation=now.generation, buckets=[0] * len(now.buckets),
        )  # fmt: skip
    return Sum(
        requests=_answers(now, 0) - _answers(before, 0),
        errors=_answers(now, 500) - _answers(before, 500),
        buckets=[x - y for x, y in zip(now.buckets, before.buckets, strict=True)],
        latency_sum_s=now.latency_sum_s - before.latency_sum_s,
        queue_sum_s=now.queue_sum_s - before.queue_sum_s,
        shadowed=now.shadowed - before.shadowed,
        shadow_same=now.shadow_same - before.shadow_same,
        shadow_different=now.shadow_different - before.shadow_different,
    )


def _answers(stats: CommandStats, least: int) -> int:
    """Those whose status is `least` or more."""
    return sum(count for status, count in stats.by_status.items() if status >= least)
