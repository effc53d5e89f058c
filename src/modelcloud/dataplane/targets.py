"""From a route table's words to what takes requests: endpoints, and the pools behind them.

Must never: open or close anything; the pools are there already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from modelcloud.dataplane.lookup import HEALTHZ, SITE_METHODS, Endpoint, Lookup, Target
from modelcloud.dataplane.messages import CommandRoute, Site
from modelcloud.dataplane.shadow import Mirror
from modelcloud.dataplane.split import Keyed, Split, sticky_key

if TYPE_CHECKING:
    from modelcloud.dataplane.pool import Pool


def lookup_of(
    site: Site, pools: Mapping[str, Pool], token_sets: Mapping[str, tuple[str, ...]]
) -> Lookup:
    """What stands at the paths of a site; addresses of the node come before commands."""
    endpoints = []
    for route in site.commands:
        target = _target(route, pools)
        tokens = frozenset(token_sets.get(route.tokens, ())) if route.tokens else None
        reads_head = _reads_head(route, pools)
        methods = SITE_METHODS if route.whole_site else route.methods
        endpoints += [
            Endpoint(
                path, methods, route=route, target=target, tokens=tokens, reads_head=reads_head
            )
            for path in (("",) if route.whole_site else route.paths)
        ]
    endpoints += [Endpoint(route.path, route.methods, admin=True) for route in site.admin]
    return Lookup([*endpoints, Endpoint(HEALTHZ, ["GET"])])


def _target(route: CommandRoute, pools: Mapping[str, Pool]) -> Target:
    """The pool itself, if there is nothing to choose, to read, or to copy."""
    targets: dict[str, Target] = {share.pool: _keyed(pools[share.pool]) for share in route.shares}
    target = targets[route.shares[0].pool]
    if len(route.shares) > 1:
        key_of = sticky_key(route.sticky) if route.sticky is not None else None
        target = Split(route.shares, targets, key_of)
    if route.shadows:
        target = Mirror(target, [(pools[share.pool], share.weight) for share in route.shadows])
    return target


def _keyed(pool: Pool) -> Target:
    return pool if pool.key_of is None else Keyed(pool, *pool.key_of)


def _reads_head(route: CommandRoute, pools: Mapping[str, Pool]) -> bool:
    sticky = len(route.shares) > 1 and route.sticky is not None and route.sticky.kind != "body"
    return sticky or any(pools[share.pool].key_of is not None for share in route.shares)
