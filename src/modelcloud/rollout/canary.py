"""What a canary step is judged by: the answers that the candidate gave since the step began.

Must never: decide what follows; that is `policy`. Plain data and arithmetic on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import msgspec

from modelcloud.types import StrategySpec


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """Answers of one generation, counted since its first.

    Attributes:
        requests: all of them.
        errors: those with a status of 500 or more.
        buckets: counts by time from arrival to answer, as `dataplane.metrics.BUCKETS` divides it.
    """

    requests: int = 0
    errors: int = 0
    buckets: tuple[int, ...] = ()

    def since(self, earlier: Answers) -> Answers:
        """Those that came after `earlier`."""
        pairs = zip_longest(self.buckets, earlier.buckets, fillvalue=0)
        return Answers(
            requests=max(0, self.requests - earlier.requests),
            errors=max(0, self.errors - earlier.errors),
            buckets=tuple(max(0, now - then) for now, then in pairs),
        )

    @property
    def error_rate(self) -> float:
        """Share of errors, 0 to 1; 0 of none."""
        return self.errors / self.requests if self.requests else 0.0


def percentile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float:
    """The time within which a share of the counted answers came, in seconds.

    Within a bucket times are taken as evenly spread, as Prometheus' `histogram_quantile` does.

    Args:
        bounds: upper bounds of the buckets, ascending; beyond the last one lies one more bucket,
            of whose answers only that bound is known.
        counts: answers in each; 0.0 is returned when there are none.
        share: 0.99 for the 99th percentile.
    """
    rank, passed, lower = share * sum(counts), 0, 0.0
    for upper, count in zip(bounds, counts, strict=False):
        if count and passed + count >= rank:
            return lower + (upper - lower) * (rank - passed) / count
        passed, lower = passed + count, upper
    return lower if passed < sum(counts) else 0.0


def broken_limit(spec: StrategySpec, seen: Answers, bounds: Sequence[float]) -> str:
    """Which limit the answers of a step break, in words; "" when none, or too few to judge."""
    if seen.requests < spec.min_requests:
        return ""
    if seen.error_rate > spec.max_error_rate:
        return (
            f"{seen.error_rate:.1%} of {seen.requests} answers were errors "
            f"(the limit is {spec.max_error_rate:.1%})"
        )
    p99_ms = percentile(bounds, seen.buckets, 0.99) * 1000
    if spec.max_p99_ms and p99_ms > spec.max_p99_ms:
        return (
            f"the 99th percentile of {seen.requests} answers was {p99_ms:.3g} ms "
            f"(the limit is {spec.max_p99_ms:.3g} ms)"
        )
    return ""


def summary(spec: StrategySpec, seen: Answers, bounds: Sequence[float]) -> str:
    """What a step that passed has shown, in words."""
    if seen.requests < spec.min_requests:
        return f"{seen.requests} answers, too few to judge"
    p99_ms = percentile(bounds, seen.buckets, 0.99) * 1000
    return f"{seen.requests} answers, {seen.error_rate:.1%} errors, p99 {p99_ms:.3g} ms"
