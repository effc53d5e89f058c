"""What reconcilers decide is stored before they go on, however long that takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from msgspec.structs import replace

from modelcloud.control.deployments import rollouts
from modelcloud.control.deployments.deployment_states import Shown
from modelcloud.control.reconcile.journal import StoreJournal
from modelcloud.errors import Conflict, StoreUnavailable
from modelcloud.rollout.journal import Kept
from modelcloud.rollout.records import RolloutState
from modelcloud.rollout.snapshot import DeploymentSnapshot
from modelcloud.store.store import Store
from modelcloud.store.tables import RolloutRow
from support.platform import PlatformRig


class OddStore:
    """Takes no row of the deployments in `refused`, and nothing at all while it is `away`."""

    def __init__(self) -> None:
        self.refused: set[int] = set()
        self.succeeded: set[int] = set()
        self.away = False
        self.batches: list[list[int]] = []

    async def transact(self, work: Any) -> set[int]:
        await asyncio.sleep(0)
        rows = [row.id for row in work.args[0]]
        if self.away:
            raise StoreUnavailable("away")
        if self.refused & set(rows):
            raise Conflict("a row that cannot be")
        self.batches.append(rows)
        return self.succeeded & set(rows)


Changed = Callable[[str, Callable[[], None]], None]


def journal(store: OddStore | Store, changed: Changed = lambda _, then: then()) -> StoreJournal:
    return StoreJournal(
        cast("Store", store),
        shown=lambda _: cast("Shown | None", None),
        changed=changed,
        clock=asyncio.get_running_loop().time,
    )


def kept(number: int) -> Kept:
    return Kept(facts=DeploymentSnapshot(deployment=f"m/{number}", replicas=1))


async def until(done: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + 20
    while not done():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


def test_what_a_success_has_changed_is_followed_before_that_deployment_goes_on() -> None:
    async def run() -> None:
        store, told = OddStore(), list[int]()
        followed: dict[str, Callable[[], None]] = {}
        store.succeeded = {2}
        writer = journal(store, followed.__setitem__)
        for number in (1, 2, 3):
            writer.keep(kept(number), lambda number=number: told.append(number))  # type: ignore[misc]
        await writer.stored(20)
        assert (told, [*followed]) == ([1, 3], ["m/2"])
        followed["m/2"]()
        assert told == [1, 3, 2]
        await writer.close(20)

    asyncio.run(run())


def test_many_deployments_are_one_transaction_and_go_on_after_it() -> None:
    async def run() -> None:
        store, told = OddStore(), list[int]()
        writer = journal(store)
        for number in range(100):
            writer.keep(kept(number), lambda number=number: told.append(number))  # type: ignore[misc]
        assert told == []
        await writer.stored(20)
        assert (len(store.batches), told) == (1, list(range(100)))
        await writer.close(1)

    asyncio.run(run())


def test_while_the_store_is_away_nothing_goes_on_and_later_everything_does() -> None:
    async def run() -> None:
        store, told = OddStore(), list[int]()
        store.away = True
        writer = journal(store)
        writer.keep(kept(1), lambda: told.append(1))
        try:
            await writer.stored(0.3, "m/1")
        except StoreUnavailable:
            pass
        else:
            raise AssertionError("it says it is stored")
        assert told == []
        store.away = False
        await until(lambda: told == [1])
        await writer.close(1)

    asyncio.run(run())


def test_a_row_that_is_refused_does_not_hold_up_the_others() -> None:
    async def run() -> None:
        store, told = OddStore(), list[int]()
        store.refused = {1}
        writer = journal(store)
        writer.keep(kept(1), lambda: told.append(1))
        writer.keep(kept(2), lambda: told.append(2))
        writer.keep(kept(3), lambda: told.append(3))
        await until(lambda: sorted(told) == [2, 3])
        store.refused = set()
        await until(lambda: sorted(told) == [1, 2, 3])
        await writer.close(1)

    asyncio.run(run())


def test_once_closed_nothing_goes_on() -> None:
    async def run() -> None:
        store, told = OddStore(), list[int]()
        writer = journal(store)
        await writer.close(1)
        writer.keep(kept(1), lambda: told.append(1))
        await asyncio.sleep(0)
        assert (store.batches, told) == ([], [])

    asyncio.run(run())


def test_a_success_that_is_stored_after_its_deployment_was_deleted_moves_no_label(
    platform: PlatformRig,
) -> None:
    ann = platform.user("ann")
    platform.service("m261", group="ann", versions=2)
    platform.deploy(ann, "m261", 1, label="stable")
    body = {"version": 2, "instance_type": "small", "label": "stable"}
    begun = platform.call(ann, "POST", "/services/m261/deployments", body).json()["rollout"]
    row = platform.do(lambda tx: tx.get_one(RolloutRow, begun["id"]))
    succeeded = replace(rollouts.revive(row, "m261", "m261/2"), state=RolloutState.SUCCEEDED)
    platform.call(ann, "DELETE", "/services/m261/deployments/2")

    async def keep() -> None:
        writer = journal(platform.store)
        facts = DeploymentSnapshot(deployment="m261/2", replicas=1)
        writer.keep(Kept(facts=facts, rollouts=(succeeded,)), lambda: None)
        await writer.close(5.0)

    platform.do(lambda tx: setattr(tx.get_one(RolloutRow, row.id), "state", "running"))
    platform.run(keep())
    platform.settle()
    traffic = platform.call(ann, "GET", "/services/m261/traffic").json()
    assert traffic["labels"] == {"stable": 1}
