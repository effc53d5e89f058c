"""Open pages are told of every change, by one look for all; without pages nobody looks."""

from __future__ import annotations

import asyncio

import pytest

from modelcloud.dashboard import watch
from modelcloud.dashboard.watch import Watcher
from support.platform import PlatformRig

WAIT_S = 20.0


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.02)
    monkeypatch.setattr(watch, "REST_S", 0.0)


async def nobody_follows(platform: PlatformRig) -> None:
    for _ in range(1000):  # the task that looked has a few steps to its end
        if not platform.reconcilers.changes.followers:
            return
        await asyncio.sleep(0)
    raise AssertionError("somebody looks still")


def test_every_follower_is_told_of_what_anybody_changed(platform: PlatformRig) -> None:
    ann = platform.user("ann")
    watcher = Watcher(platform.state)

    async def follow() -> None:
        with watcher.followed() as one, watcher.followed() as other:
            await asyncio.wait_for(asyncio.gather(one(), other()), WAIT_S)  # the first look
            url = f"{platform.http.base_url}groups"
            headers = {"authorization": f"Bearer {ann}"}
            answer = await platform.http.post(url, json={"name": "team"}, headers=headers)
            assert answer.status_code == 201
            await asyncio.wait_for(asyncio.gather(one(), other()), WAIT_S)
            platform.reconcilers.changes.tell()
            await asyncio.wait_for(asyncio.gather(one(), other()), WAIT_S)

    platform.run(follow())


def test_nobody_looks_while_nobody_follows(platform: PlatformRig) -> None:
    watcher = Watcher(platform.state)

    async def follow() -> None:
        assert platform.reconcilers.changes.followers == 0
        with watcher.followed() as changed:
            await asyncio.wait_for(changed(), WAIT_S)
            assert platform.reconcilers.changes.followers == 1
        await asyncio.wait_for(nobody_follows(platform), WAIT_S)
        with watcher.followed() as changed:  # and somebody does again
            await asyncio.wait_for(changed(), WAIT_S)

    platform.run(follow())
