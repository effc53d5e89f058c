"""Whether a version has the one command that the route of its service would call.

Must never: know which route that is; it is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from modelcloud.dataplane.routes import PREDICT
from modelcloud.errors import Conflict


def refuse_ambiguous(service: str, number: int, signature: Mapping[str, Any]) -> None:
    """Raise Conflict for a version of a service with a route that would not know what to call."""
    commands: Iterable[dict[str, Any]] = signature.get("commands", ())
    names = [command["name"] for command in commands if not command.get("wholeSite")]
    if PREDICT not in names and len(names) != 1:
        offers = ", ".join(names) or "none"
        raise Conflict(
            f"version {number} of {service!r} cannot be reached at the service's route, which "
            f"calls the command {PREDICT!r} or the only one there is; its commands: {offers}"
        )
