"""What is asked for fits beside what is in use, or the sums say by how much it does not."""

from __future__ import annotations

from modelcloud.control.deployments.quota_sums import Amounts, Bound, amounts, excess

GIB = 1 << 30


def test_what_fits_exactly_is_no_excess() -> None:
    tenths = Bound(whose="the node", uses=Amounts(cpu=0.7), has={"cpu": 1.0})
    assert excess(amounts(0.1, 0, 0, 3), [tenths]) == ""


def test_every_sum_over_a_bound_is_named_with_whose_it_is() -> None:
    group = Bound(whose="group lab", uses=Amounts(replicas=2), has={"replicas": 3})
    node = Bound(
        whose="the node", uses=Amounts(memory=6 * GIB), has={"memory": 8.0 * GIB, "gpu": 0}
    )
    assert excess(amounts(1, 2 * GIB, 0, 2), [group, node]) == (
        "replicas: 2 asked for + 2 in use = 4, group lab has 3; "
        "memory: 4 GiB asked for + 6 GiB in use = 10 GiB, the node has 8 GiB"
    )


def test_what_is_not_asked_for_is_not_over_even_where_too_much_is_in_use() -> None:
    lowered = Bound(whose="group lab", uses=Amounts(gpu=4), has={"gpu": 1})
    assert excess(amounts(1, 0, 0, 1), [lowered]) == ""


def test_what_is_without_limit_exceeds_a_strict_bound_and_no_other() -> None:
    has = {"cpu": 0.2, "memory": 2.0 * GIB, "gpu": 1.0, "replicas": 2.0}
    group = Bound(whose="group lab", uses=Amounts(), has=has, strict=True)
    node = Bound(whose="the node", uses=Amounts(), has=has)
    assert excess(amounts(0, 0, 0, 1), [group, node]) == (
        "cpu: without limit asked for, group lab has 0.2; "
        "memory: without limit asked for, group lab has 2 GiB"
    )
