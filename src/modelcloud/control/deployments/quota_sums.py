"""Whether what is asked for fits beside what is in use, with the sums in words.

Must never: ask the store; whoever calls brings the amounts.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """Of each resource: processors, bytes, devices, workers."""

    cpu: float = 0.0
    memory: int = 0
    gpu: float = 0.0
    replicas: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            cpu=self.cpu + other.cpu,
            memory=self.memory + other.memory,
            gpu=self.gpu + other.gpu,
            replicas=self.replicas + other.replicas,
        )


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody has, and what is in use of it.

    Attributes:
        whose: in words, such as `group lab`.
        uses: by everything online but what is asked for.
        has: resource → amount; one that is missing is not limited.
        strict: whether replicas that do not limit a resource exceed what there is of it.
    """

    whose: str
    uses: Amounts
    has: dict[str, float]
    strict: bool = False


#: Of which a replica that names none may use any amount; of devices it gets none.
_WITHOUT_LIMIT_AT_0 = frozenset({"cpu", "memory"})


def amounts(cpu: float, memory: int, gpu: float, replicas: int) -> Amounts:
    """What so many replicas use together; a resource of 0 is not limited and counts as nothing."""
    return Amounts(
        cpu=cpu * replicas, memory=memory * replicas, gpu=gpu * replicas, replicas=replicas
    )


def excess(asked: Amounts, bounds: Iterable[Bound]) -> str:
    """The sums that are over a bound, in words; empty when everything fits."""
    over = []
    for bound in bounds:
        for name, limit in bound.has.items():
            wants, used = getattr(asked, name), getattr(bound.uses, name)
            if bound.strict and name in _WITHOUT_LIMIT_AT_0 and not wants:
                over.append(
                    f"{name}: without limit asked for, {bound.whose} has {_words(name, limit)}"
                )
            # Tenths of processors do not add up exactly.
            if wants and wants + used > limit + 1e-9:
                over.append(
                    f"{name}: {_words(name, wants)} asked for + {_words(name, used)} in use = "
                    f"{_words(name, wants + used)}, {bound.whose} has {_words(name, limit)}"
                )
    return "; ".join(over)


def _words(name: str, amount: float) -> str:
    if name != "memory":
        return f"{amount:.6g}"
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if amount >= size:
            return f"{amount / size:.4g} {unit}"
    return f"{amount:.0f} bytes"
