"""One reading of a path, and lookup by it."""

from __future__ import annotations

import pytest

from modelcloud.config import Limits
from modelcloud.dataplane.messages import AdminRoute, WorkerAddress
from modelcloud.dataplane.routes import Endpoint, Lookup, build_table, normalise


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


def test_a_service_at_the_root_is_reached_with_and_without_its_name() -> None:
    signature = {
        "commands": [
            {
                "name": "fib",
                "idempotent": True,
                "streams": False,
                "withRequest": False,
                "wholeSite": False,
            },
        ]
    }
    table = build_table(
        snapshot=7,
        service="demo",
        signature=signature,
        workers=[WorkerAddress(1, "w1.sock", 2, 1)],
        available=True,
        limits=Limits(queue=5, deadline_s=3.0),
        admin=[AdminRoute(path="/meta", methods=("GET",))],
    )
    (service,) = table.services
    assert service.commands[0].paths == ("/fib", "/demo/fib")
    assert (service.queue, service.deadline_s) == (5, 3.0)
    assert table.snapshot == 7


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
