"""The rules of live update hold on a Ray cluster: gateways ask its replicas, and lose nothing.

On a real cluster of this machine, from outside. An open-loop client sends on schedule; any answer
but a 200 counts as lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.load import Load, failures, load, steady
from support.online import Online, again, lost, online
from support.ray_cluster import ENV, RayCluster, processes, ray_cluster
from support.server import wait_for

pytestmark = [
    pytest.mark.ray,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(400),
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: make test-ray"),
]

#: Can take another factor while it serves.
LIGHT = """
class Backend:
    def __init__(self, model_path):
        self.factor = 1
        self._model_init()

    def _model_init(self, model_path_lst=None):
        pass

    def reconfigure(self, config):
        self.factor = config.get("factor", 1)

    def _model_inference(self, param_dict):
        return self.factor
"""
RATE = 60.0
#: A replica comes up in some seconds, on a machine that does nothing else.
COMES_S = 120.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as running:
        yield running


@contextlib.contextmanager
def platform(folder: Path, cluster: RayCluster) -> Iterator[Online]:
    """A platform whose workers run in the cluster."""
    arguments = ("--engine", "ray", "--ray-address", cluster.address, "--drain", "5",
                 "--ray-http-port", str(cluster.http_port))  # fmt: skip
    with online(folder, *arguments, **ENV) as site:
        yield site


@pytest.fixture
def site(tmp_path: Path, cluster: RayCluster) -> Iterator[Online]:
    with platform(tmp_path, cluster) as running:
        yield running


@contextlib.contextmanager
def asked(site: Online) -> Iterator[Load]:
    """Load on the service during the block; after it, nothing may have been lost."""
    port = int(site.up.url.rpartition(":")[2])
    with load(port, site.path, {"x": 1}, rate=RATE) as running:
        steady(running)
        yield running
        steady(running)
    assert not lost(running.samples)


def workers(site: Online, version: int) -> list[int]:
    """Process ids of those that answer, as they say it themselves."""
    address = f"{site.up.url}/m/{version}/ask"
    answers = [site.up.client.post(address, json={}).json()["pid"] for _ in range(60)]
    return sorted(set(answers))


def held(cluster: RayCluster) -> list[int]:
    """The worker processes that the cluster holds, those not yet ready too."""
    return sorted(processes(cluster, "modelcloud.dataplane.worker"))


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


def applications(cluster: RayCluster) -> dict[str, Any]:
    """What Ray itself says that it serves."""
    port = int(cluster.address.rpartition(":")[2]) + 1
    answer = httpx.get(f"http://127.0.0.1:{port}/api/serve/applications/", timeout=30)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["applications"]
    return found


def serving(cluster: RayCluster) -> dict[str, int]:
    """Application → replicas that Serve says are running."""
    return {
        name: sum(r["state"] == "RUNNING" for r in app["deployments"]["replica"]["replicas"])
        for name, app in applications(cluster).items()
        if app["status"] == "RUNNING"
    }


def replica_actors(cluster: RayCluster) -> list[int]:
    return processes(cluster, "ray::ServeReplica")


def test_an_update_is_a_second_application_and_loses_no_request(
    site: Online, cluster: RayCluster
) -> None:
    site.deploy(site.register(), replicas=2)
    wait_for("the first application", lambda: [*serving(cluster).values()] == [2], COMES_S)
    (first,) = serving(cluster)
    second = site.register()
    with asked(site) as running:
        begun = site.begin(second, mode="replace", replaces=1)
        wait_for("both applications", lambda: len(applications(cluster)) == 2, COMES_S)
        site.done(begun)
    assert {sample.version for sample in running.samples} == {1, 2}
    wait_for("the second application alone", lambda: [*serving(cluster).values()] == [2], COMES_S)
    wait_for("the first one gone", lambda: len(applications(cluster)) == 1, COMES_S)
    ((name, application),) = applications(cluster).items()
    assert name != first
    address = f"http://127.0.0.1:{cluster.http_port}{application['route_prefix']}/ask"
    answer = httpx.post(address, json={}, timeout=30)
    assert answer.json()["answer"] == second, "Serve's own address answers too"


@pytest.mark.parametrize("how", ["raise", "kill"])
def test_a_bad_update_leaves_the_old_version_at_full_count(
    site: Online, cluster: RayCluster, how: str
) -> None:
    site.deploy(site.register(), replicas=2)
    before = workers(site, 1)
    bad = site.register(options={"fail": how})
    with asked(site) as running:
        begun = site.begin(bad, mode="replace", replaces=1)
        ended = site.done(begun, "failed")
        expected = {"raise": "there are no weights", "kill": "killed by SIGKILL"}[how]
        assert expected in ended["reason"]
    assert {sample.version for sample in running.samples} == {1}
    assert workers(site, 1) == before
    wait_for("its application to go", lambda: len(applications(cluster)) == 1, COMES_S)


def test_replicas_come_and_go_one_by_one_and_lose_no_request(
    site: Online, cluster: RayCluster
) -> None:
    site.deploy(site.register(), replicas=1)
    with asked(site):
        site.admin.scale("m", 1, replicas=3)
        wait_for("three", lambda: site.deployment(1)["ready"] == 3, COMES_S)
        wait_for("three replicas", lambda: [*serving(cluster).values()] == [3], COMES_S)
        site.admin.scale("m", 1, replicas=1)
        wait_for("one replica", lambda: [*serving(cluster).values()] == [1], COMES_S)
        wait_for("one", lambda: site.deployment(1)["ready"] == 1, COMES_S)
        wait_for("rest", lambda: len(site.deployment(1)["workers"]) == 1, COMES_S)


def test_a_replica_that_serve_takes_away_unasked_is_replaced_before_it_goes(
    site: Online, cluster: RayCluster
) -> None:
    """The node lets the youngest worker go, Serve the youngest replica: here they differ."""
    site.deploy(site.register(), replicas=2)
    oldest, _ = sorted(held(cluster), key=parent_of)
    with asked(site):
        os.kill(oldest, signal.SIGKILL)
        wait_for("another in its replica", lambda: oldest not in held(cluster), COMES_S)
        wait_for("both", lambda: site.deployment(1)["ready"] == 2, COMES_S)
        site.admin.scale("m", 1, replicas=1)
        wait_for("one replica", lambda: [*serving(cluster).values()] == [1], COMES_S)
        wait_for("one worker", lambda: len(held(cluster)) == 1, COMES_S)
        wait_for("full strength", lambda: site.full_strength(1), COMES_S)


@pytest.mark.parametrize("what", ["replica", "worker", "bridge", "control", "controller"])
def test_a_kill_loses_no_request_and_is_made_good(
    site: Online, cluster: RayCluster, what: str
) -> None:
    site.deploy(site.register(), replicas=2)
    before = workers(site, 1)
    with asked(site) as running:
        victim = {
            "replica": lambda: replica_actors(cluster)[0],
            "worker": lambda: before[0],
            "bridge": lambda: next(
                p for p, line in site.up.children().items() if "engines.ray" in line
            ),
            "control": lambda: site.up.pids("control")[0],
            "controller": lambda: processes(cluster, "ray::ServeController")[0],
        }[what]()
        os.kill(victim, signal.SIGKILL)
        steady(running)
        if what in {"replica", "worker"}:
            wait_for("another", lambda: workers(site, 1) != before, COMES_S)
        wait_for("full strength", lambda: again(lambda: site.full_strength(1)), COMES_S)
        wait_for("both", lambda: len(workers(site, 1)) == 2, COMES_S)
    if what in {"bridge", "control", "controller"}:
        assert workers(site, 1) == before, "no worker was touched"
        second = site.register()
        site.deploy(second, mode="replace", replaces=1)
        assert workers(site, second) != before


def test_a_platform_that_was_killed_finds_its_workers_again(
    site: Online, cluster: RayCluster
) -> None:
    site.deploy(site.register(), replicas=2)
    before = held(cluster)
    assert len(before) == 2
    site.start_again()
    wait_for("full strength", lambda: again(lambda: site.full_strength(1)), COMES_S)
    with asked(site):
        assert held(cluster) == before
    second = site.register()
    site.deploy(second, mode="replace", replaces=1, replicas=1)
    wait_for("one worker", lambda: len(held(cluster)) == 1, COMES_S)


def test_light_options_are_taken_by_the_workers_that_are_there(
    tmp_path: Path, site: Online, cluster: RayCluster
) -> None:
    site.model.joinpath("model.py").unlink()
    site.model.joinpath("backend.py").write_text(LIGHT)
    site.admin.register("m", path=str(site.model), group="admin")
    site.deploy(1, replicas=2)
    before = held(cluster)
    with load(int(site.up.url.rpartition(":")[2]), "/m/predict", {}, rate=RATE) as running:
        steady(running)
        accepted = site.admin.update("m", 1, options={"config": {"factor": 5}})
        site.done(accepted)
        steady(running)
    assert not failures(running.samples)
    assert held(cluster) == before
    answer = site.up.client.post(f"{site.up.url}/m/predict", json={})
    assert answer.json()["result"] == 5
    site.start_again()
    wait_for("full strength", lambda: again(lambda: site.full_strength(1)), COMES_S)
    assert held(cluster) == before, "what was changed in place is found again too"


def test_requirements_become_an_environment_where_the_replica_is(
    site: Online, cluster: RayCluster
) -> None:
    site.model.joinpath("requirements.txt").write_text("humanize==4.9.0\n")
    text = site.model.joinpath("model.py").read_text()
    site.model.joinpath("model.py").write_text(f"import humanize\n{text}")
    site.deploy(site.register())
    (worker,) = held(cluster)
    assert "/kept/modelcloud/cluster/envs/" in Path(f"/proc/{worker}/cmdline").read_text()


def test_a_node_that_is_lost_costs_no_request(tmp_path: Path) -> None:
    with ray_cluster() as cluster:
        joined = cluster.join(4)
        with platform(tmp_path, cluster) as site:
            site.deploy(site.register(), replicas=4)
            there = set(joined.pids())
            held = [pid for pid in workers(site, 1) if pid in there]
            assert held, "no worker runs on the second node"
            with asked(site):
                joined.kill()
                wait_for("them gone", lambda: not {*held} & {*workers(site, 1)}, COMES_S)
                wait_for("full strength", lambda: site.full_strength(1), COMES_S)


def test_a_cluster_that_is_not_there_fails_what_needs_it_and_says_so(tmp_path: Path) -> None:
    arguments = ("--engine", "ray", "--ray-address", "127.0.0.1:1", "--drain", "5")
    with online(tmp_path, *arguments, **ENV) as site:
        begun = site.begin(site.register())
        ended = site.done(begun, "failed")
        assert "the cluster at '127.0.0.1:1' cannot be reached" in ended["reason"]
