"""A WSGI application, such as Flask's or Django's, as the model of a service (PEP 3333).

Must never: import a framework; an application is a callable. The answer is gathered whole before
it is sent, so that a worker that dies half way never leaves half an answer.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from modelcloud.errors import ModelError
from modelcloud.sdk.blame import user_code
from modelcloud.sdk.contract import Command, Request, Response, Signature

COMMAND = "app"
#: Headers of one connection, which is the gateway's business (RFC 9110, 7.6.1).
_HOP_BY_HOP = frozenset({
    "connection", "content-length", "keep-alive", "proxy-authenticate", "proxy-authorization",
    "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class WsgiBackend:
    """A WSGI application, as a Backend of one command that answers every address.

    Args:
        application: the callable.
        threads: calls that run at a time in one process.
    """

    def __init__(self, application: Application, threads: int) -> None:
        self._application = application
        self._threads = threads

    @property
    def signature(self) -> Signature:
        """One command; what addresses there are is the application's business."""
        command = Command(
            name=COMMAND,
            description="A web application; every address but the server's own is its.",
            with_request=True,
            whole_site=True,
            idempotent=False,
        )
        return Signature(runtime="wsgi", commands=(command,))

    def load(self, options: dict[str, Any]) -> None:
        """Nothing: the application was made when its module was imported."""

    def handler(self, command: str) -> Callable[[Any], Any]:
        """Call the application for one request."""
        return self._answer

    def reconfigure(self, config: dict[str, Any]) -> None:
        """Not possible.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is held."""

    def _answer(self, request: Request) -> Response:
        started = _Start()
        with user_code("the application"):
            pieces = self._application(environ_of(request, self._threads), started)
            try:
                for piece in pieces:
                    started.body.write(piece)
            finally:
                if close := getattr(pieces, "close", None):
                    close()
        return started.response(head=request.method == "HEAD")


class _Start:
    """`start_response`, and what is written by it."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.body = io.BytesIO()

    def __call__(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: tuple[type[BaseException], BaseException, TracebackType] | None = None,
    ) -> Callable[[bytes], int]:
        if self.status and exc_info is None:
            raise ModelError("start_response was called twice without exc_info")
        # Nothing has been sent, so an error page may always take the answer's place.
        self.status, self.headers, self.body = status, list(headers), io.BytesIO()
        return self.body.write

    def response(self, *, head: bool) -> Response:
        """What the application said.

        Raises:
            ModelError: it never called `start_response`, or with no status.
        """
        code = self.status.split(" ", 1)[0]
        if not (code.isdigit() and len(code) == 3 and int(code) >= 200):
            raise ModelError(f"start_response got the status {self.status[:40]!r}; accepted: "
                             "three digits from 200 on, then a phrase")  # fmt: skip
        own = [(name, value) for name, value in self.headers if name.lower() not in _HOP_BY_HOP]
        if head:  # what the length would have been, only the application knows
            lengths = [value for name, value in self.headers if name.lower() == "content-length"]
            own += [("content-length", value) for value in lengths[:1]]
        return Response(status=int(code), headers=own, body=self.body.getvalue())


def environ_of(request: Request, threads: int) -> dict[str, Any]:
    """The environment of one request (PEP 3333; strings are bytes decoded as latin-1)."""
    headers = request.headers
    name, _, port = headers.get("host", "").partition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path.encode().decode("latin-1"),
        "QUERY_STRING": request.query,
        "SERVER_NAME": name,
        "SERVER_PORT": port or ("443" if request.scheme == "https" else "80"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": request.peer,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": io.BytesIO(request.read()),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": threads > 1,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    environ["CONTENT_LENGTH"] = str(environ["wsgi.input"].getbuffer().nbytes)
    for header, value in headers.items():
        if "_" in header or header in {"content-length", "transfer-encoding", "content-encoding"}:
            continue  # `x_y` would pass for `x-y`; the body is whole and expanded here
        key = header.upper().replace("-", "_")
        environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    return environ
