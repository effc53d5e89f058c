"""Which address asks, where proxies pass requests on.

Must never: believe what a header says unless an address that is trusted to say so sent it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

HEADER = "x-forwarded-for"


class Proxies:
    """The proxies that say in `X-Forwarded-For` for whom they ask.

    Args:
        trusted: their addresses, or networks of them.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted = [ip_network(one) for one in trusted]

    def client(self, peer: str, forwarded: Sequence[str]) -> str:
        """The right-most address on the way here that is none of these proxies.

        Left of it anybody may have written anything. Where what a proxy wrote is no address, it is
        the proxy that asks.

        Args:
            peer: the address that is connected.
            forwarded: the values of the header, in their order.
        """
        hops = [hop for value in forwarded for hop in value.split(",")]
        while hops and self._trusts(peer):
            before = _address(hops.pop())
            if before is None:
                break
            peer = str(before)
        return peer

    def _trusts(self, peer: str) -> bool:
        if not self._trusted:
            return False
        address = _address(peer)
        return address is not None and any(address in network for network in self._trusted)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address of `text`, which may have a port behind it."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
