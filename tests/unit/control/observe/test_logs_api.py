"""Logs over the API: pages, and events for as long as their reader may read."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from modelcloud.config import PlatformConfig
from modelcloud.control.api import following
from modelcloud.control.observe import log_files
from modelcloud.control.observe.deployment_log import DeploymentLog
from modelcloud.store.store import Store
from modelcloud.store.tables import Artifact, Group, Service, Token, Version
from support.control import ControlRig

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from support.stores import Databases

PLACE = "/services/fib/versions/1/logs"


class Place:
    """A rig with the service `fib` of the user `ann`, and its logs."""

    def __init__(self, rig: ControlRig) -> None:
        self.rig = rig
        self.ann, self.bob = rig.user("ann"), rig.user("bob")
        rig.do(_add_service)
        self.log = DeploymentLog(rig.state.service_logs)
        self.path = log_files.version_log(rig.state.service_logs, "fib", 1)
        self.path.parent.mkdir(parents=True)
        self.written = 0

    def write(self, *texts: str, worker: int = 1) -> None:
        """Lines of a worker of version 1."""
        with self.path.open("a") as file:
            for text in texts:
                self.written += 1
                stamp = f"2025-11-20T07:00:00.{self.written:03d}Z"
                file.write(f"{stamp} w{worker} g1 | {text}\n")

    def get(self, query: str = "", place: str = PLACE, token: str = "") -> Any:
        answer = self.rig.call(token or self.ann, "GET", f"{place}?{query}")
        assert answer.status_code == 200, answer.text
        return answer.json()


def _add_service(tx: Session) -> None:
    group = tx.query(Group).filter_by(name="ann").one()
    service = Service(name="fib", group=group, created_by="ann", created_at=0.0)
    tx.add_all([service, Artifact(digest="d", size=0, files=0, created_at=0.0)])
    tx.flush()
    tx.add(
        Version(
            service=service, number=1, artifact="d", main="m.py", runtime="function", options={},
            metrics={}, curves={}, signature={}, origin={}, created_by="ann", created_at=0.0,
        )
    )  # fmt: skip


@pytest.fixture
def place(databases: Databases, tmp_path: Path) -> Iterator[Place]:
    config = PlatformConfig(data=str(tmp_path))
    with ControlRig(Store(databases.sqlite(tmp_path)), config=config) as rig:
        made = Place(rig)
        yield made
        made.log.close()


class Events:
    """The events of a stream as they come."""

    def __init__(self, rig: ControlRig, token: str, url: str, **headers: str) -> None:
        path, _, query = url.partition("?")
        given = {"host": "127.0.0.1:8000", "authorization": f"Bearer {token}", **headers}
        self._scope = {
            "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": f"/api/v1{path}", "raw_path": path.encode(), "query_string": query.encode(),
            "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
            "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in given.items()],
        }  # fmt: skip
        self._app = rig.app
        self._sent: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._left = asyncio.Event()
        self._asked = False

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Events]:
        """Connect, and leave at the end."""
        task = asyncio.create_task(self._app(self._scope, self._receive, self._sent.put))
        try:
            start = await asyncio.wait_for(self._sent.get(), 20)
            assert start["status"] == 200
            assert dict(start["headers"])[b"content-type"].startswith(b"text/event-stream")
            yield self
        finally:
            self._left.set()
            await asyncio.wait_for(task, 20)

    async def event(self) -> dict[str, str] | None:
        """The next one's fields; None at the end of the stream."""
        while True:
            message = await asyncio.wait_for(self._sent.get(), 20)
            lines = message["body"].decode().splitlines()
            fields = dict(line.split(": ", 1) for line in lines if line and line[0] != ":")
            if fields or not message["more_body"]:
                return fields or None

    async def texts(self, count: int) -> list[str]:
        """The texts of the next events."""
        found = []
        for _ in range(count):
            event = await self.event()
            assert event is not None
            assert event["event"] == "line"
            found.append(json.loads(event["data"])["text"])
        return found


def test_pages_of_an_application_log_are_read_from_the_end(place: Place) -> None:
    place.write("one", "two")
    place.write("three", worker=2)
    page = place.get("lines=2")
    assert page["lines"][1] == {
        "at": "2025-11-20T07:00:00.003Z", "source": "w2 g1", "text": "three",
    }  # fmt: skip
    assert [line["text"] for line in page["lines"]] == ["two", "three"]
    page = place.get(f"before={page['before']}")
    assert ([line["text"] for line in page["lines"]], page["before"]) == (["one"], None)
    page = place.get(f"after={page['after']}&replica=1&q=TW")
    assert [line["text"] for line in page["lines"]] == ["two"]


def test_the_deployment_log_is_the_services(place: Place) -> None:
    assert place.get(place="/services/fib/logs") == {"lines": [], "before": None, "after": None}
    place.log.write("fib", "rollout 4: loading")
    (line,) = place.get(place="/services/fib/logs")["lines"]
    assert (line["source"], line["text"]) == ("rollout 4", "loading")


@pytest.mark.parametrize("query", ["", "follow=true"])
def test_who_may_not_read_the_group_sees_no_log(place: Place, query: str) -> None:
    for there in (PLACE, "/services/fib/logs"):
        assert place.rig.call(place.bob, "GET", f"{there}?{query}").status_code == 404
        assert place.rig.call(None, "GET", f"{there}?{query}").status_code == 401
    place.rig.share("ann", "bob", "read")
    assert place.get(token=place.bob)["lines"] == []


@pytest.mark.parametrize(
    ("there", "status"),
    [
        ("/services/none/logs", 404),
        ("/services/fib/versions/2/logs", 404),
        ("/services/..%2f..%2fx/logs", 404),
        (f"{PLACE}?lines=0", 400),
        (f"{PLACE}?lines=5001", 400),
        (f"{PLACE}?before=x", 400),
        (f"{PLACE}?follow=true&before={log_files.BEGINNING}", 400),
        (f"{PLACE}?q={'x' * 201}", 400),
    ],
)
def test_what_cannot_be_shown_is_refused(place: Place, there: str, status: int) -> None:
    assert place.rig.call(place.ann, "GET", there).status_code == status


def test_a_log_is_followed_from_its_last_lines_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "POLL_S", 0.005)
    place.write("one", "two", "three")

    async def run() -> None:
        async with Events(place.rig, place.ann, f"{PLACE}?follow=true&lines=2").open() as events:
            assert await events.texts(2) == ["two", "three"]
            place.write("four")
            assert await events.texts(1) == ["four"]

    place.rig.run(run())


def test_a_follower_that_connects_again_goes_on_where_it_was(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "POLL_S", 0.005)
    place.write("one")

    async def run() -> None:
        async with Events(place.rig, place.ann, f"{PLACE}?follow=true").open() as events:
            event = await events.event()
        assert event is not None
        place.write("two", "three")
        again = Events(place.rig, place.ann, f"{PLACE}?follow=true", last_event_id=event["id"])
        async with again.open() as events:
            assert await events.texts(2) == ["two", "three"]

    place.rig.run(run())


@pytest.mark.parametrize("change", ["token revoked", "no member", "service deleted"])
def test_a_stream_ends_once_its_reader_may_not_read_any_more(
    place: Place, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(log_files, "POLL_S", 0.005)
    monkeypatch.setattr(following, "CHECK_S", 0.01)
    place.rig.share("ann", "bob", "read")
    place.write("one")

    def work(tx: Session) -> None:
        if change == "token revoked":
            tx.query(Token).delete()
        elif change == "service deleted":
            tx.delete(tx.query(Service).one())
        else:
            place_of = tx.query(Group).filter_by(name="ann").one()
            tx.connection().exec_driver_sql(f"DELETE FROM members WHERE group_id={place_of.id}")

    async def run() -> None:
        async with Events(place.rig, place.bob, f"{PLACE}?follow=true").open() as events:
            assert await events.texts(1) == ["one"]
            place.write("two")
            assert await events.texts(1) == ["two"]
            await place.rig.store.transact(work)
            assert await events.event() is None

    place.rig.run(run())


@pytest.mark.parametrize(("limit", "status"), [("MOST_STREAMS", 503), ("OF_ONE", 429)])
def test_only_so_many_logs_are_followed_at_a_time(
    place: Place, monkeypatch: pytest.MonkeyPatch, limit: str, status: int
) -> None:
    monkeypatch.setattr(following, limit, 1)
    place.write("one")

    async def ask() -> int:
        headers = {"authorization": f"Bearer {place.ann}"}
        answer = await place.rig.http.get(f"{PLACE}?follow=true", headers=headers)
        return answer.status_code

    async def run() -> None:
        async with Events(place.rig, place.ann, f"{PLACE}?follow=true").open() as events:
            assert await events.texts(1) == ["one"]
            assert await ask() == status
        async with Events(place.rig, place.ann, f"{PLACE}?follow=true").open() as events:
            assert await events.texts(1) == ["one"]

    place.rig.run(run())
