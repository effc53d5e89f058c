"""One reading of a path, and lookup by it."""

from __future__ import annotations

import pytest

from modelcloud.dataplane.lookup import Endpoint, Lookup, normalise
from modelcloud.dataplane.messages import CommandRoute, Share


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        (b"/", "/"),
        (b"/fib", "/fib"),
        (b"/predict/fib/1", "/predict/fib/1"),
        (b"/%66ib", "/fib"),
        (b"/caf%C3%A9", "/café"),
        (b"/a%20b", "/a b"),
        (b"/fib;x", "/fib;x"),
        (b"/%252e%252e/admin", "/%2e%2e/admin"),  # decoded once, never twice
    ],
)
def test_a_path_is_decoded_once(raw: bytes, canonical: str) -> None:
    assert normalise(raw) == canonical


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"fib",
        b"/predict/../admin",
        b"/predict/%2e%2e/admin",
        b"/./fib",
        b"/a//b",
        b"/a%2fb",
        b"/a%2Fb",
        b"/a%5cb",
        b"/a\\b",
        b"/a%00",
        b"/a%0ab",
        b"/a\x7f",
        b"/%ff",
    ],
)
def test_a_path_with_more_than_one_reading_is_refused(raw: bytes) -> None:
    assert normalise(raw) is None


def test_a_prefix_route_takes_exactly_one_further_segment() -> None:
    lookup = Lookup([Endpoint("/rollouts/*", ["GET"], admin=True), Endpoint("/meta", ["GET"])])
    assert lookup.find("/rollouts/4") is not None
    assert lookup.find("/rollouts/") is None
    assert lookup.find("/rollouts/4/5") is None
    assert lookup.find("/rollouts") is None
    assert lookup.find("/meta") is not None


def test_whoever_may_get_may_ask_for_the_head_and_the_options() -> None:
    assert Endpoint("/meta", ["GET"]).allow == {"GET", "HEAD", "OPTIONS"}
    assert Endpoint("/rollback", ["POST"]).allow == {"POST", "OPTIONS"}


def test_only_what_needs_nothing_but_its_path_is_hot() -> None:
    plain = CommandRoute(paths=("/a",), command="a", shares=(Share("p"),))
    with_meta = CommandRoute(paths=("/a",), command="a", shares=(Share("p"),), with_meta=True)
    assert Endpoint("/a", ["POST"], route=plain).hot
    assert not Endpoint("/a", ["POST"], route=with_meta).hot
    assert not Endpoint("/a", ["POST"], route=plain, tokens=frozenset()).hot
    assert not Endpoint("/a", ["POST"], route=plain, reads_head=True).hot
    assert not Endpoint("/a", ["GET"], route=plain).hot
    assert not Endpoint("/a", ["POST"], admin=True).hot


def test_what_is_hot_is_what_the_canonical_path_leads_to() -> None:
    """An address given to something guarded later must not stay open by its raw path."""
    route = CommandRoute(paths=("/a",), command="a", shares=(Share("p"),))
    first = Endpoint("/a", ["POST"], route=route)
    guarded = Endpoint("/a", ["POST"], route=route, tokens=frozenset())
    odd = [Endpoint(path, ["POST"], route=route) for path in ("/a b", "/a%20b", "/a/../b")]
    lookup = Lookup([first, guarded, *odd])
    assert lookup.find("/a") is guarded
    assert lookup.hot == {}
