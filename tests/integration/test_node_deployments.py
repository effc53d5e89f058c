"""One node, many deployments: none is the trouble of another, and services have ports."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from itertools import pairwise

import pytest
from msgspec.structs import replace

from modelcloud.node import fleets, sockets
from modelcloud.node import ports as ports_module
from modelcloud.types import Observed, Routing, ServiceRouting
from support import node as support
from support.loops import on_a_loop
from support.node import Deployed, Node, candidate, ready, running, serving, spec
from support.node_children import (
    OTHERS,
    children,
    descriptors,
    gateways,
    serve_one,
    until_descriptors,
)


@pytest.fixture(autouse=True)
def _others() -> None:
    OTHERS.clear()
    OTHERS.update(children())


# ---- many deployments


async def serve_each(node: Node, *keys: str) -> list[Deployed]:
    """One routed worker of generation 1 of each of these deployments."""
    found = [node.deployed(key) for key in keys]
    for deployed in found:
        deployed.want(serving(spec(1, deployed.key)))
    for deployed in found:
        await deployed.until_routed(1)
    return found


@on_a_loop
async def test_a_deployment_is_updated_without_touching_another_or_its_observers() -> None:
    async with running() as node:
        first, second, other = await serve_each(node, "fib/1", "fib/2", "sums/3")
        before = second.pids | other.pids
        changed: list[str] = []
        end = node.supervisor.on_change(changed.append)
        first.want(serving(spec(1, "fib/1")), candidate(spec(2, "fib/1")))
        await first.until_ready(2)
        first.want(serving(spec(2, "fib/1")))
        await first.until_routed(2)
        await first.until(lambda seen: [w.generation for w in seen.workers] == [2])
        end()
        assert set(changed) == {"fib/1"}
        assert second.pids | other.pids == before
        ids = [worker.id for worker in node.supervisor.workers]
        assert len(set(ids)) == 3
        assert sorted((await node.ask("tables"))[-1]) == sorted(ids)
        told = len(changed)
        other.want()
        await other.until(lambda seen: not seen.workers)
        assert len(changed) == told


@on_a_loop
async def test_a_killed_worker_is_the_trouble_of_its_deployment_alone() -> None:
    async with running() as node:
        first, second = await serve_each(node, "fib/1", "fib/2")
        (killed,), (stays,) = first.pids, second.pids
        os.kill(killed, signal.SIGKILL)
        await first.until(lambda seen: ready(seen, 1) not in ([killed], []))
        assert second.pids == {stays}
        assert second.seen.degraded == ""
        assert [worker.restarts for worker in first.seen.workers] == [1]


@on_a_loop
async def test_a_deployment_of_which_nothing_is_wanted_is_forgotten() -> None:
    async with running() as node:
        first, second = await serve_each(node, "fib/1", "fib/2")
        (killed,) = first.pids
        os.kill(killed, signal.SIGKILL)
        await first.until(lambda seen: [w.restarts for w in seen.workers] == [1])
        await first.until_routed(1)
        await node.ask("hold")
        first.want()
        await first.until(lambda seen: not seen.routed)
        assert node.supervisor.deployments == ["fib/1", "fib/2"]  # its worker is still in use
        await node.ask("release")
        await first.until(lambda seen: seen == Observed())
        assert node.supervisor.deployments == ["fib/2"]
        assert node.supervisor.worker_deaths == 1
        first.want()
        assert node.supervisor.deployments == ["fib/2"]
        assert list(second.seen.routed) == [1]
        first.want(serving(spec(2, "fib/1")))
        await first.until_routed(2)


@on_a_loop
async def test_starting_many_deployments_lets_others_be_heard_in_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fleets, "LOOK_S", 0.0)
    async with running() as node:
        keys = [f"fib/{number}" for number in range(1, 5)]
        started = [0]
        node.supervisor.on_change(lambda _: started.append(len(node.supervisor.workers)))
        await serve_each(node, *keys)
        assert {later - before for before, later in pairwise(started)} == {0, 1}


@on_a_loop
async def test_percentages_are_told_once_every_gateway_keeps_to_them() -> None:
    async with running(gateways=2) as node:
        await serve_one(node)
        slow, _ = sorted(gateways(node))
        node.want(serving(spec(1)), candidate(spec(2)))
        await node.until_ready(2)
        tried = replace(candidate(spec(2)), routed=True, percent=5.0)
        os.kill(slow, signal.SIGSTOP)
        try:
            node.want(serving(spec(1)), tried)
            await node.supervisor.stats(0.2)  # a while in which the other one takes the table
            assert (node.seen.percents, list(node.seen.routed)) == ({}, [1])
        finally:
            os.kill(slow, signal.SIGCONT)
        seen = await node.until(lambda seen: seen.percents)
        assert (seen.percents, sorted(seen.routed)) == ({2: 5.0}, [1, 2])


# ---- ports of services


def with_port(*ports: int) -> Routing:
    return Routing(services=tuple(ServiceRouting(service=f"s{port}", port=port) for port in ports))


def taken_port() -> tuple[int, socket.socket]:
    """A port that someone else has, and who that is."""
    (sock,) = sockets.reserve("127.0.0.1", 0, 1)
    return sock.getsockname()[1], sock


async def until_refused(node: Node, ports: set[int]) -> None:
    """Wait until it is told that these ports cannot be had, and no others."""
    told = asyncio.Event()
    end = node.supervisor.on_ports(told.set)
    while node.supervisor.refused_ports.keys() != ports:
        await asyncio.wait_for(told.wait(), support.PATIENCE_S)
        told.clear()
    end()


async def until_open(node: Node, port: int, *, is_open: bool = True) -> None:
    """Wait until a gateway answers at the port, or nobody listens there."""
    deadline = asyncio.get_running_loop().time() + support.PATIENCE_S
    while True:
        try:
            assert await node.ask("hello", port) == "pong"
            answers = True
        except (ConnectionRefusedError, ConnectionResetError):  # reset: it closed just then
            answers = False
        if answers is is_open:
            return
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


@on_a_loop
async def test_a_service_is_reached_at_its_own_port_as_long_as_it_wants_one() -> None:
    async with running(gateways=2) as node:
        port, owner = taken_port()
        owner.close()
        before = descriptors()
        node.supervisor.route(with_port(port))
        await until_open(node, port)
        assert descriptors() == before + 2
        node.supervisor.route(with_port())
        await until_open(node, port, is_open=False)
        assert node.supervisor.refused_ports == {}
        await until_descriptors(before)


@on_a_loop
async def test_a_port_that_someone_else_has_is_refused_in_words_and_taken_once_it_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ports_module, "RETRY_S", 0.1)
    async with running() as node:
        port, owner = taken_port()
        free, placeholder = taken_port()
        placeholder.close()
        node.supervisor.route(with_port(port, free, node.port, 70_000))
        await until_refused(node, {port, node.port, 70_000})
        refused = node.supervisor.refused_ports
        assert f"127.0.0.1:{port} is already in use" in refused[port]
        assert "70000 is no port" in refused[70_000]
        await until_open(node, free)
        owner.close()
        await until_refused(node, {node.port, 70_000})
        await until_open(node, port)
        node.supervisor.route(with_port(port))
        await until_refused(node, set())


@on_a_loop
async def test_a_gateway_that_is_back_serves_the_ports_again() -> None:
    async with running() as node:
        await serve_one(node)
        port, owner = taken_port()
        owner.close()
        node.supervisor.route(with_port(port))
        await until_open(node, port)
        (gateway,) = gateways(node)
        os.kill(gateway, signal.SIGKILL)
        assert await node.ask("tables", port) == [[1]]  # connected while there was none
        assert node.supervisor.gateway_deaths == 1
