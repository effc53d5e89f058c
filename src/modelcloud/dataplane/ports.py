"""Listening sockets that the node hands over while the gateway runs, one for each further port.

Must never: listen or accept; it takes what comes on one unix socket, and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import Callable

_PORT = struct.Struct("<I")


def take_ports(fd: int, take: Callable[[int, socket.socket], None]) -> None:
    """Take the sockets that come, from now on and until the node hangs up.

    Args:
        fd: of the unix socket that `StartGateway.ports_fd` names, owned from now on.
        take: called with each port and its listening socket, which the callee then owns.
    """
    channel = socket.socket(fileno=fd)
    channel.setblocking(False)
    loop = asyncio.get_running_loop()

    def ready() -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(
                channel, _PORT.size, 1, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError as error:
            data, descriptors = b"", []
            _say(f"none come any more: {error}")
        if len(data) == _PORT.size and descriptors:
            take(_PORT.unpack(data)[0], socket.socket(fileno=descriptors[0]))
            return
        if data:
            _say(f"a message of {len(data)} bytes with {len(descriptors)} sockets; no more is read")
        for descriptor in descriptors:
            os.close(descriptor)
        loop.remove_reader(channel)
        channel.close()

    loop.add_reader(channel, ready)


def _say(text: str) -> None:
    print(f"ports: {text}", file=sys.stderr, flush=True)  # noqa: T201 — captured
