"""Services and their versions: whose they are, what they may be named, what goes with what."""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, select

from modelcloud.artifacts.stage import Staged
from modelcloud.control.access.permissions import Actor, Level
from modelcloud.control.reconcile.live import Live
from modelcloud.control.reconcile.reconcilers import Reconcilers
from modelcloud.control.services import artifacts, versions
from modelcloud.control.services.registration import Registration
from modelcloud.control.services.version_forms import (
    RegisterBody,
    source_below,
    with_main_split_off,
)
from modelcloud.control.services.versions import Proposal
from modelcloud.errors import Conflict, InvalidInput
from modelcloud.store.tables import Artifact, Deployment, Group, Label, Service, User, Version
from support.control import ControlRig
from support.platform import FakeNode

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

SIGNATURE = {"runtime": "function", "options": [], "commands": [{"name": "predict"}]}


TAKEN_PORTS = (8080, 8000)
DATA = "/data"


class Following(Reconcilers):
    """Notes what it is told, and does nothing."""

    def __init__(self, told: list[str]) -> None:
        self._told = told
        self.live = Live(FakeNode(), lambda _key: None)

    async def refresh(self, service: str | None = None) -> None:
        self._told.append(f"refresh {service}")


class Registering(Registration):
    """Likewise."""

    taken_ports = TAKEN_PORTS

    def __init__(self, told: list[str]) -> None:
        self._told = told

    async def collect(self) -> None:
        self._told.append("collect")


@pytest.fixture
def rig(rig: ControlRig) -> ControlRig:
    """With them."""
    with_parts(rig)
    return rig


def with_parts(rig: ControlRig) -> list[str]:
    """Give the application the parts that follow its changes; returns what they are told."""
    told: list[str] = []
    parts = (Following(told), Registering(told))
    rig.app.state.platform = replace(rig.state, parts=parts)
    return told


def staged(content: str = "1") -> Staged:
    digest = hashlib.sha256(content.encode()).hexdigest()
    return Staged(folder="", digest=digest, main="model.py", name="", size=10, files=2)


def register(
    rig: ControlRig, user: str, service: str, content: str = "1", **asked: Any
) -> versions.VersionRecord:
    """As `registration` does at its end."""
    found = rig.do(
        lambda tx: (
            tx.scalars(select(User.id).where(User.name == user)).one(),
            {g.name: g.id for g in tx.scalars(select(Group))},
        )
    )
    levels = {found[1][name]: Level.MANAGE for name in ("team", user) if name in found[1]}
    actor = Actor(user_id=found[0], name=user, levels=levels)
    body = RegisterBody(**{"path": "/x", "group": "team", **asked})
    proposal = Proposal(
        staged=staged(content), signature=SIGNATURE, requirements="", metrics={"auc": 0.98},
        curves={"loss": [[0, 0.5]]}, origin={}, options=body.options,
    )  # fmt: skip
    return rig.do(lambda tx: versions.add(tx, actor, service, body, proposal, TAKEN_PORTS))


def deploy(tx: Session, service: str, version: int, by: str, **given: Any) -> int:
    row = Deployment(
        service_id=tx.scalars(select(Service.id).where(Service.name == service)).one(),
        version=version, wanted="online", state="serving", instance_type="small", cpu=1.0,
        memory=1, gpu=0.0, replicas=2, dispatch={}, strategy={}, options={}, answers=[version],
        facts={}, deployed_by=by, created_at=0.0,
    )  # fmt: skip
    for name, value in given.items():
        setattr(row, name, value)
    tx.add(row)
    tx.flush()
    return row.id


@pytest.fixture
def ann(rig: ControlRig) -> str:
    """Manages the group `team`."""
    token = rig.user("ann")
    assert rig.call(token, "POST", "/groups", {"name": "team"}).status_code == 201
    return token


@pytest.fixture
def ben(rig: ControlRig, ann: str) -> str:
    """Modifies in it."""
    token = rig.user("ben")
    rig.share("team", "ben", "modify")
    return token


def detail(answer: Any) -> str:
    return str(answer.json()["detail"])


# ---- services


@pytest.mark.parametrize(
    "name", ["", "-a", "a b", "a/b", "ä", "x" * 64, "predict", "api", "v1", "Metrics", "healthz"]
)
def test_a_name_that_could_not_be_an_address_is_refused(
    rig: ControlRig, ann: str, name: str
) -> None:
    with pytest.raises(InvalidInput):
        register(rig, "ann", name)
    assert rig.call(ann, "GET", "/services").json()["items"] == []


def test_a_name_is_unique_on_the_instance_in_whatever_case_and_says_so(
    rig: ControlRig, ann: str
) -> None:
    register(rig, "ann", "m261")
    other = rig.user("zoe")
    found = rig.call(other, "GET", "/services/m261")
    assert found.status_code == 404
    with pytest.raises(Exception, match="the name is taken: there is a service 'm261'"):
        register(rig, "zoe", "M261")


def test_a_new_service_is_in_its_makers_own_group_unless_one_is_named(
    rig: ControlRig, ann: str
) -> None:
    assert register(rig, "ann", "m261", group=None).group == "ann"


def test_a_version_makes_its_service_and_never_moves_one(rig: ControlRig, ann: str) -> None:
    register(rig, "ann", "m261")
    assert register(rig, "ann", "m261", group=None).group == "team"
    with pytest.raises(Exception, match="registering never moves it"):
        register(rig, "ann", "m261", group="ann")


def test_a_service_shows_its_versions_and_deployments(rig: ControlRig, ann: str) -> None:
    for content in "123":
        register(rig, "ann", "m261", content)

    def online(tx: Session) -> None:
        stable = deploy(tx, "m261", 1, "ann")
        deploy(tx, "m261", 3, "ann", state="loading", weight=0.0)
        deploy(tx, "m261", 2, "ann", wanted="deleted", state="draining")
        tx.add(Label(service_id=1, name="stable", deployment_id=stable))

    rig.do(online)
    shown = rig.call(ann, "GET", "/services/m261").json()
    assert (shown["versions"], shown["latest"], shown["status"]) == (3, 3, "Serving")
    assert shown["address"] == "/predict/m261"
    assert [(d["version"], d["status"], d["labels"]) for d in shown["deployments"]] == [
        (1, "Serving", ["stable"]),
        (3, "Deploying", []),
    ]
    summaries = rig.call(ann, "GET", "/services/m261/versions").json()["items"]
    assert [(v["version"], v["status"]) for v in summaries] == [
        (3, "Deploying"), (2, "Offline"), (1, "Serving"),
    ]  # fmt: skip


def test_the_list_is_filtered_by_group_state_and_text(rig: ControlRig, ann: str) -> None:
    for name in ("fib", "m261", "m262"):
        register(rig, "ann", name)
    rig.do(lambda tx: deploy(tx, "m261", 1, "ann"))
    rig.do(lambda tx: deploy(tx, "m262", 1, "ann", state="failed", reason="no weights"))

    def names(query: str) -> list[str]:
        answer = rig.call(ann, "GET", f"/services?{query}")
        return [service["name"] for service in answer.json()["items"]]

    assert names("") == ["fib", "m261", "m262"]
    assert names("q=M26") == ["m261", "m262"]
    assert names("q=%25") == []
    assert names("state=serving") == ["m261"]
    assert names("state=Failed") == ["m262"]
    assert names("state=offline") == ["fib"]
    assert names("group=team") == names("")
    assert names("group=ann") == []
    assert rig.call(ann, "GET", "/services?state=well").status_code == 400
    page = rig.call(ann, "GET", "/services?limit=2").json()
    assert page["next"] == "m261"
    assert names("limit=2&cursor=m261") == ["m262"]


def test_who_is_no_member_sees_nothing_of_a_service(rig: ControlRig, ann: str) -> None:
    register(rig, "ann", "m261")
    zoe = rig.user("zoe")
    assert rig.call(zoe, "GET", "/services").json()["items"] == []
    for path in ("", "/versions", "/versions/1", "/versions/1/curves"):
        assert rig.call(zoe, "GET", f"/services/m261{path}").status_code == 404


def test_the_list_of_a_hundred_services_takes_few_queries_and_little_time(
    rig: ControlRig, ann: str
) -> None:
    def many(tx: Session) -> None:
        group = tx.scalars(select(Group).where(Group.name == "team")).one()
        tx.add(Artifact(digest="d", size=1, files=1, created_at=0.0))
        for n in range(100):
            service = Service(
                name=f"s{n:03}", group=group, sticky=None, created_by="ann", created_at=0.0
            )
            tx.add(service)
            tx.flush()
            for number in (1, 2, 3):
                tx.add(
                    Version(
                        service_id=service.id, number=number, artifact="d", main="model.py",
                        runtime="function", options={}, metrics={}, curves={"loss": [[0, 1]] * 500},
                        signature=SIGNATURE, origin={}, created_by="ann", created_at=0.0,
                    )
                )  # fmt: skip
                deploy(tx, service.name, number, "ann", facts={"serving": {"x": "y" * 4000}})

    rig.do(many)
    asked: list[str] = []
    engine = rig.store._database.reader
    event.listen(engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
    times = []
    for _ in range(5):
        asked.clear()
        start = time.perf_counter()
        answer = rig.call(ann, "GET", "/services?limit=100")
        times.append(time.perf_counter() - start)
        assert len(answer.json()["items"]) == 100
        assert len(answer.json()["items"][0]["deployments"]) == 3
        selects = [text for text in asked if re.match(r"\s*SELECT", text)]
        assert len(selects) <= 6  # of them, those that find out who asks
    assert min(times) < 0.1


@pytest.mark.parametrize(
    ("port", "status", "words"),
    [
        (8080, 400, "the platform's own"),
        (9001, 409, "is taken"),
        (70000, 400, "port"),
        (9002, 200, ""),
    ],
)
def test_a_port_of_its_own_is_nobody_elses(
    rig: ControlRig, ann: str, port: int, status: int, words: str
) -> None:
    register(rig, "ann", "other", port=9001)
    register(rig, "ann", "m261")
    with_parts(rig)
    answer = rig.call(ann, "PATCH", "/services/m261", {"port": port})
    assert answer.status_code == status, answer.text
    assert words in answer.text


def test_a_service_goes_with_all_that_it_has(rig: ControlRig, ann: str) -> None:
    told = with_parts(rig)
    register(rig, "ann", "m261")
    register(rig, "ann", "kept", "other")
    rig.do(lambda tx: deploy(tx, "m261", 1, "ann"))
    assert rig.call(ann, "DELETE", "/services/m261").status_code == 204
    assert told == ["refresh m261", "collect"]
    assert rig.call(ann, "GET", "/services/m261").status_code == 404
    assert rig.do(lambda tx: tx.query(Deployment).count()) == 0
    assert rig.do(lambda tx: [a.digest for a in tx.query(Artifact)]) == [staged("other").digest]


def test_who_modifies_deletes_only_what_is_all_their_own(
    rig: ControlRig, ann: str, ben: str
) -> None:
    with_parts(rig)
    for service in ("bens", "mixed"):
        register(rig, "ben", service)
    register(rig, "ann", "mixed")
    rig.do(lambda tx: deploy(tx, "mixed", 1, "ben"))
    assert rig.call(ben, "DELETE", "/services/mixed").status_code == 403
    assert rig.call(ben, "DELETE", "/services/mixed/versions/2").status_code == 403
    assert rig.call(ben, "DELETE", "/services/bens").status_code == 204
    assert rig.call(ann, "DELETE", "/services/mixed").status_code == 204


def test_an_edit_on_what_was_changed_since_is_refused(rig: ControlRig, ann: str) -> None:
    with_parts(rig)
    register(rig, "ann", "m261")
    etag = rig.call(ann, "GET", "/services/m261").headers["etag"]
    for status in (200, 412):
        answer = rig.call(
            ann, "PATCH", "/services/m261", {"description": "x"}, headers={"if-match": etag}
        )
        assert answer.status_code == status


# ---- versions


def test_numbers_go_up_by_themselves_and_may_be_given_once(rig: ControlRig, ann: str) -> None:
    assert register(rig, "ann", "m261").version == 1
    assert register(rig, "ann", "m261", version=7).version == 7
    assert register(rig, "ann", "m261").version == 8
    with pytest.raises(Conflict, match=r"7 of 'm261' is there, and versions never .*next is 9"):
        register(rig, "ann", "m261", version=7)


def test_a_number_stands_for_one_version_for_ever(rig: ControlRig, ann: str) -> None:
    with_parts(rig)
    register(rig, "ann", "m261", "one")
    register(rig, "ann", "m261", "two", version=5)
    for number in (1, 5):
        assert rig.call(ann, "DELETE", f"/services/m261/versions/{number}").status_code == 204
    for number in (1, 3, 5):
        with pytest.raises(Conflict, match=f"version {number} of 'm261' .*the next is 6"):
            register(rig, "ann", "m261", "other", version=number)
    assert register(rig, "ann", "m261").version == 6


def test_a_version_shows_what_it_is(rig: ControlRig, ann: str) -> None:
    register(rig, "ann", "m261", options={}, description="first")
    answer = rig.call(ann, "GET", "/services/m261/versions/1")
    shown = answer.json()
    assert shown["runtime"] == "function"
    assert shown["metrics"] == {"auc": 0.98}
    assert shown["curves"] == ["loss"]
    assert shown["address"] == "/predict/m261/1"
    assert shown["signature"] == SIGNATURE
    assert answer.headers["etag"] == '"1"'
    curves = rig.call(ann, "GET", "/services/m261/versions/1/curves").json()
    assert curves == {"curves": {"loss": [[0, 0.5]]}}


def test_only_what_a_version_is_said_to_be_may_change(rig: ControlRig, ann: str) -> None:
    register(rig, "ann", "m261")
    path = "/services/m261/versions/1"
    changes: dict[str, Any] = {"description": "best", "metrics": {"auc": 0.99}, "enabled": False}
    changed = rig.call(ann, "PATCH", path, changes).json()
    assert changes.items() <= changed.items()
    assert changed["revision"] == 2
    refused: tuple[dict[str, Any], ...] = (
        {"main": "x.py"},
        {"artifact": "x"},
        {"metrics": {"a": []}},
    )
    for body in refused:
        assert rig.call(ann, "PATCH", path, body).status_code == 400


def referenced(rig: ControlRig) -> set[str]:
    return {found.digest for found in rig.do(artifacts.referenced)}


def test_a_version_that_is_deployed_stays_and_its_artifact_goes_with_the_last(
    rig: ControlRig, ann: str
) -> None:
    with_parts(rig)
    for content in ("same", "same", "other"):
        register(rig, "ann", "m261", content)
    number = rig.do(lambda tx: deploy(tx, "m261", 1, "ann"))
    path = "/services/m261/versions"
    refused = rig.call(ann, "DELETE", f"{path}/1")
    assert refused.status_code == 409
    assert "is deployed" in detail(refused)
    rig.do(lambda tx: tx.delete(tx.get_one(Deployment, number)))
    assert rig.call(ann, "DELETE", f"{path}/1").status_code == 204
    assert referenced(rig) == {staged("same").digest, staged("other").digest}
    assert rig.call(ann, "DELETE", f"{path}/2").status_code == 204
    assert referenced(rig) == {staged("other").digest}


def test_files_that_a_deployment_may_go_back_to_stay_without_their_version(
    rig: ControlRig, ann: str
) -> None:
    register(rig, "ann", "m261")
    facts = {
        "serving": {"digest": "a"},
        "previous": {"digest": "b"},
        "flight": {"t": [{"digest": "c"}]},
    }
    rig.do(lambda tx: deploy(tx, "m261", 1, "ann", facts=facts))
    assert referenced(rig) == {staged().digest, "a", "b", "c"}


def test_a_source_lies_below_a_root_whatever_links_and_dots_say(tmp_path: Path) -> None:
    root, outside = tmp_path / "models", tmp_path / "models-evil"
    (root / "m").mkdir(parents=True)
    outside.mkdir()
    (root / "out").symlink_to(outside)
    roots = (str(root),)
    assert source_below(str(root / "m"), roots, DATA) == (root / "m", root)
    assert source_below(str(root / "x" / ".." / "m"), roots, DATA) == (root / "m", root)
    for path in (outside, root / "out", root / ".." / "models-evil", "m", "\0", "/etc"):
        with pytest.raises(InvalidInput, match="an absolute path below"):
            source_below(str(path), roots, DATA)
    with pytest.raises(InvalidInput, match="without --root"):
        source_below(str(root), (), DATA)


def test_a_source_does_not_hold_the_platforms_own_data_nor_lie_in_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "artifacts").mkdir(parents=True)
    roots = (str(tmp_path),)
    for path in (tmp_path, data, data / "artifacts", data / "modelcloud.db", tmp_path / "model.py"):
        with pytest.raises(InvalidInput, match="outside of the platform's own data"):
            source_below(str(path), roots, str(data))
    for name in ("model.tar.gz", "beside"):
        assert source_below(str(tmp_path / name), roots, str(data))[0] == tmp_path / name


@pytest.mark.parametrize(
    ("path", "place", "main"),
    [
        ("/m/model.py:double", "/m/model.py", "model.py:double"),
        ("/m/a:b.py:f", "/m/a:b.py", "a:b.py:f"),
        ("/m/model.py", "/m/model.py", ""),
        ("/m/a:b", "/m/a:b", ""),
        ("/m/model.tar:x", "/m/model.tar:x", ""),
    ],
)
def test_a_path_may_name_the_function_in_its_main_file(path: str, place: str, main: str) -> None:
    asked = with_main_split_off(RegisterBody.model_validate({"path": path}))
    assert (asked.path, asked.main) == (place, main)


def test_a_function_in_the_path_and_a_main_beside_it_are_one_too_many() -> None:
    with pytest.raises(InvalidInput, match="beside main"):
        with_main_split_off(
            RegisterBody.model_validate({"path": "/m/model.py:f", "main": "other.py"})
        )
