"""One gateway, many services: every request to its own, by weights, keys, versions and labels.

Over real unix sockets; nothing that waits is lost when pools come and go.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from modelcloud.codecs.media import FLAG_WRAPPED
from modelcloud.config import Limits
from modelcloud.dataplane.hub import COUNTED_GENERATIONS, Gateway
from modelcloud.dataplane.messages import RouteTable
from modelcloud.dataplane.routes import DeploymentState, RoutedGeneration, build_table
from modelcloud.types import (
    DeploymentRoute,
    Dispatch,
    DispatchPolicy,
    Routing,
    ServiceRouting,
    Sticky,
)
from support.gateway_rig import Client, get, post, settle, until
from support.loops import on_a_loop
from support.socket_workers import SIGNATURE, SocketWorker, gateway, worker_in

if TYPE_CHECKING:
    from pathlib import Path


def state(service: str, *workers: SocketWorker, **percents: float) -> DeploymentState:
    """A deployment with these ready workers; `g7=5` gives generation 7 that percentage."""
    of: dict[int, list[SocketWorker]] = {}
    for worker in workers:
        of.setdefault(worker.address.generation, []).append(worker)
    return DeploymentState(
        service=service,
        generations=tuple(
            RoutedGeneration(
                number=number,
                version=found[0].address.version,
                signature=SIGNATURE,
                workers=tuple(worker.address for worker in found),
                percent=percents.get(f"g{number}"),
            )
            for number, found in of.items()
        ),
    )


def table(
    snapshot: int, states: dict[str, DeploymentState], *services: ServiceRouting
) -> RouteTable:
    return build_table(
        snapshot=snapshot,
        routing=Routing(services=services),
        deployments=states,
        limits=Limits(),
    )


def service(name: str, *routes: DeploymentRoute, **fields: Any) -> ServiceRouting:
    return ServiceRouting(service=name, deployments=routes, **fields)


def ask(hub: Gateway, path: str, *headers: bytes, body: bytes = b"{}") -> Client:
    client = Client(hub)
    client.send(post(path, body, *headers))
    return client


async def answer(client: Client) -> int:
    """The number of the worker that answered."""
    await until(lambda: client.statuses)
    assert client.statuses == [200], client.got
    found = re.search(rb'"worker":(\d+)', client.got)
    assert found is not None
    return int(found[1])


@on_a_loop
async def test_every_service_is_reached_at_its_own_addresses_and_no_others(tmp_path: Path) -> None:
    hub, _ = gateway()
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(worker_in(hub, tmp_path, n)) for n in (1, 2, 3)]
        names = ("a", "b", "c")
        states = {f"{n}/1": state(n, w) for n, w in zip(names, workers, strict=True)}
        routes = [
            service(n, DeploymentRoute(deployment=f"{n}/1", versions=(1,), labels=("stable",)))
            for n in names
        ]
        await hub.publish(table(1, states, *routes))
        for name, worker in zip(names, workers, strict=True):
            for path in (f"/{name}/ask", f"/{name}/1/ask", f"/{name}/stable/ask"):
                assert await answer(ask(hub, path)) == worker.address.id
            assert not worker.received[-1].codec & FLAG_WRAPPED
            for path in (f"/predict/{name}", f"/predict/{name}/1", f"/predict/{name}/stable"):
                assert await answer(ask(hub, path)) == worker.address.id
                assert worker.received[-1].codec & FLAG_WRAPPED
        for path in ("/ask", "/a", "/a/2/ask", "/a/canary/ask", "/a/stable", "/d/ask"):
            client = ask(hub, path)
            assert client.statuses == [404]
            assert b'{"error":"nothing at ' in client.got
        for path in ("/predict/d", "/predict/a/2", "/predict/a/canary", "/predict/a/1/ask"):
            client = ask(hub, path)
            assert client.statuses == [404]
            assert client.got.endswith(
                b'{"message":"nothing at %b","code":404,"data":null}' % path.encode()
            )


@on_a_loop
async def test_weights_divide_the_requests(tmp_path: Path) -> None:
    hub, _ = gateway()
    async with worker_in(hub, tmp_path, 1) as one, worker_in(hub, tmp_path, 2, version=2) as two:
        states = {"m/1": state("m", one), "m/2": state("m", two)}
        routes = service(
            "m",
            DeploymentRoute(deployment="m/1", versions=(1,), weight=1.0),
            DeploymentRoute(deployment="m/2", versions=(2,), weight=3.0),
        )
        await hub.publish(table(1, states, routes))
        client = Client(hub)
        for _ in range(40):
            client.send(post("/m/ask") * 50)
            await until(lambda: len(client.connection.pending) == 0)
        assert len(one.received) + len(two.received) == 2000
        assert len(two.received) / 2000 == pytest.approx(0.75, abs=0.06)


@pytest.mark.parametrize(
    ("sticky", "headers", "body"),
    [
        (Sticky("header", "x-user"), (b"X-User: %d",), b"{}"),
        (Sticky("cookie", "sid"), (b"Cookie: a=b; sid=%d; c=d",), b"{}"),
        (Sticky("body", "user"), (), b'{"user": %d}'),
    ],
    ids=["header", "cookie", "body"],
)
@on_a_loop
async def test_a_client_stays_where_it_is_and_the_others_are_spread(
    sticky: Sticky, headers: tuple[bytes, ...], body: bytes, tmp_path: Path
) -> None:
    hub, _ = gateway()
    async with worker_in(hub, tmp_path, 1) as one, worker_in(hub, tmp_path, 2) as two:
        states = {"m/1": state("m", one), "m/2": state("m", two)}
        routes = [DeploymentRoute(deployment=key) for key in states]
        await hub.publish(table(1, states, service("m", *routes, sticky=sticky)))
        homes = Counter[int]()
        for user in range(40):
            lines = [line % user for line in headers]
            text = body % user if b"%d" in body else body
            found = {await answer(ask(hub, "/m/ask", *lines, body=text)) for _ in range(4)}
            assert len(found) == 1
            homes.update(found)
        assert set(homes) == {1, 2}


@on_a_loop
async def test_a_key_of_the_pools_policy_keeps_a_client_at_one_worker(tmp_path: Path) -> None:
    hub, _ = gateway()
    dispatch = Dispatch(policy=DispatchPolicy.CONSISTENT_HASH, key="query:user")
    async with (
        worker_in(hub, tmp_path, 1, generation=1) as one,
        worker_in(hub, tmp_path, 2, generation=1) as two,
    ):
        known = state("m", one, two)
        deployment = DeploymentState(service="m", generations=known.generations, dispatch=dispatch)
        routes = service("m", DeploymentRoute(deployment="m/1"))
        await hub.publish(table(1, {"m/1": deployment}, routes))
        homes = Counter[int]()
        for user in range(20):
            found = {await answer(ask(hub, f"/m/ask?user={user}")) for _ in range(4)}
            assert len(found) == 1
            homes.update(found)
        assert set(homes) == {1, 2}


@on_a_loop
async def test_a_shadow_gets_copies_and_answers_nobody(tmp_path: Path) -> None:
    hub, _ = gateway()
    async with worker_in(hub, tmp_path, 1) as one, worker_in(hub, tmp_path, 2) as shadow:
        states = {"m/1": state("m", one), "m/2": state("m", shadow)}
        routes = service(
            "m",
            DeploymentRoute(deployment="m/1"),
            DeploymentRoute(deployment="m/2", versions=(2,), weight=0.0, shadow=1.0),
        )
        await hub.publish(table(1, states, routes))
        client = Client(hub)
        for number in range(5):
            client.send(post("/m/ask", b"%d" % number))
            await until(lambda: not client.connection.pending)
        assert client.got.count(b'{"worker":1}') == 5
        await until(lambda: len(shadow.received) == 5)
        assert [r.body for r in shadow.received] == [b"0", b"1", b"2", b"3", b"4"]
        assert await answer(ask(hub, "/m/2/ask")) == 2
        assert len(one.received) == 5


@on_a_loop
async def test_a_canary_that_ends_leaves_its_waiting_requests_to_the_others(
    tmp_path: Path,
) -> None:
    """It goes back: the ones inside its worker are answered there, the others elsewhere."""
    hub, _ = gateway()
    routes = service("m", DeploymentRoute(deployment="m/1"))
    async with worker_in(hub, tmp_path, 1) as old, worker_in(hub, tmp_path, 2) as new:
        await hub.publish(table(1, {"m/1": state("m", old)}, routes))
        await hub.publish(table(2, {"m/1": state("m", old, new, g2=100)}, routes))
        assert set(hub.pools) == {"m/1", "m/1@2"}
        new.answering.clear()
        clients = [ask(hub, "/m/ask") for _ in range(6)]
        await until(lambda: len(new.received) == 1)
        assert len(hub.pools["m/1@2"].queue) == 4  # two are inside
        await hub.publish(table(3, {"m/1": state("m", old)}, routes))
        assert set(hub.pools) == {"m/1"}
        assert [await answer(client) for client in clients[2:]] == [1] * 4
        new.answering.set()
        assert [await answer(client) for client in clients[:2]] == [2] * 2
        await until(lambda: set(hub._links) == {1})


@on_a_loop
async def test_a_canary_that_becomes_all_keeps_its_connection_and_its_queue(
    tmp_path: Path,
) -> None:
    hub, _ = gateway()
    routes = service("m", DeploymentRoute(deployment="m/1"))
    async with worker_in(hub, tmp_path, 1) as old, worker_in(hub, tmp_path, 2) as new:
        await hub.publish(table(1, {"m/1": state("m", old, new, g2=100)}, routes))
        new.answering.clear()
        clients = [ask(hub, "/m/ask") for _ in range(6)]
        await until(lambda: len(new.received) == 1)
        await hub.publish(table(2, {"m/1": state("m", new)}, routes))
        assert set(hub.pools) == {"m/1"}
        new.answering.set()
        assert [await answer(client) for client in clients] == [2] * 6
        assert new.connections == 1
        await until(lambda: set(hub._links) == {2})


@on_a_loop
async def test_a_worker_that_dies_after_its_pool_has_gone_costs_no_request(tmp_path: Path) -> None:
    hub, _ = gateway()
    routes = service("m", DeploymentRoute(deployment="m/1"))
    async with worker_in(hub, tmp_path, 1) as old, worker_in(hub, tmp_path, 2) as new:
        await hub.publish(table(1, {"m/1": state("m", old, new, g2=100)}, routes))
        new.answering.clear()
        clients = [ask(hub, "/m/ask") for _ in range(2)]
        await until(lambda: new.received)
        await hub.publish(table(2, {"m/1": state("m", old)}, routes))
        hub._links[2].transport.abort()
        assert [await answer(client) for client in clients] == [1, 1]
        new.answering.set()


@on_a_loop
async def test_a_worker_may_go_from_one_living_pool_to_another(tmp_path: Path) -> None:
    """Back to a generation that is kept warm, as a canary."""
    hub, _ = gateway()
    routes = service("m", DeploymentRoute(deployment="m/1"))
    async with worker_in(hub, tmp_path, 1) as one, worker_in(hub, tmp_path, 2) as two:
        await hub.publish(table(1, {"m/1": state("m", one, two)}, routes))
        two.answering.clear()
        one.answering.clear()
        held = [ask(hub, "/m/ask") for _ in range(4)]  # two in each
        await until(lambda: one.received and two.received)
        await hub.publish(table(2, {"m/1": state("m", one, two, g1=100)}, routes))
        assert [link.address.id for link in hub.pools["m/1@1"].links] == [1]
        assert [link.address.id for link in hub.pools["m/1"].links] == [2]
        assert not hub.pools["m/1"].retiring
        one.answering.set()
        assert await answer(ask(hub, "/m/ask")) == 1
        two.answering.set()
        assert sorted([await answer(client) for client in held]) == [1, 1, 2, 2]
        assert (one.connections, two.connections) == (1, 1)


@pytest.mark.parametrize("seed", range(10))
@on_a_loop
async def test_no_request_fails_whatever_tables_come(seed: int, tmp_path: Path) -> None:
    """Two deployments, three generations of one of them: all orders of canaries and switches."""
    hub, _ = gateway()
    chance = random.Random(seed)
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(worker_in(hub, tmp_path, n)) for n in range(1, 5)
        ]
        *own, other = workers
        clients: list[Client] = []
        for snapshot in range(1, 40):
            percents = {f"g{w.address.id}": chance.choice((1, 30, 70, 100)) for w in own}
            routed = chance.sample(own, chance.randint(1, 3))
            main = chance.choice(routed).address.id
            del percents[f"g{main}"]
            states = {"m/1": state("m", *routed, **percents), "m/2": state("m", other)}
            named = ["m/1", "m/2"][: chance.randint(1, 2)]
            sticky = chance.choice((None, Sticky("header", "x-user")))
            routes = [DeploymentRoute(deployment=key) for key in named]
            publishing = asyncio.ensure_future(
                hub.publish(table(snapshot, states, service("m", *routes, sticky=sticky)))
            )
            for worker in workers:
                (worker.answering.set if chance.random() < 0.7 else worker.answering.clear)()
            if snapshot > 1:
                clients += [ask(hub, "/m/ask", b"X-User: %d" % n) for n in range(5)]
            await publishing
            clients += [ask(hub, "/m/ask", b"X-User: %d" % n) for n in range(5)]
        for worker in workers:
            worker.answering.set()
        await until(lambda: all(client.statuses for client in clients))
        assert {status for client in clients for status in client.statuses} == {200}
        assert all(not pool.queue for pool in hub.pools.values())
        await until(lambda: all(not link.inflight for link in hub._links.values()))


@on_a_loop
async def test_what_waits_for_a_deployment_that_is_deleted_is_told_so(tmp_path: Path) -> None:
    hub, _ = gateway()
    routes = service("m", DeploymentRoute(deployment="m/1"))
    async with worker_in(hub, tmp_path, 1) as worker:
        await hub.publish(table(1, {"m/1": state("m", worker)}, routes))
        worker.answering.clear()
        clients = [ask(hub, "/m/ask") for _ in range(3)]
        await until(lambda: worker.received)
        await hub.publish(table(2, {}))
        assert clients[2].statuses == [503]
        worker.answering.set()
        assert [await answer(client) for client in clients[:2]] == [1, 1]


@on_a_loop
async def test_all_services_switch_in_one_go(tmp_path: Path) -> None:
    """A worker that is slow to greet holds the whole table back, never a half of it."""
    hub, _ = gateway()
    async with (
        worker_in(hub, tmp_path, 1) as one,
        worker_in(hub, tmp_path, 2) as two,
        worker_in(hub, tmp_path, 3) as other,
        worker_in(hub, tmp_path, 4) as slow,
    ):
        services = [service(n, DeploymentRoute(deployment=f"{n}/1")) for n in "ab"]
        await hub.publish(table(1, {"a/1": state("a", one), "b/1": state("b", other)}, *services))
        slow.awake.clear()
        later = table(2, {"a/1": state("a", two), "b/1": state("b", slow)}, *services)
        publishing = asyncio.ensure_future(hub.publish(later))
        await until(lambda: two.connections and slow.connections)
        assert await answer(ask(hub, "/a/ask")) == 1
        slow.awake.set()
        await publishing
        assert await answer(ask(hub, "/a/ask")) == 2
        assert await answer(ask(hub, "/b/ask")) == 4


@on_a_loop
async def test_counters_are_those_of_a_service_and_of_what_is_online_as_long_as_it_is(
    tmp_path: Path,
) -> None:
    """Generation numbers are a service's own, and one may stay while others come and go."""
    hub, _ = gateway()
    async with worker_in(hub, tmp_path, 1, generation=1) as worker:
        await hub.publish(
            table(1, {"m/1": state("m", worker)}, service("m", DeploymentRoute(deployment="m/1")))
        )
        await answer(ask(hub, "/m/ask"))
        for number in range(2, 100):
            hub.counters("m", "ask", 1, number)
            hub.counters("other", "ask", 1, 2 * number)
    kept = {(stats.service, stats.generation) for stats in hub.stats(1).commands}
    newest = range(100 - COUNTED_GENERATIONS - 1, 100)
    assert {n for service, n in kept if service == "m"} == {1, *newest}
    assert {n for service, n in kept if service == "other"} == {2 * n for n in newest}


@on_a_loop
async def test_a_get_describes_the_command_of_the_newest_deployment(tmp_path: Path) -> None:
    hub, _ = gateway()
    async with worker_in(hub, tmp_path, 1) as worker:
        await hub.publish(
            table(1, {"m/1": state("m", worker)}, service("m", DeploymentRoute(deployment="m/1")))
        )
        client = Client(hub)
        client.send(get("/predict/m"))
        await settle()
        assert client.statuses == [200]
        body = msgspec.json.decode(client.got.partition(b"\r\n\r\n")[2])
        assert (body["message"], body["code"], body["data"]["name"]) == ("SUCCESS", 0, "ask")
        assert worker.received == []
