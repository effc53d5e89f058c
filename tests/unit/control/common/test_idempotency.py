"""A request sent again with its key is done once and answered the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from modelcloud.control.access import groups
from modelcloud.control.access.groups import GroupRecord
from modelcloud.control.api import deps
from modelcloud.control.api.deps import ActorDep, OnceDep, PlatformDep
from modelcloud.control.common.idempotency import KEPT_S
from modelcloud.control.common.records import Body
from modelcloud.store.store import Store
from modelcloud.store.tables import IdempotencyKey
from support.control import ControlRig

if TYPE_CHECKING:
    import httpx

    from support.stores import Databases

router = deps.router("made twice")


class _Thing(Body):
    name: str


@router.post("/things", status_code=202)
async def make(body: _Thing, here: PlatformDep, actor: ActorDep, once: OnceDep) -> GroupRecord:
    work = partial(groups.create, actor=actor, name=body.name, description="")
    return await here.store.transact(once.around(work, 202))


@pytest.fixture
def things(databases: Databases, tmp_path: Path) -> Iterator[ControlRig]:
    with ControlRig(Store(databases.sqlite(tmp_path))) as rig:
        rig.app.include_router(router)
        yield rig


def post(rig: ControlRig, token: str, name: str, key: str | None) -> httpx.Response:
    headers = {} if key is None else {"idempotency-key": key}
    return rig.call(token, "POST", "/things", {"name": name}, headers=headers)


def test_the_same_key_and_request_get_the_same_answer_and_nothing_more_happens(
    things: ControlRig,
) -> None:
    ann = things.user("ann")
    first, again = post(things, ann, "lab", "k1"), post(things, ann, "lab", "k1")
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert "idempotency-replayed" in again.headers
    assert post(things, ann, "lab", None).status_code == 409
    assert post(things, ann, "lab", "k2").status_code == 409


def test_the_same_key_for_another_request_is_refused(things: ControlRig) -> None:
    ann = things.user("ann")
    assert post(things, ann, "lab", "k1").status_code == 202
    assert post(things, ann, "other", "k1").status_code == 422


def test_a_key_is_its_users_own(things: ControlRig) -> None:
    ann, bob = things.user("ann"), things.user("bob")
    assert post(things, ann, "lab", "k1").status_code == 202
    assert post(things, bob, "other", "k1").status_code == 202


def test_a_request_that_failed_is_done_again_under_its_key(things: ControlRig) -> None:
    ann = things.user("ann")
    assert post(things, ann, "not a name", "k1").status_code == 400
    assert post(things, ann, "lab", "k1").status_code == 202


def test_of_two_at_the_same_time_one_is_told_to_wait(things: ControlRig) -> None:
    ann = things.user("ann")
    headers = {"idempotency-key": "k1", "authorization": f"Bearer {ann}"}

    async def both() -> list[int]:
        posts = [
            things.http.post("/things", json={"name": "lab"}, headers=headers) for _ in range(2)
        ]
        return sorted(answer.status_code for answer in await asyncio.gather(*posts))

    assert things.run(both()) in ([202, 409], [202, 202])  # as they meet
    made = things.call(ann, "GET", "/groups").json()["items"]
    assert [group["name"] for group in made] == ["ann", "lab"]


def test_a_key_is_forgotten_after_a_day(things: ControlRig) -> None:
    ann = things.user("ann")
    post(things, ann, "lab", "k1")

    def age(tx: object) -> None:
        tx.query(IdempotencyKey).one().created_at -= KEPT_S + 1  # type: ignore[attr-defined]

    things.do(age)
    assert post(things, ann, "other", "k1").status_code == 202


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_a_key_that_is_none_is_refused(things: ControlRig, key: str) -> None:
    assert post(things, things.user("ann"), "lab", key).status_code == 400
