"""Monitors are made, changed and listed; who may do what is in the table of permissions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from modelcloud.config import PlatformConfig
from modelcloud.control.monitors.monitoring import Monitoring
from modelcloud.control.reconcile.reconcilers import Reconcilers
from modelcloud.control.services.registration import Registration
from modelcloud.control.state import PlatformState
from modelcloud.store.store import Store
from modelcloud.store.tables import InstanceType, Monitor
from support.control import ControlRig, standing_of
from support.platform import FakeNode

if TYPE_CHECKING:
    from support.stores import Databases

FTP: dict[str, Any] = {
    "type": "ftp", "ftp_host": "models.example", "remote_path": "/daily",
    "remote_model_name": "m.tar.gz", "remote_donefile_name": "done", "ftp_username": "ann",
    "ftp_password": "s3cret-password", "deploy": {"instance_type": "small"}, "paused": True,
}  # fmt: skip
ALL, ONE = "/services/fib/monitors", "/services/fib/monitors/daily"


class Rig(ControlRig):
    """With `ann`, who has a service `fib`, and `ben`, who may modify it."""

    ann: str
    ben: str

    def __enter__(self) -> Rig:  # noqa: PYI034 — Self is not in Python 3.10
        return self

    def make(self, **fields: Any) -> Any:
        return self.call(self.ann, "POST", ALL, {"name": "daily", **FTP, **fields})

    def secrets(self) -> dict[str, Any]:
        """What is kept, decrypted."""
        sealed = self.do(lambda tx: tx.scalars(select(Monitor.secrets)).one())
        vault = self.state.part(Monitoring).rules.vault
        return {} if sealed is None else vault.open(sealed)


@pytest.fixture
def rig(databases: Databases, tmp_path: Path) -> Iterator[Rig]:
    store = Store(databases.sqlite(tmp_path))
    config = PlatformConfig(data=str(tmp_path))
    node = FakeNode()
    reconcilers = Reconcilers(
        store, node, write=lambda service, line: None, artifacts=tmp_path / "artifacts"
    )
    standing = standing_of(config)
    registration = Registration(
        store, node, standing, write=lambda service, line: None, in_use=reconcilers.in_use,
        clock=time.monotonic,
    )  # fmt: skip
    state = PlatformState(store=store, engine=node, standing=standing)
    monitoring = Monitoring(state, registration, reconcilers)
    parts = (reconcilers, registration, monitoring)
    with Rig(store, engine=node, config=config, parts=parts) as found:
        found.ann, found.ben = found.user("ann"), found.user("ben")
        found.share("ann", "ben", "modify")
        found.do(lambda tx: tx.add(InstanceType(name="small")))
        made = found.call(found.ann, "POST", "/services", {"name": "fib", "group": "ann"})
        assert made.status_code == 201
        found.start()
        yield found


def test_a_monitor_is_shown_with_the_names_of_its_credentials_alone(rig: Rig) -> None:
    made = rig.make()
    assert made.status_code == 201, made.text
    record = made.json()
    assert record["place"] == "ftp://models.example/daily"
    assert (record["acts_as"], record["activity"]) == ("ann", "paused")
    assert record["secrets"] == ["ftp_password"]
    for answer in (made, rig.call(rig.ann, "GET", ALL), rig.call(rig.ann, "GET", ONE),
                   rig.call(rig.ann, "GET", "/audit?group=ann")):  # fmt: skip
        assert answer.status_code == 200 or answer is made
        assert "s3cret" not in answer.text
    assert rig.secrets() == {"ftp_password": "s3cret-password"}


def test_a_name_is_there_once_and_the_instance_type_must_be_one(rig: Rig) -> None:
    assert rig.make().status_code == 201
    assert rig.make().status_code == 409
    refused = rig.make(name="other", deploy={"instance_type": "huge"})
    assert refused.status_code == 400
    assert "accepted: small" in refused.json()["detail"]
    assert rig.make(name="third", deploy={}).status_code == 400


def test_whoever_changes_a_monitor_has_it_act_in_their_name(rig: Rig) -> None:
    rig.make()
    changed = rig.call(rig.ben, "PATCH", ONE, {"interval": 60})
    assert changed.status_code == 200, changed.text
    assert changed.json()["acts_as"] == "ben"
    assert changed.json()["settings"]["interval"] == 60
    assert changed.json()["secrets"] == ["ftp_password"], "the place is the same"


@pytest.mark.parametrize(
    "change", [{"ftp_host": "evil.example"}, {"ftp_port": 2121}, {"remote_path": "/other"}]
)
def test_credentials_do_not_go_to_another_place(rig: Rig, change: dict[str, Any]) -> None:
    rig.make()
    assert rig.call(rig.ben, "PATCH", ONE, change).json()["secrets"] == []
    assert rig.secrets() == {}
    anew = {"ftp_password": "another", **change}
    assert rig.call(rig.ben, "PATCH", ONE, anew).json()["secrets"] == ["ftp_password"]
    assert rig.secrets() == {"ftp_password": "another"}


def test_trust_is_in_one_place_and_does_not_move_with_it(rig: Rig) -> None:
    assert rig.make(trust="ftp://models.example/daily").status_code == 201
    moved = rig.call(rig.ann, "PATCH", ONE, {"ftp_host": "evil.example"})
    assert moved.status_code == 400
    assert "'ftp://evil.example/daily'" in moved.json()["detail"]


def test_a_lost_update_is_refused(rig: Rig) -> None:
    tag = rig.make().headers["etag"]
    on = {"if-match": tag}
    assert rig.call(rig.ann, "PATCH", ONE, {"keep": 5}, headers=on).status_code == 200
    assert rig.call(rig.ann, "PATCH", ONE, {"keep": 6}, headers=on).status_code == 412


def test_credentials_whose_key_is_lost_can_be_given_anew(rig: Rig, tmp_path: Path) -> None:
    rig.make()
    (tmp_path / "monitors.key").unlink()
    lost = rig.call(rig.ann, "PATCH", ONE, {"keep": 5})
    assert lost.status_code == 400
    assert "give them anew" in lost.json()["detail"]
    assert rig.call(rig.ann, "PATCH", ONE, {"ftp_password": "new"}).status_code == 200
    assert rig.secrets() == {"ftp_password": "new"}


def test_a_place_that_may_not_be_reached_is_told_by_a_test(rig: Rig) -> None:
    """No monitor is made by it."""
    body = {"name": "new", **FTP, "ftp_host": "127.0.0.1", "ftp_port": 9}
    tested = rig.call(rig.ann, "POST", f"{ALL}/test", body)
    assert tested.status_code == 200, tested.text
    assert tested.json()["ok"] is False
    assert "not public" in tested.json()["error"]
    assert rig.call(rig.ann, "GET", ALL).json()["items"] == []


def test_a_monitor_goes_with_its_service(rig: Rig) -> None:
    rig.make()
    assert rig.call(rig.ann, "DELETE", "/services/fib").status_code == 204
    assert rig.do(lambda tx: tx.scalars(select(Monitor)).all()) == []
