"""A platform (`modelcloud up`) from Python: the words of its API, one method each.

Must never: repeat by itself a request that changes something, keep a password, or print.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from modelcloud.platform.connection import Connection
from modelcloud.platform.deployments import Deployments
from modelcloud.platform.monitors import Monitors
from modelcloud.platform.people import People
from modelcloud.platform.services import Services
from modelcloud.platform.workspaces import Workspaces

if TYPE_CHECKING:
    import httpx


class Platform(People, Services, Deployments, Monitors, Workspaces):
    """A connection to a platform's control plane.

    Args:
        url: where it listens, `http://127.0.0.1:8000`.
        token: of `sign_in`, or one made with `create_token`.
        timeout_s: longest wait for one answer, in seconds.
        transport: stands in for the network, as in `httpx.Client`.

    Every method raises the type of `modelcloud.errors` that the answer names, with the platform's
    own words, and `client.Unreachable` where no answer came. Records are the JSON of the API,
    lists are whole lists.

    Edits take the `revision` of the record that they are made on, and raise `PreconditionFailed`
    if it was changed since; without one they are made on whatever stands. What begins something
    takes an `idempotency_key`: the same key again gives the same answer and does nothing more, so
    that it may be sent again after `Unreachable`.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        token: str | None = None,
        *,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._api = Connection(url, token, timeout_s, transport)

    @property
    def url(self) -> str:
        """Where the control plane listens."""
        return self._api.url

    @property
    def token(self) -> str | None:
        """What is presented with each request."""
        return self._api.token

    @token.setter
    def token(self, token: str | None) -> None:
        self._api.token = token

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def __enter__(self) -> Platform:  # noqa: PYI034 — Self is not in Python 3.10
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
