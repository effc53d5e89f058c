"""What stands at a path: one reading of it, and a dictionary for each listening address.

Must never: know connections or processes. `normalise` is the only reading of a path there is;
routing and authorisation both see its result (attack row 7: one normaliser).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote_to_bytes

from modelcloud.codecs import predict
from modelcloud.codecs.media import FLAG_WRAPPED, Codec

if TYPE_CHECKING:
    from modelcloud.dataplane.exchange import Exchange
    from modelcloud.dataplane.messages import CommandRoute

#: Path that the gateway answers itself, at every address.
HEALTHZ = "/healthz"
#: Below it every answer is wrapped, also the one that nothing is there.
WRAPPED = b"/predict/"
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


class Target(Protocol):
    """What takes a command's requests: a pool, or what chooses one."""

    def submit(self, exchange: Exchange) -> None:
        """See to its answer."""


class Endpoint:
    """What stands at a path: a command, an address of the node, or `/healthz`.

    Attributes:
        command: "" for what is not a command.
        target: where a command's requests go, a `Target`.
        codec: of a plain JSON request, with the flag that has its answer wrapped.
        tokens: sha256, in hexadecimal, of the tokens that may ask; None: anyone may.
        reads_head: its target looks at headers or the query.
        allow: methods it answers.
    """

    __slots__ = (
        "about", "admin", "allow", "codec", "command", "idempotent", "path", "reads_head",
        "streams", "target", "tokens", "whole_site", "with_meta",
    )  # fmt: skip

    def __init__(
        self,
        path: str,
        methods: Iterable[str],
        *,
        route: CommandRoute | None = None,
        target: Any = None,
        tokens: frozenset[str] | None = None,
        reads_head: bool = False,
        admin: bool = False,
    ) -> None:
        self.path = path
        self.target = target
        self.tokens = tokens
        self.reads_head = reads_head
        self.admin = admin
        self.command = route.command if route else ""
        self.about = route.about if route else b""
        if route and route.wrapped and route.about:
            self.about = predict.success(route.about)
        self.idempotent = route.idempotent if route else True
        self.streams = route.streams if route else False
        self.with_meta = route.with_meta if route else False
        self.whole_site = route.whole_site if route else False
        self.codec = int(Codec.JSON | FLAG_WRAPPED if route and route.wrapped else Codec.JSON)
        allow = {*methods, "OPTIONS"}
        if "GET" in allow:
            allow.add("HEAD")
        self.allow = frozenset(allow)

    @property
    def hot(self) -> bool:
        """Whether a plain JSON POST may go to the target by its path alone."""
        special = self.with_meta or self.whole_site or self.reads_head or self.tokens is not None
        return bool(self.command) and "POST" in self.allow and not special


class Lookup:
    """The endpoints of one listening address: by raw path, by canonical path."""

    __slots__ = ("_by_path", "_prefixes", "_site", "hot")

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._by_path: dict[str, Endpoint] = {}
        self._prefixes: dict[str, Endpoint] = {}
        self._site: Endpoint | None = None
        for endpoint in endpoints:
            if endpoint.whole_site:
                self._site = endpoint
                continue
            if endpoint.path.endswith("/*"):
                self._prefixes[endpoint.path[:-2]] = endpoint
                continue
            self._by_path[endpoint.path] = endpoint
        #: Raw bytes of the commands' plain paths: one dictionary access on the request path.
        self.hot = {
            raw: endpoint
            for path, endpoint in self._by_path.items()
            if endpoint.hot and normalise(raw := path.encode()) == path
        }

    def find(self, path: str) -> Endpoint | None:
        """The endpoint of a canonical path, or None."""
        endpoint = self._by_path.get(path)
        if endpoint is None and self._prefixes:
            head, _, tail = path.rpartition("/")
            if tail:
                endpoint = self._prefixes.get(head)
        return endpoint or self._site
