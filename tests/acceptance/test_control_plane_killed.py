"""Wherever it is killed, the control plane costs no prediction, and its next start finds one truth.

Every step of a rollout is a commit of the store, so killing it right before and right after each
commit is killing it at every step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from modelcloud.errors import ModelcloudError
from support.load import load
from support.mortal.sitecustomize import give
from support.online import SERVICE, Online, lost, online, steady
from support.server import wait_for

pytestmark = pytest.mark.xdist_group("acceptance")

MORTAL = Path(__file__).parents[1] / "support" / "mortal"
RATE = 50.0
#: From one more death within a minute on the control plane is started slowly.
KILLS = 3
#: For all to agree again, beside the machine's other work; alone it takes about two.
CONVERGED_S = 30.0
CANARY = {"name": "canary", "steps": [{"percent": 50, "watch_s": 0.5}]}
LONG_CANARY = {"name": "canary", "steps": [{"percent": 50, "watch_s": 4}]}


class Killer:
    """A platform whose control plane dies at a commit; version 1 or 2 takes the requests.

    Version 3 is there for those that name it.
    """

    def __init__(self, site: Online, order: Path) -> None:
        self.site = site
        self._order = order
        self._kills = 0

    def dies(self, operate: Callable[[Online], None], number: int, when: str) -> float:
        """Do it; when the control plane died at that commit meanwhile; 0.0: it did not."""
        give(self._order, number, when)
        with suppress(ModelcloudError, AssertionError):  # who asks may see it die
            operate(self.site)
        if self._order.exists():
            self.site.settle()
        if self._order.exists():
            self._order.unlink()
            return 0.0
        self._kills += 1
        return float(self._order.with_suffix(".died").read_text())

    def spare_the_brake(self) -> None:
        """Start anew before the node takes it for a crash loop."""
        if self._kills >= KILLS:
            self._kills = 0
            self.site.restart()


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    folder = tmp_path_factory.mktemp("killed")
    order = folder / "order"
    path = os.pathsep.join(filter(None, [str(MORTAL), os.environ.get("PYTHONPATH")]))
    with online(folder, PYTHONPATH=path, MODELCLOUD_TEST_KILL=str(order)) as site:
        for _ in range(3):
            site.register()
        site.deploy(1)
        site.deploy(3)
        yield Killer(site, order)


# ---- what it is killed in


def states(site: Online) -> dict[int, str]:
    """Version → state, of those deployed."""
    return {d["version"]: d["state"] for d in site.admin.deployments(SERVICE)}


def pair(site: Online) -> tuple[int, int]:
    """The version that serves by weight, and the one that may replace it."""
    return (1, 2) if 1 in states(site) else (2, 1)


def replace(site: Online, strategy: object, keep_warm_s: float = 0) -> None:
    """Let the versions 1 and 2 take turns."""
    old, new = pair(site)
    begun = site.begin(new, replaces=old, strategy=strategy, keep_warm_s=keep_warm_s)
    site.done(begun)


def fail(site: Online) -> None:
    old, new = pair(site)
    site.done(site.begin(new, replaces=old, options={"fail": "raise"}), "failed")


def recall(site: Online) -> None:
    old, new = pair(site)
    begun = site.begin(new, replaces=old, strategy=LONG_CANARY)
    wait_for("the watch", lambda: "watching" in site.phases())
    site.admin.rollback(SERVICE, old)
    site.done(begun, "rolled_back")


def roll_back(site: Online) -> None:
    site.done(site.admin.rollback(SERVICE, pair(site)[0]))


def scale(site: Online) -> None:
    version = pair(site)[0]
    replicas = 3 - site.deployment(version)["replicas"]
    site.admin.scale(SERVICE, version, replicas)
    wait_for("the replicas", lambda: site.deployment(version)["ready"] == replicas)


def bring(site: Online) -> None:
    if states(site).get(3) != "serving":
        site.deploy(3)


def stop(site: Online) -> None:
    site.admin.stop(SERVICE, 3)
    wait_for("it to be offline", lambda: states(site)[3] == "stopped")


def delete(site: Online) -> None:
    if 3 in states(site):
        site.admin.undeploy(SERVICE, 3)
    wait_for("it to be gone", lambda: 3 not in states(site))


#: What is done, and what has to be so before.
OPERATIONS: dict[str, tuple[Callable[[Online], None], ...]] = {
    "blue_green": (lambda site: replace(site, "blue_green"),),
    "canary": (lambda site: replace(site, CANARY),),
    "rolling": (lambda site: replace(site, "rolling"),),
    "recreate": (lambda site: replace(site, "recreate"),),
    "failing": (fail,),
    "recall": (recall,),
    "rollback": (roll_back, lambda site: replace(site, "blue_green", keep_warm_s=60)),
    "deploy": (bring, delete),
    "delete": (delete, bring),
    "stop": (stop, bring),
    "scale": (scale,),
}


#: Swept by CI; `make test-sweep` takes all of them, in a quarter of an hour.
SAMPLE = {("canary", "after"), ("deploy", "before")}
CASES = [
    pytest.param(operation, when, marks=[] if (operation, when) in SAMPLE else pytest.mark.sweep)
    for operation in OPERATIONS
    for when in ("before", "after")
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("operation", "when"), CASES)
def test_killed_at_any_commit_it_loses_nothing_and_converges(
    killer: Killer, operation: str, when: str
) -> None:
    operate, *prepare = OPERATIONS[operation]
    site = killer.site
    took: list[float] = []
    for number in count(1):
        killer.spare_the_brake()
        for step in prepare:
            step(site)
        site.settle()
        with load(site.up.port, site.path, rate=RATE) as running:
            died = killer.dies(operate, number, when)
            if died:
                site.settle(CONVERGED_S)
                took.append(time.monotonic() - died)
            steady(running)
        assert lost(running.samples) == []
        if not died:
            break
    assert len(took) >= 2, "it wrote nothing to be killed at"
    print(f"{operation}, {when}: {len(took)} kills, one truth within {max(took):.1f} s", flush=True)
