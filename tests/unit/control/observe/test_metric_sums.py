"""Differences, sums and percentiles of counters."""

from __future__ import annotations

from typing import Any

import pytest

from modelcloud.control.observe.metric_sums import (
    Seen,
    Sum,
    VersionKey,
    beside,
    delta,
    merge,
    pack,
    percentile,
    seen,
    unpack,
)
from modelcloud.dataplane.messages import CommandStats, Stats
from modelcloud.dataplane.metrics import BUCKETS
from modelcloud.node.orders import Counters, WorkerUsage

FIB = VersionKey("fib", 1)


def buckets(**counts: int) -> list[int]:
    """`b3=2`: two in the third bucket, counted from 0."""
    out = [0] * (len(BUCKETS) + 1)
    for name, count in counts.items():
        out[int(name[1:])] = count
    return out


def stats(ok: int, *, version: int = 1, generation: int = 1, **fields: Any) -> CommandStats:
    return CommandStats(
        service="fib", command="fib", version=version, generation=generation,
        buckets=buckets(b3=ok), latency_sum_s=ok * 0.001, **{"by_status": {200: ok}, **fields},
    )  # fmt: skip


def gateway(*commands: CommandStats, number: int = 0, connections: int = 1) -> Stats:
    return Stats(
        seq=1, gateway_id=number, connections=0, connections_total=connections, in_flight=0,
        queued={}, rejected={}, retried=0, commands=list(commands),
    )  # fmt: skip


def worker(
    number: int = 1, *, cpu_s: float = 0.0, batches: int = 0, batched: int = 0
) -> WorkerUsage:
    return WorkerUsage(
        worker=number, deployment="fib/7", generation=1, version=1, memory=100, cpu_s=cpu_s,
        batches=batches, batched=batched,
    )  # fmt: skip


def counters(*parts: Stats | WorkerUsage) -> Counters:
    return Counters(
        seq=1,
        gateways=[part for part in parts if isinstance(part, Stats)],
        workers=[part for part in parts if isinstance(part, WorkerUsage)],
    )


def changes(*looks: Counters) -> dict[VersionKey, Sum]:
    """What came between the last two of some looks."""
    before: Seen | None = None
    for look in looks[:-1]:
        before = seen(before, look)
    return delta(before, looks[-1])


@pytest.mark.parametrize(
    ("looks", "requests"),
    [
        pytest.param([gateway(stats(5))], 0, id="nothing is known to be new at the first look"),
        pytest.param([gateway(stats(5)), gateway(stats(8))], 3, id="what was added"),
        pytest.param([gateway(), gateway(stats(4))], 4, id="a command that is new"),
        pytest.param([gateway(stats(5)), gateway(stats(2))], 2, id="a gateway started anew"),
        pytest.param(
            [gateway(stats(5), connections=9), gateway(stats(6), connections=2)], 6,
            id="one that has answered more since than before",
        ),
        pytest.param(
            [gateway(stats(5), stats(9, generation=2)), gateway(stats(7), stats(1, generation=2))],
            8, id="one that shows by another command that it was started anew",
        ),
        pytest.param(
            [gateway(stats(5)), gateway(stats(5), stats(3, generation=2))], 3,
            id="a new generation of the version",
        ),
        pytest.param([gateway(stats(5)), gateway(stats(5))], 0, id="nothing"),
    ],
)  # fmt: skip
def test_the_requests_of_a_version_between_two_looks(looks: list[Stats], requests: int) -> None:
    found = changes(*map(counters, looks))
    done = found.get(FIB, Sum())
    assert done.requests == requests
    assert sum(done.buckets) == requests
    assert done.latency_sum_s == pytest.approx(requests * 0.001)


def test_gateways_add_up_and_one_that_did_not_answer_is_compared_with_its_last_answer() -> None:
    both = counters(gateway(stats(5)), gateway(stats(10), number=1))
    one = counters(gateway(stats(6)))
    again = counters(gateway(stats(8)), gateway(stats(17), number=1))
    assert changes(both, one)[FIB].requests == 1
    assert changes(both, one, again)[FIB].requests == 2 + 7


def test_errors_are_answers_from_500_on() -> None:
    done = changes(
        counters(gateway()),
        counters(gateway(stats(9, by_status={200: 4, 404: 2, 500: 1, 503: 2}))),
    )[FIB]
    assert (done.requests, done.errors) == (9, 3)


def test_memory_is_that_of_all_workers_and_the_rest_what_they_added() -> None:
    done = changes(
        counters(worker(1, cpu_s=5.0, batches=3, batched=30), worker(2, cpu_s=9.0)),
        counters(
            worker(1, cpu_s=6.5, batches=4, batched=38),
            worker(3, cpu_s=0.5, batches=1, batched=1),
        ),
    )[FIB]  # fmt: skip
    assert (done.memory, done.cpu_s, done.batches, done.batched) == (200, 2.0, 2, 9)


def test_at_the_first_look_only_memory_is_known() -> None:
    assert changes(counters(worker(cpu_s=5.0), gateway(stats(3)))) == {FIB: Sum(memory=100)}


def test_a_worker_whose_children_ended_used_no_less() -> None:
    assert changes(counters(worker(cpu_s=5.0)), counters(worker(cpu_s=3.0)))[FIB].cpu_s == 0.0


def test_over_two_times_memory_is_the_greater_and_of_two_versions_the_sum() -> None:
    a = Sum(requests=1, buckets=buckets(b0=1), memory=10, cpu_s=1.0)
    b = Sum(requests=2, buckets=buckets(b0=1, b5=1), memory=30, cpu_s=0.5)
    expected = Sum(requests=3, buckets=buckets(b0=2, b5=1), memory=30, cpu_s=1.5)
    assert merge(a, b) == expected
    assert beside(a, b).memory == 40


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ({}, 0.5, None),
        ({"b0": 1}, 0.5, BUCKETS[0] / 2),
        ({"b0": 10}, 1.0, BUCKETS[0]),
        ({"b0": 99, "b9": 1}, 0.99, BUCKETS[0]),
        ({"b0": 98, "b9": 2}, 0.99, (BUCKETS[8] + BUCKETS[9]) / 2),
        ({"b18": 5}, 0.5, BUCKETS[-1]),
        ({"b3": 4, "b18": 1}, 0.99, BUCKETS[-1]),
    ],
)
def test_percentiles_are_read_off_the_buckets(
    counts: dict[str, int], share: float, expected: float | None
) -> None:
    assert percentile(buckets(**counts), share) == (
        None if expected is None else pytest.approx(expected)
    )


def test_buckets_are_stored_only_where_something_was_counted() -> None:
    assert pack(buckets()) == b""
    full = buckets(b0=1, b18=2**32 - 1)
    assert list(unpack(pack(full))) == full
    assert list(unpack(b"")) == buckets()


def test_buckets_with_other_bounds_are_left_out() -> None:
    assert list(unpack(b"\1\0\0\0" * 7)) == buckets()
