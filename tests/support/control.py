"""The control plane's web application over a store and an engine in memory, and people to ask it.

A rig is a context manager:

    with ControlRig(store) as rig:
        ann = rig.user("ann")
        assert rig.call(ann, "GET", "/groups").json()["items"][0]["name"] == "ann"
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from sqlalchemy import select

from modelcloud.config import PlatformConfig
from modelcloud.control.access import passwords, users
from modelcloud.control.access.auth import SESSION, SESSION_S, TOKEN
from modelcloud.control.app import create_app
from modelcloud.control.state import PlatformState
from modelcloud.engines.base import Engine
from modelcloud.engines.fake import FakeEngine
from modelcloud.node.orders import Standing
from modelcloud.store.store import Store
from modelcloud.store.tables import Group, Member, Token, User

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

T = TypeVar("T")

#: Of every user that `ControlRig.user` makes.
PASSWORD = "correct horse battery"
GIB = 1 << 30


@cache
def password_hash() -> str:
    """The hash of `PASSWORD`, made once: it is slow on purpose."""
    return passwords.hash_password(PASSWORD)


def standing_of(config: PlatformConfig | None = None) -> Standing:
    """What a node of 8 processors, 16 GiB and 2 devices says of itself."""
    return Standing(
        config=config or PlatformConfig(data="/nonexistent"),
        port=8080,
        listen_fd=-1,
        control_port=8000,
        cpus=8.0,
        memory=16 * GIB,
        gpus=2,
        deployments=0,
    )


class ControlRig:
    """The application; requests run on a loop of its own, over no network.

    Args:
        store: migrated.
        engine: where workers seem to run.
        config: of the platform.
        parts: what else the routers ask for; `start` starts those that are `Background`.
        peer: the address that requests come from.
    """

    def __init__(
        self,
        store: Store,
        *,
        engine: Engine | None = None,
        config: PlatformConfig | None = None,
        parts: tuple[object, ...] = (),
        peer: str = "127.0.0.1",
    ) -> None:
        self.loop = asyncio.new_event_loop()
        self.store = store
        self.now = 0.0  # what the clocks show beyond the real time
        self.state = PlatformState(
            store=store,
            engine=engine or FakeEngine(),
            standing=standing_of(config),
            parts=parts,
            clock=lambda: time.monotonic() + self.now,
            wall=lambda: time.time() + self.now,
        )
        self.app = create_app(self.state)
        self._lifespan: Any = None
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, client=(peer, 40000)),
            base_url="http://127.0.0.1:8000/api/v1",
        )

    def __enter__(self) -> ControlRig:  # noqa: PYI034 — Self is not in Python 3.10
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._lifespan is not None:
            self.run(self._lifespan.__aexit__(None, None, None))
        self.run(self.http.aclose())
        self.run(_end_tasks())
        self.run(self.store.close())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def start(self) -> None:
        """Start the parts that work in the background."""
        self._lifespan = self.app.router.lifespan_context(self.app)
        self.run(self._lifespan.__aenter__())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop."""
        return self.loop.run_until_complete(work)

    def do(self, work: Callable[[Session], T]) -> T:
        """Run `work` in a transaction."""
        return self.run(self.store.transact(work))

    # ---- people

    def user(self, name: str, *, admin: bool = False) -> str:
        """Make a user with `PASSWORD`, and return the token of a session of theirs."""
        self.do(
            lambda tx: (
                users.add(tx, name, password_hash(), is_admin=admin, must_change=False) and None
            )
        )
        return self.token(name, kind=SESSION, expires_in_s=SESSION_S)

    def token(
        self,
        user: str,
        level: str = "manage",
        group: str | None = None,
        *,
        kind: str = TOKEN,
        expires_in_s: float | None = None,
    ) -> str:
        """Make a token of a user, for a group or all."""
        token = passwords.new_token()
        now = self.state.wall()

        def work(tx: Session) -> None:
            row = Token(
                user_id=_id(tx, User, user),
                group_id=None if group is None else _id(tx, Group, group),
                kind=kind,
                level=level,
                digest=passwords.digest(token),
                created_at=now,
                expires_at=None if expires_in_s is None else now + expires_in_s,
            )
            tx.add(row)

        self.do(work)
        return token

    def share(self, group: str, user: str, level: str) -> None:
        """Make a user a member of a group."""

        def work(tx: Session) -> None:
            group_id, user_id = _id(tx, Group, group), _id(tx, User, user)
            tx.merge(Member(group_id=group_id, user_id=user_id, level=level))

        self.do(work)

    # ---- requests

    def call(
        self,
        token: str | None,
        method: str,
        path: str,
        json: Any = None,
        *,
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        """Ask for a path below `/api/v1` (or for a whole URL), with a token or without."""
        given = dict(headers or {})
        if token is not None:
            given.setdefault("authorization", f"Bearer {token}")
        more: dict[str, Any] = {} if json is None else {"json": json}
        if content is not None:
            more["content"] = content
        return self.run(self.http.request(method, path, headers=given, **more))


def _id(tx: Session, table: type[User | Group], name: str) -> int:
    return tx.scalars(select(table.id).where(table.name == name)).one()


async def _end_tasks() -> None:
    """End what outlives a request: sse-starlette waits in a task for the end of its server."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
