"""What a request that is not a plain JSON POST to a command means: routes, methods, media types.

Must never: touch sockets. It reads a request's head and either answers or submits the exchange.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

import msgspec

from modelcloud.codecs.media import FLAG_GZIP, FLAG_STREAM, FLAG_WRAPPED, Codec
from modelcloud.dataplane.answers import Hub
from modelcloud.dataplane.exchange import Exchange
from modelcloud.dataplane.frames import Kind
from modelcloud.dataplane.lookup import WRAPPED, Endpoint, Lookup, normalise
from modelcloud.dataplane.messages import LENGTH, RequestMeta

_FORM = b"application/x-www-form-urlencoded"
#: Methods that change nothing, so that a request may be tried again (RFC 9110, 9.2.1).
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = b"allow: GET, HEAD, OPTIONS, POST\r\n"
_PREFLIGHT = (
    b"access-control-allow-methods: GET, POST, OPTIONS\r\n"
    b"access-control-allow-headers: content-type, x-request-id, accept, authorization\r\n"
    b"access-control-max-age: 600\r\n"
)


class RequestHead(NamedTuple):
    """A request without its body, as the parser left it. `media_type` is "" when not given."""

    method: str
    url: bytes
    headers: list[tuple[bytes, bytes]]
    host: bytes
    media_type: bytes
    encoding: bytes
    wants_stream: bool
    preflight: bool  # an Origin that CORS admits came with it
    peer: str
    scheme: str

    @property
    def query(self) -> bytes:
        """The query string as it came."""
        return self.url.partition(b"?")[2]

    def text_headers(self) -> list[tuple[str, str]]:
        """Names in lower case; values as latin-1, as HTTP has them."""
        return [(k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in self.headers]


def route(hub: Hub, lookup: Lookup, exchange: Exchange, head: RequestHead) -> None:
    """Answer, hand to the node, or submit to where a command's requests go."""
    if hub.access_log:
        exchange.log = (head.method, head.url.partition(b"?")[0].decode("latin-1"))
    exchange.head_only = head.method == "HEAD"
    if head.method == "OPTIONS" and head.url == b"*":
        _answer(exchange, 204, b"", _METHODS)
        return
    target = _origin_form(head)
    if target is not None and target.startswith(WRAPPED):
        exchange.codec = FLAG_WRAPPED
    path = normalise(target) if target else None
    if path is None:
        _reject(hub, exchange, 400, "bad_path",
                "path: accepted is an absolute path without `.` or `..` segments, empty segments, "
                "backslashes, encoded slashes or control characters")  # fmt: skip
        return
    endpoint = lookup.find(path)
    if endpoint is None and hub.starting:
        _reject(hub, exchange, 503, "starting", "the server is starting; try again in a moment",
                b"retry-after: 1\r\n")  # fmt: skip
        return
    if endpoint is None:
        _reject(hub, exchange, 404, "not_found", f"nothing at {path}")
        return
    exchange.codec = endpoint.codec
    if endpoint.tokens is not None and not _may_ask(hub, exchange, endpoint, head):
        _reject(hub, exchange, 401, "token",
                "this service answers who presents a token: `Authorization: Bearer TOKEN`",
                b"www-authenticate: Bearer\r\n")  # fmt: skip
    elif head.method not in endpoint.allow:
        _reject(hub, exchange, 405, "method", f"{head.method} does not apply to {path}",
                _allow(endpoint), accepted=sorted(endpoint.allow))  # fmt: skip
    elif endpoint.whole_site:
        _submit_to_site(exchange, head, endpoint, path)
    elif head.method == "OPTIONS":
        _answer(exchange, 204, b"", _allow(endpoint) + (_PREFLIGHT if head.preflight else b""))
    elif endpoint.admin:
        hub.submit_admin(exchange, head, path)
    elif not endpoint.command:
        _answer(exchange, 200, b'{"status":"ok"}', b"")
    elif head.method in {"GET", "HEAD"} and not head.query and not exchange.body and endpoint.about:
        _answer(exchange, 200, endpoint.about, b"")
    else:
        _submit(hub, exchange, head, endpoint, path)


def _may_ask(hub: Hub, exchange: Exchange, endpoint: Endpoint, head: RequestHead) -> bool:
    """Whether a request came with one of the tokens, or is a question that needs none.

    Browsers ask for the options before they send the token (Fetch, 4.8); a web application gets
    even that question, so there it needs one too.
    """
    if head.method == "OPTIONS" and not endpoint.whole_site:
        return True
    given = [value for name, value in head.headers if name.lower() == b"authorization"]
    if len(given) != 1:
        return False
    scheme, _, token = given[0].partition(b" ")
    digest = sha256(token.strip()).hexdigest()
    if scheme.lower() != b"bearer" or digest not in (endpoint.tokens or ()):
        return False
    hub.presented[digest] = exchange.arrived
    return True


def _submit(hub: Hub, exchange: Exchange, head: RequestHead, endpoint: Endpoint, path: str) -> None:
    media_type = head.media_type
    if endpoint.with_meta:
        _attach_meta(exchange, head, endpoint, path)
    elif head.query and not exchange.body:
        exchange.codec |= Codec.QUERY
        exchange.body = head.query
    elif media_type == _FORM:
        exchange.codec |= Codec.FORM
    elif media_type and media_type != b"application/json" and not media_type.endswith(b"+json"):
        _reject(hub, exchange, 415, "media_type",
                f"content-type: got {media_type.decode('latin-1')}; "
                "accepted: application/json")  # fmt: skip
        return
    if head.encoding == b"gzip":
        exchange.codec |= FLAG_GZIP
    elif head.encoding != b"identity":
        _reject(hub, exchange, 415, "encoding",
                f"content-encoding: got {head.encoding.decode('latin-1')}; accepted: gzip",
                b"accept-encoding: gzip\r\n")  # fmt: skip
        return
    if head.wants_stream and endpoint.streams and not exchange.head_only:
        exchange.codec |= FLAG_STREAM
    exchange.command = endpoint.command
    exchange.idempotent = endpoint.idempotent
    _hand_on(exchange, head, endpoint)


def _submit_to_site(exchange: Exchange, head: RequestHead, endpoint: Endpoint, path: str) -> None:
    """The application reads the body as it came, whatever its type and encoding."""
    _attach_meta(exchange, head, endpoint, path)
    exchange.command = endpoint.command
    exchange.idempotent = head.method in _SAFE
    _hand_on(exchange, head, endpoint)


def _hand_on(exchange: Exchange, head: RequestHead, endpoint: Endpoint) -> None:
    if endpoint.reads_head:
        exchange.asked = head
    endpoint.target.submit(exchange)


def _attach_meta(exchange: Exchange, head: RequestHead, endpoint: Endpoint, path: str) -> None:
    headers = head.text_headers()
    if endpoint.tokens is not None:  # the model has no business with it
        headers = [header for header in headers if header[0] != "authorization"]
    meta = msgspec.msgpack.encode(
        RequestMeta(
            method=head.method,
            path=path,
            query=head.query.decode("latin-1"),
            headers=headers,
            scheme=head.scheme,
            peer=head.peer,
        )
    )
    exchange.kind = Kind.REQUEST_WITH_META
    exchange.body = LENGTH.pack(len(meta)) + meta + exchange.body


def _origin_form(head: RequestHead) -> bytes | None:
    """The path of the target; `http://host/path` is taken if its host is the Host header's.

    RFC 9112, 3.2.2 lets the target's host override the header; refusing a difference leaves no
    room for one part of a system to authorise the one and another to route by the other.
    """
    target = head.url.partition(b"?")[0]
    if target.startswith(b"/"):
        return target
    scheme, _, rest = target.partition(b"://")
    authority, slash, path = rest.partition(b"/")
    if scheme.lower() in {b"http", b"https"} and slash and authority == head.host:
        return slash + path
    return None


def _allow(endpoint: Endpoint) -> bytes:
    return b"allow: %b\r\n" % ", ".join(sorted(endpoint.allow)).encode()


def _answer(exchange: Exchange, status: int, body: bytes, extra: bytes) -> None:
    exchange.reply(extra, status, Codec.JSON, body)


def _reject(
    hub: Hub, exchange: Exchange, status: int, reason: str, message: str,
    extra: bytes = b"", **fields: object,
) -> None:  # fmt: skip
    hub.count_rejected(reason)
    exchange.fail(status, message, extra=extra, **fields)
