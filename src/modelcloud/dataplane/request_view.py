"""The request as a `with_request` command sees it: headers and query beside the body.

Must never: read a socket; everything is already here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from modelcloud.codecs.media import CODEC_MASK, FLAG_GZIP, Codec
from modelcloud.codecs.native import inflate, parse_json
from modelcloud.dataplane.messages import LENGTH, RequestMeta

_meta = msgspec.msgpack.Decoder(RequestMeta)


class RequestView:
    """`sdk.contract.Request` over the bytes of a frame."""

    def __init__(self, meta: RequestMeta, body: bytes, *, gzipped: bool, max_body: int) -> None:
        self.method = meta.method
        self.path = meta.path
        self.query = meta.query
        self.scheme = meta.scheme
        self.peer = meta.peer
        self._meta = meta
        self._body = body
        self._gzipped = gzipped
        self._max_body = max_body

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; of a name given twice, the last value."""
        return dict(self._meta.headers)

    @property
    def query_params(self) -> Mapping[str, str]:
        """The last value of each name."""
        return dict(parse_qsl(self._meta.query, keep_blank_values=True))

    def read(self) -> bytes:
        """The body, expanded if it was gzip'd.

        Raises:
            UsageError: it is not what its content encoding says.
        """
        if self._gzipped:
            self._body = inflate(self._body, self._max_body)
            self._gzipped = False
        return self._body

    async def body(self) -> bytes:
        """As `read`."""
        return self.read()

    async def json(self) -> Any:
        """The body as JSON; without a body, the query's values.

        Raises:
            UsageError: it is no JSON.
        """
        body = await self.body()
        return parse_json(body) if body else dict(self.query_params)


def read_request(frame: bytes, codec: int, max_body: int) -> RequestView:
    """A REQUEST_WITH_META frame's body → what the command's function gets."""
    (length,) = LENGTH.unpack_from(frame)
    meta = _meta.decode(frame[LENGTH.size : LENGTH.size + length])
    body = frame[LENGTH.size + length :]
    return RequestView(meta, body, gzipped=bool(codec & FLAG_GZIP), max_body=max_body)


def read_plain(frame: bytes, codec: int) -> tuple[int, bytes]:
    """A REQUEST_WITH_META frame's body → codec and body as of a REQUEST."""
    (length,) = LENGTH.unpack_from(frame)
    body = frame[LENGTH.size + length :]
    meta = _meta.decode(frame[LENGTH.size : LENGTH.size + length])
    if meta.query and not body:
        return codec | Codec.QUERY, meta.query.encode("latin-1")
    form = dict(meta.headers).get("content-type", "").startswith("application/x-www-form-urlenc")
    return codec | (Codec.FORM if form else Codec.JSON), body


def view_of(command: str, codec: int, body: bytes, max_body: int) -> RequestView:
    """A REQUEST frame's codec and body → the request that they may have come from."""
    query = codec & CODEC_MASK == Codec.QUERY
    meta = RequestMeta(
        method="GET" if query else "POST",
        path=f"/{command}",
        query=body.decode("latin-1") if query else "",
        headers=[],
    )
    gzipped = bool(codec & FLAG_GZIP)
    return RequestView(meta, b"" if query else body, gzipped=gzipped, max_body=max_body)
