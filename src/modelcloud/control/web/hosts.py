"""Which names this control plane answers to, and from which pages.

A browser can be led to any address under any name (DNS rebinding), so a Host that is not ours is
refused, forwarded or not; and so is a request that a page of another origin makes.

Must never: look at anything but those headers.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelcloud.errors import ModelcloudError
from modelcloud.serve.access import Facts, Settings, check_host, check_origin

_HOST = frozenset({"host"})
_ORIGIN = frozenset({"host", "origin", "sec-fetch-site"})


def refusal(
    headers: Mapping[str, tuple[str, ...]],
    *,
    bound: str,
    allowed: tuple[str, ...],
    navigable: bool = False,
) -> ModelcloudError | None:
    """Why a request is refused, or None.

    Args:
        headers: each header's values, names in lower case.
        bound: the address that is listened at.
        allowed: further names for it.
        navigable: a page that anybody may link to: only the Host matters.
    """
    settings = Settings(host=bound, allowed_hosts=allowed)
    seen = {name: values for name, values in headers.items() if name in _ORIGIN}
    # Without the marks of a proxy, which would lift the check: they can be forged by a page.
    refused = check_host(Facts(headers={n: v for n, v in seen.items() if n in _HOST}), settings)
    if refused is None and not navigable:
        refused = check_origin(Facts(headers=seen))
    return refused
