"""A workspace as its user's browser reaches it, without the browser."""

from __future__ import annotations

import json
import secrets
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx
from websockets.sync.client import ClientConnection, connect

from modelcloud.platform import Platform

#: For a cell to run.
CELL_S = 60.0


class Workspace:
    """One's own workspace, open; the user's requests as a page of its origin makes them.

    Args:
        platform: signed in as its user, in whose `group` it runs.
    """

    def __init__(self, platform: Platform, group: str) -> None:
        self.entrance = platform.open_workspace(group)["url"]
        split = urlsplit(self.entrance)
        self.origin = f"{split.scheme}://{split.netloc}"
        self.base = split.path.removesuffix("enter")
        self.http = httpx.Client(base_url=self.origin, timeout=60.0)
        answer = self.http.get(self.entrance)
        assert answer.status_code == 200, answer.text

    def __enter__(self) -> Workspace:  # noqa: PYI034 — Self is not in Python 3.10
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.http.close()

    @property
    def cookie(self) -> str:
        """As a browser sends it."""
        return "; ".join(f"{one.name}={one.value}" for one in self.http.cookies.jar)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(self.base + path, headers=headers)

    def kernel(self) -> str:
        """The id of a new kernel."""
        answer = self.http.post(
            f"{self.base}api/kernels", json={"name": "python3"}, headers={"origin": self.origin}
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def socket(self, kernel: str, **headers: str) -> ClientConnection:
        """The websocket of a kernel, as a page opens it; `headers` in place of a page's own."""
        sent = {"cookie": self.cookie, "origin": self.origin, **headers}
        address = self.origin.replace("http:", "ws:") + self.base
        return connect(
            f"{address}api/kernels/{kernel}/channels",
            additional_headers={name: value for name, value in sent.items() if value},
            proxy=None,
            open_timeout=30,
        )

    def run(self, code: str, kernel: str | None = None) -> str:
        """What a cell prints, and its error."""
        with self.socket(kernel or self.kernel()) as socket:
            return execute(socket, code)


def execute(socket: ClientConnection, code: str) -> str:
    """Run a cell over a kernel's websocket; what it prints, and its error."""
    asked = secrets.token_hex(8)
    header = {"msg_id": asked, "msg_type": "execute_request", "session": "s", "username": "u",
              "version": "5.3", "date": ""}  # fmt: skip
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {},
               "allow_stdin": False, "stop_on_error": True}  # fmt: skip
    message: dict[str, Any] = {"header": header, "parent_header": {}, "metadata": {},
                               "content": content, "channel": "shell", "buffers": []}  # fmt: skip
    socket.send(json.dumps(message))
    said = ""
    while True:
        told = json.loads(socket.recv(timeout=CELL_S))
        if told.get("parent_header", {}).get("msg_id") != asked:
            continue
        kind, content = told["msg_type"], told["content"]
        if kind == "stream":
            said += content["text"]
        elif kind == "error":
            said += f"{content['ename']}: {content['evalue']}"
        elif kind == "status" and content["execution_state"] == "idle":
            return said
