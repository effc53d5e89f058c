"""The in-memory engine keeps the contract of `engines.base`."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from modelcloud.engines.fake import FakeEngine
from modelcloud.types import (
    Desired,
    GenerationSpec,
    GenerationWish,
    Routing,
    ServiceRouting,
    State,
)


def wish(generation: int, replicas: int, *, routed: bool, restart: bool) -> GenerationWish:
    spec = GenerationSpec(
        service="fib", generation=generation, version=1, target="m.py", snapshot="", digest=""
    )
    return GenerationWish(spec=spec, replicas=replicas, routed=routed, restart=restart)


def serving(*wishes: GenerationWish) -> Desired:
    return Desired(deployment="fib", generations=wishes)


def test_ready_workers_are_routed_once_the_gateways_acknowledge() -> None:
    engine = FakeEngine(signature={"commands": []})
    engine.want(serving(wish(1, 2, routed=True, restart=True)))
    assert engine.states(1) == [State.PENDING] * 2
    assert engine.observe("fib").degraded == "0 of 2 workers ready"
    for worker in engine.workers():
        while engine.advance(worker):
            pass
    assert engine.observe("fib").routed == {}
    engine.acknowledge()
    observed = engine.observe("fib")
    assert observed.routed == {1: (1, 2)}
    assert observed.signatures == {1: {"commands": []}}
    assert observed.degraded == ""


def test_an_unwanted_worker_drains_until_no_acknowledged_table_names_it() -> None:
    engine = FakeEngine()
    engine.want(serving(wish(1, 1, routed=True, restart=True)))
    engine.settle()
    engine.want(serving())
    assert engine.states(1) == [State.DRAINING]
    assert not engine.reap(1)
    engine.acknowledge()
    assert engine.reap(1)
    assert engine.observe("fib").workers == ()


def test_a_candidate_that_dies_is_reported_and_a_serving_worker_is_replaced() -> None:
    engine = FakeEngine()
    candidate = wish(2, 2, routed=False, restart=False)
    engine.want(serving(wish(1, 1, routed=True, restart=True), candidate))
    engine.kill(engine.workers(2)[0])
    engine.kill(engine.workers(1)[0])
    observed = engine.observe("fib")
    assert observed.failures == {2: "killed by signal 9"}
    assert [(w.generation, w.restarts) for w in observed.workers] == [(2, 0), (1, 1)]
    engine.want(serving(wish(1, 1, routed=True, restart=True)))
    assert engine.observe("fib").failures == {}


def test_fewer_replicas_stop_the_unready_first() -> None:
    engine = FakeEngine()
    engine.want(serving(wish(1, 2, routed=True, restart=True)))
    engine.hang(engine.workers(1)[0])
    engine.settle()
    engine.want(serving(wish(1, 1, routed=True, restart=True)))
    assert engine.states(1) == [State.STOPPED, State.SERVING]


def test_changes_are_announced_together_on_the_loop() -> None:
    async def scenario() -> list[int]:
        calls: list[int] = []
        engine = FakeEngine()
        end = engine.on_change(lambda _: calls.append(len(engine.workers())))
        engine.want(serving(wish(1, 3, routed=True, restart=True)))
        engine.kill(1)
        assert calls == []
        await asyncio.sleep(0)
        end()
        engine.kill(2)
        await asyncio.sleep(0)
        return calls

    assert asyncio.run(scenario()) == [3]


def test_each_deployment_has_its_own_wish_workers_and_changes() -> None:
    async def scenario() -> list[str]:
        changed: list[str] = []
        engine = FakeEngine()
        engine.on_change(changed.append)
        for key in ("m261/1", "m261/2"):
            wishes = (wish(7, 2, routed=True, restart=True),)
            engine.want(Desired(deployment=key, generations=wishes))
        engine.settle("m261/1")
        assert engine.states(7, "m261/1") == [State.SERVING] * 2
        assert engine.states(7, "m261/2") == [State.PENDING] * 2
        assert engine.observe("m261/2").routed == {}
        await asyncio.sleep(0)
        engine.want(Desired(deployment="m261/1"))
        engine.settle()
        assert list(engine.deployments) == ["m261/2"]
        assert engine.observe("m261/1").workers == ()
        await asyncio.sleep(0)
        return changed

    assert asyncio.run(scenario()) == ["m261/1", "m261/2", "m261/1", "m261/2"]


def test_a_percentage_is_observed_once_it_is_acknowledged_and_its_generation_has_a_worker() -> None:
    engine = FakeEngine()
    share = replace(wish(2, 1, routed=True, restart=False), percent=5.0)
    engine.want(serving(wish(1, 1, routed=True, restart=True), share))
    engine.settle(loads=False)
    assert engine.observe("fib").percents == {}
    engine.settle()
    assert engine.observe("fib").percents == {2: 5.0}
    engine.kill(engine.workers(2)[0])
    engine.acknowledge()
    assert engine.observe("fib").percents == {}


def test_a_generation_is_prepared_before_its_first_worker_starts() -> None:
    engine = FakeEngine(prepares=(State.FETCHING, State.BUILDING_ENV))
    engine.want(
        serving(wish(1, 1, routed=True, restart=True), wish(2, 1, routed=False, restart=False))
    )
    assert engine.observe("fib").preparing == {1: State.FETCHING, 2: State.FETCHING}
    engine.prepare(1)
    assert engine.observe("fib").preparing[1] is State.BUILDING_ENV
    assert engine.workers() == []
    engine.prepare(1)
    assert engine.states(1) == [State.PENDING]
    engine.kill(1)
    assert engine.states(1) == [State.PENDING]  # prepared once is prepared
    engine.fail_preparing(2, "no such package")
    observed = engine.observe("fib")
    assert (observed.preparing, observed.failures) == ({}, {2: "no such package"})
    assert not engine.prepare(2)


def test_how_services_are_reached_is_kept_to_be_looked_at() -> None:
    engine = FakeEngine()
    routing = Routing(services=(ServiceRouting(service="fib"),))
    engine.route(routing)
    assert engine.routing == routing
