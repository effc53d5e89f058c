"""The address of workspaces before a stub of a lab: what gets through, and what does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from sqlalchemy import select

from modelcloud.config import PlatformConfig
from modelcloud.control.access.auth import actor_of
from modelcloud.control.access.permissions import Actor
from modelcloud.control.workspaces import proxy as proxy_module
from modelcloud.control.workspaces.proxy import Proxy
from modelcloud.control.workspaces.workspaces import Workspace, Workspaces
from modelcloud.dataplane.confinement import Confinement
from modelcloud.store.store import Store
from modelcloud.store.tables import Group, Token, User
from modelcloud.waiting import within
from modelcloud.workspaces.enter import Lab
from modelcloud.workspaces.process import LabProcess
from support.control import ControlRig
from support.stores import Databases

HERE = "http://127.0.0.1:8001"


class StubLab:
    """Answers each connection with `answer`; keeps what was asked."""

    def __init__(self) -> None:
        self.asked = b""
        self.answer = (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nset-cookie: modelcloud_session=x\r\n"
            b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
        )

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            while part := await asyncio.wait_for(reader.read(65536), 0.2):
                self.asked += part
        writer.write(self.answer)
        await writer.drain()
        writer.close()


class World:
    """Ann's workspace, and who asks for it."""

    def __init__(self, rig: ControlRig, folder: Path) -> None:
        self.rig, self.lab = rig, StubLab()
        self.session = rig.user("ann")
        self.workspaces = Workspaces(rig.state)

        def rows(tx: Any) -> tuple[Group, Actor, int]:
            user = tx.scalars(select(User.id).where(User.name == "ann")).one()
            actor = actor_of(tx, user, "")
            assert actor is not None
            group = tx.scalars(select(Group).where(Group.name == "ann")).one()
            return group, actor, tx.scalars(select(Token.id)).one()

        group, actor, token_id = rig.run(rig.store.read(rows))
        self.workspace = made = Workspace(group, actor, 0.0, 0.0)
        socket = self.socket = str(folder / "s")
        made.process = LabProcess(
            Lab(files="", own="", socket=socket, base=made.base, token="lab-token",
                confinement=Confinement(), environment={})
        )  # fmt: skip
        made.ready = True
        self.workspaces._running[actor.user_id] = made
        self.server = rig.run(asyncio.start_unix_server(self.lab, socket))
        ticket = self.workspaces.tickets.issue(made.id, token_id)
        self.cookie = self.workspaces.tickets.redeem(made.id, ticket)
        app: Any = Proxy(rig.state, self.workspaces)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, client=("127.0.0.1", 4000)), base_url=HERE
        )

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"cookie": f"modelcloud_session=s; modelcloud_workspace={self.cookie}"}
        headers |= more.pop("headers", {})
        url = self.workspace.base + path
        return self.rig.run(self.http.request(method, url, headers=headers, **more))

    def close(self) -> None:
        self.rig.run(self.http.aclose())
        self.server.close()


@pytest.fixture
def world(databases: Databases, tmp_path: Path) -> Iterator[World]:
    config = PlatformConfig(data=str(tmp_path), workspaces=1, workspace_url="https://labs.example")
    with ControlRig(Store(databases.sqlite(tmp_path)), config=config) as rig:
        made = World(rig, tmp_path)
        yield made
        made.close()


def test_a_request_gets_through_with_the_labs_token_and_no_cookie(world: World) -> None:
    answer = world.ask("PUT", "api/contents/a%2Fb?x=1", content=b"body " * 20_000)
    assert (answer.status_code, answer.text) == (200, "abcdefg")
    assert "set-cookie" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"
    head, _, body = world.lab.asked.partition(b"\r\n\r\n")
    first, *lines = head.decode().lower().split("\r\n")
    assert first == f"put {world.workspace.base.lower()}api/contents/a%2fb?x=1 http/1.1"
    assert "authorization: token lab-token" in lines
    assert not [line for line in lines if line.startswith(("cookie", "origin", "x-forwarded"))]
    assert body.count(b"body ") == 20_000


def test_a_body_over_the_limit_and_a_method_that_is_none_are_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_module, "MAX_MESSAGE", 1000)
    assert world.ask("POST", "x", content=b"x" * 1001).status_code == 413
    assert world.ask("TRACE", "x").status_code == 405


def test_only_so_many_requests_are_under_way_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_module, "MOST", 1)
    world.workspace.connections = 1
    assert world.ask("GET", "lab").status_code == 429
    world.workspace.connections = 0
    assert world.ask("GET", "lab").status_code == 200
    assert world.workspace.connections == 0


def test_a_lab_that_does_not_answer_is_told_as_that(world: World) -> None:
    world.lab.answer = b"no HTTP at all\r\n\r\n"
    assert world.ask("GET", "lab").status_code == 502
    world.lab.answer = b""
    assert world.ask("GET", "lab").status_code == 502
    world.server.close()
    assert world.ask("GET", "lab").status_code == 502


def test_an_answer_that_nobody_waits_for_any_more_is_given_up(world: World) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"1\r\nx\r\n")
                await writer.drain()
                await asyncio.sleep(0.001)
            writer.close()

    sent: list[Any] = []
    heard = asyncio.Event()
    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        if (first := next(asked, None)) is not None:
            return first
        await heard.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) >= 10:
            heard.set()

    cookie = f"modelcloud_workspace={world.cookie}".encode()
    scope: Any = {
        "type": "http", "method": "GET", "path": f"{world.workspace.base}lab", "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:8001"), (b"cookie", cookie)],
    }  # fmt: skip

    async def ask() -> None:
        assert world.workspace.process is not None
        lab = replace(world.workspace.process.lab, socket=f"{world.socket}2")
        world.workspace.process = LabProcess(lab)
        server = await asyncio.start_unix_server(endless, lab.socket)
        await within(Proxy(world.rig.state, world.workspaces)(scope, receive, send), 30.0)
        server.close()

    world.rig.run(ask())
    assert len(sent) >= 10
    assert world.workspace.connections == 0


def test_a_level_that_was_taken_away_counts_at_once(world: World) -> None:
    assert world.ask("GET", "lab").status_code == 200
    world.rig.share("ann", "ann", "read")
    assert world.ask("GET", "lab").status_code == 401
    world.rig.share("ann", "ann", "manage")
    assert world.ask("GET", "lab", headers={"cookie": "modelcloud_workspace=x"}).status_code == 401
    world.rig.do(lambda tx: tx.delete(tx.scalars(select(Token)).one()))
    assert world.ask("GET", "lab").status_code == 401


def test_a_page_of_another_origin_or_host_is_refused(world: World) -> None:
    for headers in ({"origin": "http://127.0.0.1:8000"}, {"sec-fetch-site": "same-site"},
                    {"host": "rebound.example"}):  # fmt: skip
        assert world.ask("GET", "lab", headers=headers).status_code == 403, headers
    assert world.lab.asked == b""
    known = {"host": "labs.example", "origin": "https://labs.example"}
    assert world.ask("GET", "lab", headers=known).status_code == 200
