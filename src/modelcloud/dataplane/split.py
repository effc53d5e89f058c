"""Which of several pools a request goes to: by chance, by weights, or always the same for one key.

Must never: queue or answer. It looks into a body only for a sticky body key, and says how far.
"""

from __future__ import annotations

import random
import re
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate
from math import log
from typing import TYPE_CHECKING, Any

import msgspec

from modelcloud.codecs.media import CODEC_MASK, FLAG_GZIP, Codec
from modelcloud.dataplane.frames import Kind
from modelcloud.dataplane.messages import LENGTH, Share

if TYPE_CHECKING:
    from modelcloud.dataplane.exchange import Exchange
    from modelcloud.dataplane.lookup import Target
    from modelcloud.types import Sticky

#: Bodies beyond this size are not searched for a key.
MAX_SEARCHED = 1024 * 1024
#: So many, plus a half, a float still tells apart: no draw comes out as 0 or 1.
_DRAWS = float(1 << 52)
#: What msgspec accepts in no key that it looks for.
_UNNAMABLE = re.compile(r'[\\"\x00-\x1f]')

KeyOf = Callable[["Exchange"], bytes]


def choose(key: bytes, shares: Sequence[Share]) -> str:
    """The pool that `key` belongs to: the same in every gateway, and after every restart.

    Weighted rendezvous hashing (Schindelhauer, Schomaker 2005, "Weighted distributed hash tables",
    logarithmic method): each pool draws a number from the key and its name, and the best scaled
    draw wins. So a pool that goes gives up its own keys and moves no other, and keys follow a
    change of weights only as far as the weights do.
    """

    def score(share: Share) -> float:
        digest = blake2b(b"%b\0%b" % (share.pool.encode(), key), digest_size=8).digest()
        draw = ((int.from_bytes(digest, "little") >> 12) + 0.5) / _DRAWS
        return -share.weight / log(draw)

    return max(shares, key=score).pool


class Split:
    """Sends each request to one of several targets.

    Args:
        shares: pools and weights; a request without a key falls to one by chance.
        targets: what takes the requests for each pool.
        key_of: reads the key of a request, empty if it has none; None: chance alone decides.
    """

    def __init__(
        self, shares: Sequence[Share], targets: Mapping[str, Target], key_of: KeyOf | None = None
    ) -> None:
        self._shares = shares
        self._targets = targets
        self._in_order = [targets[share.pool] for share in shares]
        self._bounds = list(accumulate(share.weight for share in shares))
        self._key_of = key_of

    def submit(self, exchange: Exchange) -> None:
        """Hand it on."""
        key = self._key_of(exchange) if self._key_of is not None else b""
        if key:
            target = self._targets[choose(key, self._shares)]
        else:
            drawn = random.random() * self._bounds[-1]  # noqa: S311 — no secret depends on it
            target = self._in_order[min(bisect(self._bounds, drawn), len(self._in_order) - 1)]
        target.submit(exchange)


class Keyed:
    """Reads what a pool's `consistent_hash` chooses a worker by, on the way to it.

    Args:
        target: the pool.
        kind: `header` or `query`.
        name: of the header, in lower case, or of the key of the query.
    """

    def __init__(self, target: Target, kind: str, name: str) -> None:
        self._target = target
        self._read = _query if kind == "query" else _header
        self._name = name.encode()

    def submit(self, exchange: Exchange) -> None:
        """Hand it on."""
        exchange.key = self._read(exchange, self._name)
        self._target.submit(exchange)


# ---- keys


def sticky_key(sticky: Sticky) -> KeyOf:
    """Reads what `sticky` names."""
    name = sticky.name
    if sticky.kind == "body":
        return _body_key(name)
    if sticky.kind == "cookie":
        return lambda exchange: _cookie(exchange, name.encode())
    return lambda exchange: _header(exchange, name.lower().encode())


def _header(exchange: Exchange, name: bytes) -> bytes:
    return next((v.strip() for n, v in exchange.asked.headers if n.lower() == name), b"")


def _cookie(exchange: Exchange, name: bytes) -> bytes:
    for header, line in exchange.asked.headers:
        if header.lower() == b"cookie":
            for pair in line.split(b";"):
                found, _, value = pair.partition(b"=")
                if found.strip() == name:
                    return value.strip()
    return b""


def _query(exchange: Exchange, name: bytes) -> bytes:
    for pair in exchange.asked.query.split(b"&"):
        found, _, value = pair.partition(b"=")
        if found == name:
            return value
    return b""


def _body_key(name: str) -> KeyOf:
    """The value of one top-level key, as written, of a JSON object of up to `MAX_SEARCHED` bytes.

    No other body has it, nor one that is compressed.
    """
    if _UNNAMABLE.search(name):
        return lambda _: b""
    shape: Any = msgspec.defstruct("Body", [("key", msgspec.Raw, msgspec.field(name=name))])
    decode = msgspec.json.Decoder(shape).decode

    def read(exchange: Exchange) -> bytes:
        body = exchange.body
        if exchange.codec & (CODEC_MASK | FLAG_GZIP) != Codec.JSON or len(body) > MAX_SEARCHED:
            return b""
        if exchange.kind == Kind.REQUEST_WITH_META:
            (size,) = LENGTH.unpack_from(body)
            body = body[LENGTH.size + size :]
        try:
            value = bytes(decode(body).key)
        except (ValueError, RecursionError):  # the worker says what is wrong with it
            return b""
        return b"" if value == b"null" else value

    return read
