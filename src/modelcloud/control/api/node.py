"""The node: what it has, and who uses it.

Must never: decide; `control.resources.quotas` does.
"""

from __future__ import annotations

from functools import partial

from modelcloud.control.api import deps
from modelcloud.control.api.deps import ActorDep, PlatformDep
from modelcloud.control.resources import quotas
from modelcloud.control.resources.quotas import NodeRecord

router = deps.router("node")


@router.get("/node")
async def get_node(here: PlatformDep, actor: ActorDep) -> NodeRecord:
    """What the node has, and what everything online uses of it, by group."""
    return await here.store.read(partial(quotas.node, actor=actor, standing=here.standing))
