"""The control plane killed at every transaction, before and after its commit: one truth comes back.

The node outlives it, as a real one does, and so does what is in the store.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select

from modelcloud.control.access.permissions import Actor, Level
from modelcloud.control.commands import Commands
from modelcloud.control.deployments import rollouts
from modelcloud.control.deployments.deployment_forms import (
    DeployBody,
    RollbackBody,
    ScaleBody,
    UpdateBody,
)
from modelcloud.store.store import Store
from modelcloud.store.tables import Deployment
from modelcloud.types import Desired
from support.platform import FakeNode, PlatformRig
from support.stores import Databases

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from support.postgres import Postgres

T = TypeVar("T")
KEY = "m261/1"


class MortalStore(Store):
    """A store that is never heard of again from its `dies_at`-th transaction on."""

    dies_at = 0  # not at all
    commits = False  # whether that one is still committed

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.count = 0
        self.dead = False

    async def transact(self, work: Callable[[Session], T]) -> T:
        self.count += 1
        if self.dies_at and self.count >= self.dies_at:
            if self.commits and not self.dead:
                await super().transact(work)
            self.dead = True
            await asyncio.Event().wait()
        return await super().transact(work)


async def replace(commands: Commands, done: Callable[[], Awaitable[None]]) -> None:
    await commands.deploy(DeployBody(version=2, mode="replace", replaces=1, label="stable"))
    await done()


async def canary(commands: Commands, done: Callable[[], Awaitable[None]]) -> None:
    strategy = {"name": "canary", "steps": [{"percent": 50, "watch_s": 0}]}
    await commands.update(1, UpdateBody(options={"depth": 2}, strategy=strategy))
    await done()


async def back(commands: Commands, done: Callable[[], Awaitable[None]]) -> None:
    await commands.update(1, UpdateBody(options={"depth": 2}))
    await done()
    await commands.roll_back(1, RollbackBody())
    await done()


async def scale_and_stop(commands: Commands, done: Callable[[], Awaitable[None]]) -> None:
    await commands.scale(1, ScaleBody(replicas=3))
    await done()
    await commands.stop(1)
    await done()


async def update_and_delete(commands: Commands, done: Callable[[], Awaitable[None]]) -> None:
    await commands.update(1, UpdateBody(options={"depth": 2}))
    await commands.delete(1)
    await done()


SCENARIOS = [replace, canary, back, scale_and_stop, update_and_delete]


@pytest.fixture(params=["sqlite", "postgresql"])
def start(
    request: pytest.FixtureRequest, databases: Databases, tmp_path: Path
) -> Callable[[str], tuple[str, FakeNode]]:
    """Makes copies of a store and a node with version 1 of m261 serving."""
    server: Postgres | None = None
    if request.param == "sqlite":
        url = databases.sqlite(tmp_path)
    else:
        server = request.getfixturevalue("postgres")
        url = databases.postgres(server)
    with PlatformRig(url) as rig:
        ann = rig.user("ann")
        rig.service("m261", group="ann", versions=2)
        rig.deploy(ann, "m261", 1, replicas=2)
    rig.node.lose_listeners()

    def make(name: str) -> tuple[str, FakeNode]:
        if server is not None:
            return server.url(server.create(template=urlsplit(url).path[1:])), deepcopy(rig.node)
        shutil.copy(tmp_path / "modelcloud.db", tmp_path / name)
        return f"sqlite:///{tmp_path / name}", deepcopy(rig.node)

    return make


def serves(node: FakeNode) -> bool:
    return any(node.observe(KEY).routed.values())


def run_until_death(rig: PlatformRig, scenario: Callable[..., Awaitable[None]]) -> bool:
    """Run the scenario; whether the store died in it."""
    store = rig.store
    assert isinstance(store, MortalStore)
    actor = Actor(user_id=1, name="ann", levels={1: Level.MANAGE})
    commands = Commands(rig.state, actor, "m261")

    async def done() -> None:
        await rig.reconcilers.idle(20)
        quiet = 0
        while quiet < 3:
            before = len(rig.node.engine.wants), rig.states()
            await asyncio.sleep(0.002)
            await rig.reconcilers.idle(20)
            quiet = quiet + 1 if (len(rig.node.engine.wants), rig.states()) == before else 0

    async def both() -> None:
        running = asyncio.ensure_future(scenario(commands, done))
        await rig.moves(lambda: running.done() or store.dead)
        if running.done():
            running.result()

    rig.run(both())
    if store.dead:
        rig.kill()
    return store.dead


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
@pytest.mark.parametrize("commits", [False, True], ids=["before", "after"])
def test_killed_at_any_transaction_it_converges_to_one_truth_and_leaves_no_orphan(
    start: Callable[[str], tuple[str, FakeNode]],
    scenario: Callable[..., Awaitable[None]],
    commits: bool,
) -> None:
    deaths = 0
    while True:
        deaths += 1
        url, node = start(str(deaths))
        store = MortalStore(url)
        store.dies_at, store.commits = deaths, commits
        with PlatformRig(url, node, store=store) as rig:
            died = run_until_death(rig, scenario)
        if not died:
            break
        serving_at_death = serves(node)
        with PlatformRig(url, node) as rig:
            rig.settle()
            assert_one_truth(rig)
            ((_, wanted, _),) = rig.rows().values() or [(0, "deleted", "")]
            if wanted == "online":
                assert serving_at_death, f"predictions were lost at transaction {deaths}"
    assert deaths > 2, "the scenario wrote nothing to be killed at"


def assert_one_truth(rig: PlatformRig) -> None:
    """Store, reconcilers and node say the same, and nothing runs that nobody wants."""
    rows = rig.do(lambda tx: tx.scalars(select(Deployment)).all())
    assert rig.do(rollouts.unfinished) == []
    wanted_keys = set()
    for row in rows:
        observed = rig.node.observe(KEY)
        if row.wanted == "offline":
            assert (row.state, observed.workers) == ("stopped", ())
            continue
        wanted_keys.add(KEY)
        assert (row.wanted, row.state) == ("online", "serving")
        serving = row.facts["serving"]
        assert serving["version"] == row.version
        assert serving["options"] == row.options
        assert len(observed.routed[serving["generation"]]) == row.replicas
        assert set(observed.routed) == {serving["generation"]}
        kept = {serving["generation"]}
        if row.facts["keep_warm_until"] is not None:
            kept.add(row.facts["previous"]["generation"])
        assert {worker.generation for worker in observed.workers} == kept
    assert set(rig.node.deployments()) == wanted_keys
    routed = {r.deployment for s in rig.node.engine.routing.services for r in s.deployments}
    assert routed == wanted_keys


def test_what_runs_and_is_not_in_the_store_is_stopped_at_the_start(
    start: Callable[[str], tuple[str, FakeNode]],
) -> None:
    url, node = start("orphan")
    orphan = node.engine.deployments[KEY]
    node.want(Desired(deployment="gone/7", generations=orphan.generations))
    node.engine.settle()
    assert node.observe("gone/7").workers
    with PlatformRig(url, node) as rig:
        rig.settle()
        assert not node.observe("gone/7").workers
        assert len(node.observe(KEY).workers) == 2


def test_after_a_kill_of_the_node_all_that_was_online_comes_back(
    start: Callable[[str], tuple[str, FakeNode]],
) -> None:
    url, _ = start("node")
    node = FakeNode()
    with PlatformRig(url, node) as rig:
        rig.settle()
        assert_one_truth(rig)


async def move(rig: PlatformRig) -> None:
    """Let the node do what it was told, a few times over."""
    for _ in range(50):
        rig.node.engine.settle()
        await asyncio.sleep(0.002)


def test_while_the_store_is_locked_nothing_is_told_and_afterwards_it_goes_on(
    start: Callable[[str], tuple[str, FakeNode]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelcloud.errors import StoreUnavailable

    url, node = start("locked")
    with PlatformRig(url, node) as rig:
        ann = rig.token("ann")
        body = {"options": {"depth": 2}}
        path = "/services/m261/deployments/1/update"
        transact = rig.store.transact
        locked = False

        async def maybe(work: Callable[[Session], Any]) -> Any:
            if locked:
                raise StoreUnavailable("the store is locked")
            return await transact(work)

        monkeypatch.setattr(rig.store, "transact", maybe)
        rig.run(rig.reconcilers.idle(20))
        assert rig.call(ann, "POST", path, body).status_code == 202
        wants = len(node.engine.wants)
        locked = True
        rig.run(move(rig))
        assert len(node.engine.wants) <= wants + 1  # at most what was stored before the lock
        assert serves(node)
        assert rig.call(ann, "POST", path, {"options": {"depth": 3}}).status_code == 503
        locked = False
        rig.settle()
        assert rig.deployment(ann, "m261", 1)["options"] == {"depth": 2}
        assert_one_truth(rig)
