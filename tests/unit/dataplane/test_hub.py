"""A gateway follows route tables: over real unix sockets, with workers in every condition."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from modelcloud.config import Limits
from modelcloud.dataplane import messages
from modelcloud.dataplane.gateway import Control
from modelcloud.dataplane.hub import Gateway
from modelcloud.dataplane.messages import Idle, Published, RouteTable, WorkerAddress, WorkerOverdue
from modelcloud.dataplane.routes import DeploymentState, RoutedGeneration, build_table
from modelcloud.types import DeploymentRoute, Routing, ServiceRouting
from support.gateway_rig import Client, post, until
from support.loops import on_a_loop
from support.socket_workers import SIGNATURE, Node, SocketWorker, gateway, worker_in

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def table(snapshot: int, *workers: SocketWorker | WorkerAddress) -> RouteTable:
    addresses = tuple(w.address if isinstance(w, SocketWorker) else w for w in workers)
    generation = RoutedGeneration(number=1, version=1, signature=SIGNATURE, workers=addresses)
    routed = ServiceRouting(
        service="svc", at_root=True, deployments=(DeploymentRoute(deployment="svc"),)
    )
    return build_table(
        snapshot=snapshot,
        routing=Routing(services=(routed,)),
        deployments={"svc": DeploymentState(service="svc", generations=(generation,))},
        limits=Limits(),
    )


@on_a_loop
async def test_a_worker_in_a_long_call_delays_no_table_and_serves_when_it_is_done(
    tmp_path: Path,
) -> None:
    """It can say no hello while its model computes, and is neither sick nor in the way."""
    hub, node = gateway()
    async with worker_in(hub, tmp_path, 1) as worker:
        worker.awake.clear()
        await hub.publish(table(1, worker))
        assert node.told == [Published(snapshot=1, unreachable=[])]
        client = Client(hub)
        client.send(post())
        assert client.got == b""
        worker.awake.set()
        await until(lambda: client.statuses == [200])
        await hub.publish(table(2))
        await until(lambda: Idle(workers=[1]) in node.told)


@on_a_loop
async def test_a_worker_that_is_not_there_is_named_and_the_others_serve(tmp_path: Path) -> None:
    hub, node = gateway()
    gone = WorkerAddress(9, str(tmp_path / "gone.sock"), 1, 1)
    async with worker_in(hub, tmp_path, 1) as worker:
        await hub.publish(table(1, worker, gone))
        assert node.told == [Published(snapshot=1, unreachable=[9])]
        client = Client(hub)
        client.send(post())
        await until(lambda: client.statuses == [200])


@on_a_loop
async def test_a_worker_that_hangs_up_before_its_hello_is_unreachable(tmp_path: Path) -> None:
    hub, node = gateway()
    address = WorkerAddress(1, str(tmp_path / "w1.sock"), 1, 1)
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), address.socket)
    await hub.publish(table(1, address))
    assert node.told == [Published(snapshot=1, unreachable=[1])]
    server.close()


@on_a_loop
async def test_a_worker_that_becomes_idle_while_a_table_names_it_again_is_kept(
    tmp_path: Path,
) -> None:
    """A rollback: the old worker finishes its last request just then."""
    hub, node = gateway()
    async with (
        worker_in(hub, tmp_path, 1) as old,
        worker_in(hub, tmp_path, 2) as new,
        worker_in(hub, tmp_path, 3) as slow,
    ):
        await hub.publish(table(1, old))
        old.answering.clear()
        first = Client(hub)
        first.send(post())
        await hub.publish(table(2, new))
        slow.awake.clear()
        publishing = asyncio.ensure_future(hub.publish(table(3, old, slow)))
        await until(lambda: slow.connections)
        old.answering.set()
        await until(lambda: first.statuses == [200])
        slow.awake.set()
        await publishing
        assert Published(snapshot=3, unreachable=[]) in node.told
        assert Idle(workers=[1]) not in node.told
        assert [link.address.id for link in hub.pools["svc"].links] == [1, 3]
        assert old.connections == 1


@on_a_loop
async def test_of_tables_that_come_while_one_is_applied_the_newest_holds(tmp_path: Path) -> None:
    hub, node = gateway()
    async with worker_in(hub, tmp_path, 1) as one, worker_in(hub, tmp_path, 2) as two:
        one.awake.clear()
        first = asyncio.ensure_future(hub.publish(table(1, one)))
        await until(lambda: one.connections)
        assert await hub.publish(table(2, two)) is False
        assert await hub.publish(table(3, two)) is False
        one.awake.set()
        assert await first is True
        await until(lambda: Idle(workers=[1]) in node.told)
        published = [m.snapshot for m in node.told if isinstance(m, Published)]
        assert published == [1, 3]
        assert list(hub._links) == [2]


@on_a_loop
async def test_a_worker_that_dies_while_a_table_is_applied_is_reported(tmp_path: Path) -> None:
    hub, node = gateway()
    async with worker_in(hub, tmp_path, 1) as one, worker_in(hub, tmp_path, 2) as two:
        await hub.publish(table(1, one))
        two.awake.clear()
        publishing = asyncio.ensure_future(hub.publish(table(2, one, two)))
        await until(lambda: two.connections)
        hub._links[1].transport.abort()
        two.awake.set()
        await publishing
        assert WorkerOverdue(worker_id=1, overdue_s=0.0) in node.told
        assert [link.address.id for link in hub.pools["svc"].links] == [2]


@on_a_loop
async def test_a_service_that_is_gone_leaves_nothing(tmp_path: Path) -> None:
    hub, _ = gateway()
    async with worker_in(hub, tmp_path, 1) as worker:
        await hub.publish(table(1, worker))
        await hub.publish(RouteTable(snapshot=2))
        await until(lambda: not hub.pools["svc"].retiring)
        await hub.publish(RouteTable(snapshot=3))
        assert (hub.pools, hub._links) == ({}, {})


@on_a_loop
async def test_a_gateway_listens_once_and_only_after_a_table_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the first table still being applied, clients would get 404."""
    listening: list[int] = []
    control = Control()
    node = Node()
    monkeypatch.setattr(control, "send", node.send)
    hub = Gateway(messages.StartGateway(gateway_id=0, listen_fd=-1, limits=Limits()), control)

    async def listen(_: Gateway) -> Any:
        listening.append(len(hub.pools["svc"].links))
        await asyncio.sleep(0)

    monkeypatch.setattr(control, "_listen", listen)
    async with worker_in(hub, tmp_path, 1) as worker:
        worker.awake.clear()
        first = asyncio.ensure_future(control._publish(hub, table(1, worker)))
        await until(lambda: worker.connections)
        await control._publish(hub, table(2, worker))
        assert listening == []
        worker.awake.set()
        await first
        await control._publish(hub, table(3, worker))
    assert listening == [1]
