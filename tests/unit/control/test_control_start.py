"""A control plane whose store is away at first waits for it, and ends if it cannot work at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from modelcloud.errors import StoreUnavailable
from modelcloud.store.store import Store
from support.control import ControlRig
from support.stores import Databases


class Part:
    """A part that is to wait for the store at first; once it is `back`, a start ends like this."""

    def __init__(self, end: Exception | None) -> None:
        self.end = end
        self.back = self.stopped = False

    async def start(self) -> None:
        if not self.back:
            raise StoreUnavailable("away")
        if self.end is not None:
            raise self.end

    async def stop(self) -> None:
        self.stopped = True


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelcloud.control.app.RETRY_S", 0.0)


def test_parts_wait_for_a_store_that_is_away(databases: Databases, tmp_path: Path) -> None:
    part = Part(None)
    with ControlRig(Store(databases.sqlite(tmp_path)), parts=(part,)) as rig:
        rig.start()
        assert not rig.app.state.started
        part.back = True
        rig.run(until(lambda: rig.app.state.started))
    assert part.stopped


def test_a_part_that_fails_after_the_wait_ends_the_control_plane(
    databases: Databases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    part = Part(RuntimeError("a bug"))
    with ControlRig(Store(databases.sqlite(tmp_path)), parts=(part,)) as rig:
        ended: list[bool] = []
        rig.app.state.give_up = lambda: ended.append(True)
        rig.start()
        part.back = True
        rig.run(until(lambda: bool(ended)))
    assert "cannot be started" in caplog.text
    assert not part.stopped


async def until(done: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + 20
    while not done():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0)
