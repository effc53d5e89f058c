"""The tour of the platform, from an empty folder, as the page tells it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelcloud.errors import Forbidden
from support.load import Sample, failures, load, mixed
from support.markdown import ROOT, blocks
from support.reader import Reader, reader
from support.server import wait_for

pytestmark = pytest.mark.xdist_group("acceptance")

PAGE = ROOT / "docs" / "tour.md"
#: Blocks that the test does more about, by what stands in them.
REPLACE, LAST_READ = "--replace 1", "$ as ada groups edit scoring --token-only"
ROW = {"type": "libsvm", "data": {"insts": "1:0 2:1 3:565 10:-65535 524:-65535"}}


@pytest.fixture
def visitor(tmp_path: Path) -> Iterator[Reader]:
    with reader(tmp_path) as found:
        yield found


def test_the_tour_can_be_followed_and_costs_no_request(visitor: Reader) -> None:
    done = set()
    for block in blocks(PAGE):
        if REPLACE in block.text:
            with load(visitor.platform.port, "/predict/m261/1", ROW, rate=50) as running:
                wait_for("answers of version 1", lambda: len(running.samples) > 50)
                visitor.follow(block)
            nothing_was_lost(running.samples)
            done.add(REPLACE)
            continue
        if block.text.startswith(LAST_READ):
            the_client_reads_what_the_page_shows(visitor)
            done.add(LAST_READ)
        visitor.follow(block)
    assert done == {REPLACE, LAST_READ}


def nothing_was_lost(samples: list[Sample]) -> None:
    """Every request was answered, and once version 7 had answered, by no older one."""
    assert failures(samples) == []
    for kept_alive in (True, False):
        versions = [s.version for s in samples if s.kept_alive is kept_alive]
        assert set(versions) == {1, 7}
    assert mixed(samples) == []


def the_client_reads_what_the_page_shows(visitor: Reader) -> None:
    """What the page reads with the command line, from Python; as Cleo, who may only read."""
    with visitor.platform.sign_in("cleo") as cleo:
        assert {g["name"]: g["level"] for g in cleo.groups()}["scoring"] == "read"
        assert [s["name"] for s in cleo.services(group="scoring")] == ["m261"]
        versions = cleo.versions("m261")
        assert [v["version"] for v in versions] == list(range(10, 0, -1))
        assert versions[-1]["metrics"]["auc"] == 0.9573
        assert cleo.curves("m261", 7)["curves"]["loss"][0] == [1, 1.43433]

        standing = {d["version"]: d for d in cleo.deployments("m261")}
        assert {v: d["status"] for v, d in standing.items()} == {
            **dict.fromkeys((2, 3, 4, 5, 7), "Serving"),
            10: "Failed",
        }
        assert "4 asked for + 0.5 in use = 4.5" in standing[10]["reason"]
        traffic = cleo.traffic("m261")
        assert traffic["labels"] == {"stable": 7}
        assert (traffic["weights"]["7"], traffic["weights"]["2"]) == (75, 25)

        went_back = next(r for r in cleo.rollouts(service="m261") if r["to"]["version"] == 8)
        assert went_back["state"] == "failed"
        assert "at 10 % of the requests" in went_back["reason"]
        for version, line in ((None, "going back: at 10 %"), (8, "ZeroDivisionError")):
            assert cleo.logs("m261", version, q=line)["lines"]

        # A point is there once its ten seconds are over.
        shadow = wait_for("copies", lambda: total(cleo.metrics("m261", 3)["points"], "shadowed"))
        same = total(cleo.metrics("m261", 3)["points"], "shadow_same")
        assert 0 < same <= shadow
        assert total(cleo.metrics("m261", 7)["points"], "requests") > 200
        assert total(cleo.metrics("m261", 8)["points"], "errors") > 0
        with pytest.raises(Forbidden):
            cleo.redeploy("m261", 2)
        with pytest.raises(Forbidden):
            cleo.set_traffic("m261", labels={})


def total(points: list[dict[str, float]], name: str) -> float:
    return sum(point[name] for point in points)
