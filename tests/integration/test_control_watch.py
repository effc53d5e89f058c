"""The node and its control plane: replaced when it hangs, slowly when it keeps dying."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from modelcloud.config import PlatformConfig
from modelcloud.node.brake import LIMIT
from modelcloud.node.control import SILENT_S, ControlPlane, Place
from modelcloud.node.logs import LineCutter
from modelcloud.node.orders import Counters, Standing
from modelcloud.node.reaper import Reaper
from modelcloud.types import Observed
from support.loops import on_a_loop
from support.node import TESTS

if TYPE_CHECKING:
    import pytest

PATIENCE_S = 30.0


class Watched:
    """A control plane and the clock it is watched by."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.answers = 0
        self.plane = ControlPlane(
            Place(
                module="support.stub_control",
                listen_fd=0,
                reaper=Reaper("test-control"),
                output=lambda: LineCutter(lambda _: None),
                clock=lambda: self.now,
                standing=self._standing,
                deployments=list,
                observe=lambda _: Observed(),
                refused_ports=dict,
                counters=self._counters,
                want=lambda _: None,
                route=lambda _: 0,
                routing=lambda: 0,
                on_answering=self._answering,
            )
        )

    async def passes(self, seconds: float, step_s: float = 0.25) -> None:
        """The node looks after it, again and again, for so long on its clock."""
        end = self.now + seconds
        while self.now < end:
            self.now += step_s
            self.plane.check()
            await asyncio.sleep(0.002)

    async def until(self, condition: Any) -> None:
        """It is looked after until this is so, while no time passes for it."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, "never came"
            self.plane.check()
            await asyncio.sleep(0.01)

    def _answering(self) -> None:
        self.answers += 1

    async def _counters(self, seq: int) -> Counters:
        return Counters(seq=seq, gateways=[], workers=[])

    @staticmethod
    def _standing() -> Standing:
        return Standing(
            config=PlatformConfig(), port=1, listen_fd=0, control_port=2, cpus=1.0, memory=1,
            gpus=0, deployments=0,
        )  # fmt: skip


@asynccontextmanager
async def watched(monkeypatch: pytest.MonkeyPatch, does: str) -> AsyncIterator[Watched]:
    monkeypatch.setenv("STUB_CONTROL", does)
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    found = Watched()
    try:
        yield found
    finally:
        await found.plane.stop()
        assert not found.plane.alive, "it ends before anything that it could take for trouble"


@on_a_loop
async def test_one_that_says_nothing_any_more_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(monkeypatch, "hang") as found:
        await found.until(lambda: found.answers == 1)
        await found.passes(SILENT_S - 1)
        assert (found.plane.alive, found.plane.deaths) == (True, 0)
        await found.passes(2)
        await found.until(lambda: found.answers == 2)
        assert found.plane.deaths == 1


@on_a_loop
async def test_one_that_shows_that_it_lives_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(monkeypatch, "live") as found:
        await found.until(lambda: found.answers == 1)
        for _ in range(4):
            await found.passes(SILENT_S - 5, step_s=1.0)
            await asyncio.sleep(0.1)
        assert (found.answers, found.plane.deaths) == (1, 0)


@on_a_loop
async def test_a_node_that_stood_still_itself_blames_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with watched(monkeypatch, "hang") as found:
        await found.until(lambda: found.answers == 1)
        found.now += 10 * SILENT_S
        found.plane.check()
        await found.passes(SILENT_S - 1)
        assert (found.plane.alive, found.plane.deaths) == (True, 0)


@on_a_loop
async def test_one_that_dies_again_and_again_is_started_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with watched(monkeypatch, "die") as found:
        for _ in range(200):
            await found.passes(0.5)
            await asyncio.sleep(0.01)
            if found.plane.deaths >= LIMIT:
                break
        assert found.plane.deaths == LIMIT
        assert found.plane.last_death == "the control plane exited with status 3"
        await found.passes(8)
        assert found.plane.deaths == LIMIT, "no start within the next ten seconds"
        monkeypatch.setenv("STUB_CONTROL", "live")
        await found.passes(5)
        await found.until(lambda: found.answers == 1)
