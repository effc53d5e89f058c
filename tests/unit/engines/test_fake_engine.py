"""The in-memory engine keeps the contract of `engines.base`."""

from __future__ import annotations

import asyncio

from modelcloud.engines.fake import FakeEngine
from modelcloud.types import Desired, GenerationSpec, GenerationWish, State


def wish(generation: int, replicas: int, *, routed: bool, restart: bool) -> GenerationWish:
    spec = GenerationSpec(
        service="fib", generation=generation, version=1, target="m.py", snapshot="", digest=""
    )
    return GenerationWish(spec=spec, replicas=replicas, routed=routed, restart=restart)


def serving(*wishes: GenerationWish) -> Desired:
    return Desired(service="fib", generations=wishes)


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
        engine.on_change(lambda: calls.append(len(engine.workers())))
        engine.want(serving(wish(1, 3, routed=True, restart=True)))
        engine.kill(1)
        assert calls == []
        await asyncio.sleep(0)
        return calls

    assert asyncio.run(scenario()) == [3]
