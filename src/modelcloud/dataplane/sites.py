"""What one listening address of a gateway serves now; its connections look here at each request.

Must never: decide what that is; the route table does.
"""

from __future__ import annotations

import asyncio
from math import inf

from modelcloud.dataplane.lookup import Lookup

#: How long a keep-alive client may still send a request to an address that is being given up.
GRACE_S = 1.0


class OpenSite:
    """A listening address: the gateway's own (`port` 0), or the port of a service.

    Attributes:
        lookup: what stands at its paths.
        named: whether a table has named it yet; before, its clients are turned away.
        closing: no further client and, but for `GRACE_S`, no further request.
        server: accepts its clients.
    """

    __slots__ = ("closing", "ends", "lookup", "named", "port", "server")

    def __init__(self, port: int) -> None:
        self.port = port
        self.lookup = Lookup(())
        self.named = False
        self.closing = False
        self.ends = inf  # from then on, monotonic seconds, clients that ask nothing are let go
        self.server: asyncio.AbstractServer | None = None

    def switch(self, lookup: Lookup) -> None:
        """From this moment requests follow this lookup."""
        self.lookup = lookup
        self.named = True

    def listen(self, server: asyncio.AbstractServer) -> None:
        """Accept clients with `server`, in place of an earlier one."""
        if self.server is not None:
            self.server.close()
        self.server = server
        if self.closing:
            server.close()

    def close(self, now: float) -> None:
        """Take no more clients, and let go of those that are here once nothing is under way."""
        self.closing = True
        self.ends = now + GRACE_S
        if self.server is not None:
            self.server.close()
