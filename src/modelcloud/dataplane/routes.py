"""Which path leads where: pure functions between a service's signature and a lookup by exact path.

Must never: know connections or processes. `normalise` is the only reading of a path there is;
routing and authorisation both see its result (attack row 7: one normaliser).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from modelcloud.config import Limits
from modelcloud.dataplane.messages import (
    AdminRoute,
    CommandRoute,
    RouteTable,
    ServiceRoutes,
    WorkerAddress,
)

#: Paths the gateway answers itself.
HEALTHZ = "/healthz"

#: Methods of a web application; those of a command are GET and POST.
SITE_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")

_UNSAFE = re.compile(rb"%(?:2f|5c|00)|[\\\x00-\x20\x7f]|//", re.IGNORECASE)


def normalise(path: bytes) -> str | None:
    """The canonical form of a raw request path, percent-decoded once.

    Returns:
        The path, or None when it must be refused: not absolute, an encoded slash, a backslash, a
        control character, an empty segment, a `.` or `..` segment, or no UTF-8.
    """
    if not path.startswith(b"/") or _UNSAFE.search(path):
        return None
    decoded = unquote_to_bytes(path)
    if any(segment in {b".", b".."} for segment in decoded.split(b"/")):
        return None
    if decoded != path and _UNSAFE.search(decoded.replace(b" ", b"")):
        return None
    try:
        return decoded.decode("utf-8")
    except UnicodeDecodeError:
        return None


def build_table(
    *,
    snapshot: int,
    service: str,
    signature: dict[str, Any],
    workers: Sequence[WorkerAddress],
    available: bool,
    limits: Limits,
    admin: Iterable[AdminRoute] = (),
) -> RouteTable:
    """The table of one service that sits at the root, as in `modelcloud serve`.

    Args:
        snapshot: id of this table, greater than any before.
        service: name of the service; its commands are also reached at `/<service>/<command>`.
        signature: `Signature.to_dict()` of the newest routed generation.
        workers: ready workers of the routed generations.
        available: False when no worker is there and none is to come soon.
        limits: queue length and deadline of the service.
        admin: addresses the node answers.
    """
    whole_site = any(command["wholeSite"] for command in signature.get("commands", ()))
    commands = tuple(
        CommandRoute(
            service=service,
            paths=() if whole_site else (f"/{command['name']}", f"/{service}/{command['name']}"),
            command=command["name"],
            about=b"" if whole_site else msgspec.json.encode(command),
            idempotent=command["idempotent"],
            streams=command["streams"],
            with_meta=command["withRequest"],
            whole_site=whole_site,
        )
        for command in signature.get("commands", ())
    )
    return RouteTable(
        snapshot=snapshot,
        services=(
            ServiceRoutes(
                name=service,
                commands=commands,
                workers=tuple(workers),
                available=available,
                queue=limits.queue,
                deadline_s=limits.deadline_s,
            ),
        ),
        admin=tuple(route for route in admin if not (whole_site and route.yields)),
    )


class Endpoint:
    """What stands at a path: a command of a service, an address of the node, or `/healthz`.

    Attributes:
        command: "" for what is not a command.
        pool: the service's `pool.Pool` for a command.
        allow: methods it answers.
    """

    __slots__ = (
        "about", "admin", "allow", "command", "idempotent", "path", "pool", "streams",
        "whole_site", "with_meta",
    )  # fmt: skip

    def __init__(
        self,
        path: str,
        methods: Iterable[str],
        *,
        route: CommandRoute | None = None,
        pool: Any = None,
        admin: bool = False,
    ) -> None:
        self.path = path
        self.pool = pool
        self.admin = admin
        self.command = route.command if route else ""
        self.about = route.about if route else b""
        self.idempotent = route.idempotent if route else True
        self.streams = route.streams if route else False
        self.with_meta = route.with_meta if route else False
        self.whole_site = route.whole_site if route else False
        allow = {*methods, "OPTIONS"}
        if "GET" in allow:
            allow.add("HEAD")
        self.allow = frozenset(allow)


class Lookup:
    """A route table ready for use: one dictionary by raw path, one by canonical path."""

    __slots__ = ("_by_path", "_prefixes", "_site", "hot")

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._by_path: dict[str, Endpoint] = {}
        self._prefixes: dict[str, Endpoint] = {}
        self._site: Endpoint | None = None
        #: Raw bytes of the commands' plain paths: one dictionary access on the request path.
        self.hot: dict[bytes, Endpoint] = {}
        for endpoint in endpoints:
            if endpoint.whole_site:
                self._site = endpoint
                continue
            if endpoint.path.endswith("/*"):
                self._prefixes[endpoint.path[:-2]] = endpoint
                continue
            self._by_path[endpoint.path] = endpoint
            raw = endpoint.path.encode()
            if endpoint.command and not endpoint.with_meta and normalise(raw) == endpoint.path:
                self.hot[raw] = endpoint

    def find(self, path: str) -> Endpoint | None:
        """The endpoint of a canonical path, or None."""
        endpoint = self._by_path.get(path)
        if endpoint is None and self._prefixes:
            head, _, tail = path.rpartition("/")
            if tail:
                endpoint = self._prefixes.get(head)
        return endpoint or self._site
