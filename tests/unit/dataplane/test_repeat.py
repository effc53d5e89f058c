"""A request that repeats the head of one before is taken without parsing, and never otherwise."""

from __future__ import annotations

import pytest

from modelcloud.dataplane.lookup import Endpoint, Lookup
from modelcloud.dataplane.repeat import RepeatedHead, learn

ENDPOINT = Endpoint("/c", ["POST"])
LOOKUP = Lookup(())


def request(body: bytes, head: bytes = b"Content-Length: %d\r\nX: y", path: bytes = b"/c") -> bytes:
    lines = head % len(body) if b"%d" in head else head
    return b"POST %b HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n%b" % (path, lines, body)


@pytest.fixture
def learned() -> RepeatedHead:
    head = learn(request(b"{}"), 2, ENDPOINT, LOOKUP)
    assert head is not None
    return head


@pytest.mark.parametrize("body", [b"{}", b"", b"x" * 9, b"x" * 10, b"x" * 70_000, b"\r\n\r\n"])
def test_the_same_head_with_any_body_is_known(learned: RepeatedHead, body: bytes) -> None:
    assert learned.body_of(request(body)) == body


@pytest.mark.parametrize(
    "data",
    [
        request(b"{}", path=b"/d"),
        request(b"{}", head=b"Content-Length: %d\r\nX: z"),
        request(b"{}", head=b"Content-Length: %d\r\nX: y\r\nY: z"),
        request(b"{}", head=b"Content-Length: +2\r\nX: y"),
        request(b"{}", head=b"Content-Length: 2 \r\nX: y"),
        request(b"{}", head=b"Content-Length: 2\nX: y"),
        request(b"{}", head=b"Content-Length: \xb2\r\nX: y"),
        request(b"{}", head=b"Content-Length: 0000000000002\r\nX: y"),
        request(b"{}", head=b"Content-Length: 2, 2\r\nX: y"),
        request(b"{}")[:-1],
        request(b"{}") + b"x",
        request(b"{}") + request(b"{}"),
        request(b"{}")[:40],
        b"",
    ],
)
def test_anything_else_is_left_to_the_parser(learned: RepeatedHead, data: bytes) -> None:
    assert learned.body_of(data) is None


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (request(b"{}"), 3),
        (request(b"{}") + request(b"{}"), 2),
        (request(b"{}", head=b"X: y"), 2),
        (b"Content-Length: 2\r\n\r\n{}", 2),
        (b"", 0),
    ],
)
def test_only_one_whole_request_with_a_length_is_learned(data: bytes, size: int) -> None:
    assert learn(data, size, ENDPOINT, LOOKUP) is None
