"""The conf.ini of a single machine, as it is, on a cluster of two nodes."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from support.load import failures, load, steady
from support.package_life import laid_out, live_through
from support.packages import Folder
from support.ray_cluster import ENV, RayCluster, processes, ray_cluster
from support.up import up

pytestmark = [
    pytest.mark.ray,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(560),
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: make test-ray"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """Two nodes."""
    with ray_cluster() as running:
        running.join(4)
        yield running


@pytest.fixture
def folder(cluster: RayCluster, tmp_path: Path) -> Iterator[Folder]:
    arguments = ("--engine", "ray", "--ray-address", cluster.address, "--drain", "5", "--cpus", "8",
                 "--ray-http-port", str(cluster.http_port))  # fmt: skip
    with up(tmp_path / "data", *arguments, **ENV) as running:
        yield laid_out(tmp_path, running)


def test_the_same_conf_ini_lives_in_a_cluster_of_two_nodes(
    folder: Folder, cluster: RayCluster
) -> None:
    live_through(folder)
    assert {one["engine"] for one in folder.up.admin.deployments("Faces")} == {"ray"}
    folder.edit("replicas = 2\ngpu_cost = 0", "replicas = 6\ngpu_cost = 0")
    folder.done("apply")
    held = {*processes(cluster, "modelcloud.dataplane.worker")}
    assert all(held & {*node.pids()} for node in cluster.nodes), "Ray places replicas on both"
    folder.edit("replicas = 6\ngpu_cost = 0", "replicas = 2\nengine = local\ngpu_cost = 0")
    with load(folder.port, "/extract", {"x": 1}, rate=50.0, method="GET") as running:
        steady(running)
        folder.done("apply")
        assert folder.pids("extract", 2) <= {*folder.up.pids("worker")}, "on the platform's machine"
        steady(running)
    assert failures(running.samples) == []
