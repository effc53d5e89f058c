"""Which pool a request goes to: the same one for a key, and each as often as its weight says."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from modelcloud.codecs.media import FLAG_GZIP, FLAG_WRAPPED, Codec
from modelcloud.dataplane.exchange import Exchange
from modelcloud.dataplane.messages import Share
from modelcloud.dataplane.router import RequestHead
from modelcloud.dataplane.split import MAX_SEARCHED, Keyed, Split, choose, sticky_key
from modelcloud.types import Sticky

KEYS = [b"user-%d" % number for number in range(20_000)]
SHARES = (Share("a", 1.0), Share("b", 3.0), Share("c", 4.0))


class Taken:
    """A target that counts."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []

    def submit(self, exchange: Exchange) -> None:
        self.keys.append(exchange.key)


def asked(*headers: tuple[bytes, bytes], url: bytes = b"/ask", body: bytes = b"{}") -> Exchange:
    exchange = Exchange(None, body, 0.0, b"", b"")
    exchange.asked = RequestHead(
        method="POST", url=url, headers=list(headers), host=b"a", media_type=b"",
        encoding=b"identity", wants_stream=False, preflight=False, peer="", scheme="http",
    )  # fmt: skip
    return exchange


# ---- keys and weights


def test_keys_are_spread_as_the_weights_say() -> None:
    counts = Counter(choose(key, SHARES) for key in KEYS)
    for share in SHARES:
        assert counts[share.pool] / len(KEYS) == pytest.approx(share.weight / 8, abs=0.015)


def test_a_pool_that_goes_moves_its_own_keys_and_no_others() -> None:
    for gone in SHARES:
        rest = [share for share in SHARES if share is not gone]
        for key in KEYS[:2000]:
            before = choose(key, SHARES)
            assert choose(key, rest) == before or before == gone.pool


def test_a_canary_that_grows_keeps_whom_it_has() -> None:
    had: set[bytes] = set()
    for percent in (5, 25, 50, 100):
        shares = (Share("m@2", percent / 100), Share("m", 1 - percent / 100))
        has = {key for key in KEYS[:2000] if choose(key, [s for s in shares if s.weight]) == "m@2"}
        assert had <= has
        assert len(has) / 2000 == pytest.approx(percent / 100, abs=0.04)
        had = has


def test_every_gateway_and_every_start_chooses_the_same() -> None:
    """The numbers are those of the hash, not of a process."""
    assert [choose(b"user-%d" % n, SHARES) for n in range(8)] == list("ccbccbbb")


def test_without_a_key_chance_follows_the_weights() -> None:
    targets = {share.pool: Taken() for share in SHARES}
    split = Split(SHARES, targets, sticky_key(Sticky("header", "x-user")))
    for _ in range(20_000):
        split.submit(asked())
    for share in SHARES:
        assert len(targets[share.pool].keys) / 20_000 == pytest.approx(share.weight / 8, abs=0.02)


def test_with_a_key_chance_has_no_part() -> None:
    targets = {share.pool: Taken() for share in SHARES}
    split = Split(SHARES, targets, sticky_key(Sticky("header", "X-User")))
    for _ in range(50):
        split.submit(asked((b"x-USER", b" user-1 ")))
    assert sorted(len(target.keys) for target in targets.values()) == [0, 0, 50]


# ---- where a key stands


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"sid=7", b"7"),
        (b"a=1; sid=7; b=2", b"7"),
        (b"a=1;sid = 7 ", b"7"),
        (b"xsid=1; sid=a=b", b"a=b"),
        (b"sidx=1", b""),
        (b"sid", b""),
        (b"", b""),
        (b"\xff=\xfe; sid=\xff", b"\xff"),
    ],
)
def test_a_cookie_is_found_by_its_whole_name(line: bytes, value: bytes) -> None:
    read = sticky_key(Sticky("cookie", "sid"))
    assert read(asked((b"Cookie", line))) == value
    assert read(asked((b"Cookie", b"a=1"), (b"cookie", line))) == value


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"user": "ann"}', b'"ann"'),
        (b'{"x": {"user": 1}, "user" : 7 , "y": []}', b"7"),
        (b'{"user": null}', b""),
        (b'{"x": {"user": 1}}', b""),
        (b'["user"]', b""),
        (b'{"user": ', b""),
        (b'{"user": \xff}', b""),
        (b"", b""),
        (b'{"user": ' + b"[" * 250_000, b""),
        (b'{"a": ' + b"[" * 250_000, b""),
        (b'{"user": "' + b"x" * MAX_SEARCHED + b'"}', b""),
    ],
)
def test_a_key_of_the_body_is_a_top_level_one_of_a_small_json_object(
    body: bytes, value: bytes
) -> None:
    assert sticky_key(Sticky("body", "user"))(asked(body=body)) == value


@pytest.mark.parametrize(
    ("codec", "value"),
    [(Codec.JSON | FLAG_WRAPPED, b"1"), (Codec.FORM, b""), (Codec.JSON | FLAG_GZIP, b"")],
)
def test_only_plain_json_is_looked_into(codec: int, value: bytes) -> None:
    exchange = asked(body=b'{"user": 1}')
    exchange.codec = codec
    assert sticky_key(Sticky("body", "user"))(exchange) == value


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb"])
def test_a_name_that_cannot_be_looked_for_is_never_found(name: str) -> None:
    assert sticky_key(Sticky("body", name))(asked(body=b'{"a": 1}')) == b""


@pytest.mark.parametrize(
    ("kind", "name", "url", "key"),
    [
        ("header", "x-user", b"/ask", b"ann"),
        ("header", "x-other", b"/ask", b""),
        ("query", "u", b"/ask?v=1&u=2&u=3", b"2"),
        ("query", "u", b"/ask?uu=1", b""),
    ],
)
def test_the_key_of_a_pools_own_policy_is_read_on_the_way_to_it(
    kind: str, name: str, url: bytes, key: bytes
) -> None:
    taken: Any = Taken()
    Keyed(taken, kind, name).submit(asked((b"X-User", b"ann"), url=url))
    assert taken.keys == [key]
