"""Counters of the request path, kept as plain integers because they are touched per request.

Must never: format or aggregate; the node asks for them and does that.
"""

from __future__ import annotations

from bisect import bisect_left
from time import monotonic

from modelcloud.dataplane.messages import CommandStats

#: Upper bounds of the latency histogram, seconds.
BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip


class Counters:
    """What one command of one generation answered, through one gateway.

    Attributes:
        queue_sum: seconds that requests waited for a worker, of those that were sent to one.
        copies: the same of copies of other versions' requests, counted apart; None without any.
        same: of the copies, those answered as the version that was asked answered.
        different: likewise, those answered otherwise.
    """

    __slots__ = (
        "buckets", "by_status", "copies", "different", "last", "latency_sum", "nan_outputs", "ok",
        "queue_sum", "same",
    )  # fmt: skip

    def __init__(self) -> None:
        self.ok = 0  # status 200, apart because it is the hot one
        self.by_status: dict[int, int] = {}
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.latency_sum = 0.0
        self.queue_sum = 0.0
        self.nan_outputs = 0
        self.last = 0.0
        self.copies: Counters | None = None
        self.same = self.different = 0

    def record(self, status: int, seconds: float, now: float) -> None:
        """Count one answer that took `seconds` from arrival."""
        if status == 200:
            self.ok += 1
        else:
            self.by_status[status] = self.by_status.get(status, 0) + 1
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.latency_sum += seconds
        self.last = now

    def of_copies(self) -> Counters:
        """The counters for answers to copies of requests."""
        if self.copies is None:
            self.copies = Counters()
        return self.copies

    def to_stats(self, service: str, command: str, version: int, generation: int) -> CommandStats:
        """The record that travels to the node."""
        copies = self.copies or Counters()
        copied = copies.all_by_status()
        return CommandStats(
            service=service,
            command=command,
            version=version,
            generation=generation,
            by_status=self.all_by_status(),
            buckets=list(self.buckets),
            shadowed=sum(copied.values()),
            shadow_errors=sum(count for status, count in copied.items() if status >= 500),
            shadow_same=copies.same,
            shadow_different=copies.different,
            shadow_latency_sum_s=copies.latency_sum,
            latency_sum_s=self.latency_sum,
            queue_sum_s=self.queue_sum,
            nan_outputs=self.nan_outputs,
            last_call_s=monotonic() - self.last if self.last else -1.0,
        )

    def all_by_status(self) -> dict[int, int]:
        """How many answers had each status."""
        return {**self.by_status, 200: self.ok} if self.ok else dict(self.by_status)
