"""Whose word is taken for which address asks."""

from __future__ import annotations

import pytest

from modelcloud.control.common.peers import Proxies

PROXY, CLIENT = "127.0.0.1", "203.0.113.9"


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        (PROXY, [], PROXY),
        (PROXY, [CLIENT], CLIENT),
        (PROXY, ["198.51.100.1, " + CLIENT], CLIENT),  # what is left of it anybody wrote
        (PROXY, ["198.51.100.1", CLIENT], CLIENT),
        (PROXY, [f"{CLIENT}, 10.1.2.3"], CLIENT),  # through two proxies
        (PROXY, ["10.1.2.3"], "10.1.2.3"),
        (PROXY, [f"{CLIENT}:4711"], CLIENT),
        (PROXY, ["[2001:db8::1]:4711"], "2001:db8::1"),
        (PROXY, ["2001:db8::1"], "2001:db8::1"),
        (PROXY, [f"{CLIENT}, unknown"], PROXY),
        (PROXY, [""], PROXY),
        (PROXY, [f"{CLIENT}, unknown, 10.1.2.3"], "10.1.2.3"),
        ("::ffff:127.0.0.1", [CLIENT], CLIENT),
        (CLIENT, ["198.51.100.1"], CLIENT),  # it is no proxy
        ("", ["198.51.100.1"], ""),
    ],
)
def test_the_right_most_address_that_is_no_proxy_asks(
    peer: str, forwarded: list[str], client: str
) -> None:
    assert Proxies([PROXY, "10.0.0.0/8"]).client(peer, forwarded) == client


def test_without_trusted_proxies_the_header_counts_for_nothing() -> None:
    assert Proxies([]).client(PROXY, [CLIENT]) == PROXY
