"""What is counted of an observation."""

from __future__ import annotations

import pytest

from modelcloud.rollout.counts import share
from modelcloud.types import Observed


@pytest.mark.parametrize(
    ("routed", "percents", "expected"),
    [
        ({1: (1, 2)}, {}, 0),  # not routed
        ({1: (1, 2), 2: ()}, {2: 20.0}, 0),  # routed, and no worker is ready
        ({1: (1, 2), 2: (3,)}, {2: 20.0}, 20),  # a canary, however many workers it has
        ({1: (1, 2), 2: (3,)}, {}, 33.3),  # rolling, by workers
        ({1: (1, 2), 2: (3,), 3: (4,)}, {3: 40.0}, 20),
        ({2: (3,)}, {}, 100),
    ],
)
def test_the_share_of_a_generation_is_by_its_percentage_or_its_workers(
    routed: dict[int, tuple[int, ...]], percents: dict[int, float], expected: float
) -> None:
    assert share(Observed(routed=routed, percents=percents), 2) == expected
