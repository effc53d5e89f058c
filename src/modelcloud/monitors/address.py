"""Which machines a source may talk to, held at the one place that every connection passes.

Must never: be installed in a process that does anything but read from a source: it stays.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from typing import Any

import msgspec

from modelcloud.errors import Forbidden
from modelcloud.sdk.fetch import is_public

#: What Python raises the audit event `socket.connect` or `socket.sendto` for.
_EVENTS = {"socket.connect", "socket.sendto"}


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """The machines a source may talk to: public ones, and those of some networks.

    Attributes:
        anything: no rule at all: what an operator types on a command line.
        networks: non-public networks that are allowed, as `10.1.0.0/16`.
    """

    anything: bool = False
    networks: tuple[str, ...] = ()


def guard(addresses: Addresses) -> None:
    """Refuse from now on every connection of this process to any other machine.

    The check is of the address that is connected to, so that neither a name that resolves anew
    nor a redirect gets past it, whichever library connects. A program that is started is not
    held: see `only_unguarded`.
    """
    if addresses.anything:
        return
    allowed = tuple(map(ipaddress.ip_network, addresses.networks))

    def check(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS and not _is_allowed(arguments, allowed):
            raise Forbidden(
                "the source leads to an address that is not public, and not allowed here; an "
                "administrator can allow its network"
            )

    sys.addaudithook(check)


def only_unguarded(addresses: Addresses, what: str) -> None:
    """Raise unless there is no rule.

    Raises:
        Forbidden: there is one, and `what` makes connections that no check sees.
    """
    if not addresses.anything:
        raise Forbidden(
            f"{what} cannot be held to public addresses, so it is not accepted here; "
            "accepted: http, https, ftp, s3, sftp, webhdfs"
        )


def _is_allowed(arguments: tuple[Any, ...], allowed: tuple[Any, ...]) -> bool:
    made, address = arguments
    if made.family not in {socket.AF_INET, socket.AF_INET6} or not isinstance(address, tuple):
        return False
    try:
        return is_public(str(address[0]), allowed)
    except ValueError:  # a name: who connects must look it up first
        return False
