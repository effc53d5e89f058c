"""Who is at the other end of a client's connection.

Must never: believe a header; what is said here comes from the kernel.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


def address_of(transport: Any) -> str:
    """The client's IP address; empty on a unix socket, whose clients have none."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else ""


def user_of(transport: Any) -> int | None:
    """The user id that the client ran as when it connected; None where it is no unix socket."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)
