"""A generation is made ready before its workers start, and they keep to their instance type."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from modelcloud.types import (
    DeploymentRoute,
    GenerationSpec,
    Observed,
    Resources,
    Routing,
    ServiceRouting,
    State,
)
from support import node as support
from support.loops import on_a_loop
from support.node import Node, candidate, running, serving
from support.projects import Project

TELLS = """
import importlib.metadata, os, pathlib

NAMES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")

def tell(package: str = "msgspec") -> list:
    beside = pathlib.Path(__file__).with_name("weights.txt").read_text()
    return [importlib.metadata.version(package), beside, *map(os.environ.get, NAMES)]
"""
GROWS = """
import threading

kept = []

def grow(mib: int = 0) -> bool:
    # After the answer, so that no request is under way when the worker is ended.
    threading.Timer(0.01, lambda: kept.append(b"x" * (mib * 1024 * 1024))).start()
    return True
"""
MIB = 1024 * 1024


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path / "project", tmp_path / "staged")
    project.write("model.py", TELLS)
    project.write("weights.txt", "w1")
    return project


def a_node(
    tmp_path: Path, *, gpus: int = 0, build_s: float = 60.0
) -> AbstractAsyncContextManager[Node]:
    return running(
        worker_module="modelcloud.dataplane.worker",
        gateway_module="modelcloud.dataplane.gateway",
        gpus=gpus,
        envs=(str(tmp_path / "envs"), build_s),
    )


def artifact(project: Project, key: str = support.SERVICE, **given: Any) -> GenerationSpec:
    spec = project.keep(deployment=key, verify=True, **given)
    return replace(spec, service=key.partition("/")[0])


async def ask(node: Node, path: str, **inputs: Any) -> Any:
    async with httpx.AsyncClient(timeout=support.PATIENCE_S) as client:
        answer = await client.post(f"http://127.0.0.1:{node.port}{path}", json=inputs)
        return answer.raise_for_status().json()["result"]


def failure(seen: Observed) -> str:
    return next(iter(seen.failures.values()), "")


@on_a_loop
async def test_conflicting_requirements_run_side_by_side(tmp_path: Path, project: Project) -> None:
    keys = {"a/1": "1.15.0", "b/2": "1.16.0"}
    async with a_node(tmp_path) as node:
        services = [
            ServiceRouting(service=key[0], deployments=(DeploymentRoute(deployment=key),))
            for key in keys
        ]
        node.supervisor.route(Routing(services=tuple(services)))
        for key, version in keys.items():
            requirements = f"six=={version}\n"
            node.deployed(key).want(serving(artifact(project, key, requirements=requirements)))
        for key, version in keys.items():
            await node.deployed(key).until_routed(1)
            assert (await ask(node, f"/{key[0]}/tell", package="six"))[0] == version


@on_a_loop
async def test_the_files_of_an_artifact_are_beside_its_code(
    tmp_path: Path, project: Project
) -> None:
    async with a_node(tmp_path) as node:
        node.want(serving(artifact(project)))
        await node.until_routed(1)
        assert (await ask(node, "/tell"))[1] == "w1"


@on_a_loop
async def test_a_damaged_artifact_is_never_loaded(tmp_path: Path, project: Project) -> None:
    spec = artifact(project)
    weights = Path(spec.snapshot) / "weights.txt"
    weights.chmod(0o600)
    weights.write_text("w2")
    async with a_node(tmp_path) as node:
        node.want(candidate(spec))
        seen = await node.until(failure)
        assert "weights.txt" in failure(seen)
        assert not seen.workers


@on_a_loop
async def test_requirements_that_cannot_be_had_are_the_verdict_with_the_reason(
    tmp_path: Path, project: Project
) -> None:
    steps: set[State] = set()
    async with a_node(tmp_path) as node:
        node.supervisor.on_change(lambda _: steps.update(node.seen.preparing.values()))
        node.want(candidate(artifact(project, requirements="six==99.1\n")))
        assert "six==99.1" in failure(await node.until(failure))
    assert steps == {State.FETCHING, State.BUILDING_ENV}


@on_a_loop
async def test_a_preparation_that_nobody_wants_any_more_is_ended(
    tmp_path: Path, project: Project
) -> None:
    async with a_node(tmp_path) as node:
        node.want(candidate(artifact(project, requirements="scikit-learn\n")))
        await node.until(lambda seen: seen.preparing)
        node.want()
        await node.until(lambda seen: seen == Observed())


@on_a_loop
async def test_a_worker_gets_the_threads_and_devices_of_its_instance_type(
    tmp_path: Path, project: Project
) -> None:
    async with a_node(tmp_path, gpus=2) as node:
        node.want(serving(artifact(project, resources=Resources(cpu=2.5, gpu=1.0))))
        await node.until_routed(1)
        assert (await ask(node, "/tell"))[2:] == ["3", "0"]
        assert [worker.gpus for worker in node.seen.workers] == [(0,)]


@on_a_loop
async def test_more_replicas_than_devices_fail_in_words(tmp_path: Path, project: Project) -> None:
    async with a_node(tmp_path, gpus=1) as node:
        node.want(candidate(artifact(project, resources=Resources(gpu=0.6)), 2))
        assert "needs 0.6 of a GPU" in failure(await node.until(failure))


@on_a_loop
async def test_a_worker_beyond_its_memory_is_replaced_and_the_reason_says_so(
    tmp_path: Path, project: Project
) -> None:
    project.write("model.py", GROWS)
    async with a_node(tmp_path) as node:
        node.want(serving(artifact(project, resources=Resources(memory=200 * MIB))))
        before = await node.until_routed(1)
        assert await ask(node, "/grow", mib=300)
        seen = await node.until(lambda seen: seen.degraded)
        assert "MiB of the 200 MiB that its instance type gives" in seen.degraded
        await node.until(lambda seen: seen.routed.get(1, before) != before)
        assert await ask(node, "/grow", mib=0)
