"""First parts of addresses that are the platform's own, and the paths that people may choose.

Must never: know who holds a path; whoever keeps services asks that.
"""

from __future__ import annotations

import re

from modelcloud.sdk.declare import RESERVED

#: No service, and no route, begins like an address of the platform.
RESERVED_SERVICES = RESERVED | {"api", "predict", "probe"}

_MAX_CHARS, _MAX_SEGMENTS = 200, 8
_SEGMENT = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*")


def unfit_route(path: str) -> str:
    """What is accepted in the place of a route's path (without its leading slash); "": it fits."""
    segments = path.split("/")
    fits = len(path) <= _MAX_CHARS and len(segments) <= _MAX_SEGMENTS
    if not fits or not all(map(_SEGMENT.fullmatch, segments)):
        return (
            f"up to {_MAX_SEGMENTS} segments and {_MAX_CHARS} characters, such as extract or "
            "faces/extract: letters, digits, _, ~, - and dots, but for the first"
        )
    if segments[0].lower() in RESERVED_SERVICES:
        return "any path that does not begin with " + ", ".join(sorted(RESERVED_SERVICES))
    return ""
