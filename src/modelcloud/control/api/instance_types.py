"""Instance types: everybody reads them, administrators change them.

Must never: decide; `control.resources.instance_types` does.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import Response
from pydantic import AfterValidator, Field

from modelcloud.config import MIB
from modelcloud.control.api import deps
from modelcloud.control.api.deps import ActorDep, ExpectedDep, PageDep, PlatformDep
from modelcloud.control.common.records import Body, Listing
from modelcloud.control.resources import instance_types
from modelcloud.control.resources.instance_types import InstanceTypeRecord

router = deps.router("instance types")


Text = Annotated[str, Field(max_length=2000)]
Amount = Annotated[float, Field(ge=0, le=1e6)]
#: A Python that has loaded nothing takes about as much.
LEAST_MEMORY = 16 * MIB


def _enough(memory: int) -> int:
    if 0 < memory < LEAST_MEMORY:
        raise ValueError(f"accepted: {LEAST_MEMORY} bytes or more, or 0 for no limit")
    return memory


Bytes = Annotated[int, Field(ge=0, le=2**60), AfterValidator(_enough)]


class NewInstanceType(Body):
    """A type to make; 0 does not limit (of `gpu`: there is none). `memory` in bytes."""

    name: str
    description: Text = ""
    cpu: Amount = 0.0
    memory: Bytes = 0
    gpu: Amount = 0.0


class InstanceTypeChanges(Body):
    """What to change; what is left out stays."""

    description: Text | None = None
    cpu: Amount | None = None
    memory: Bytes | None = None
    gpu: Amount | None = None


@router.get("/instance-types")
async def list_instance_types(
    here: PlatformDep, actor: ActorDep, page: PageDep
) -> Listing[InstanceTypeRecord]:
    """All of them, oldest first."""
    return await here.store.read(partial(instance_types.listing, actor=actor, page=page))


@router.post("/instance-types", status_code=201)
async def create_instance_type(
    body: NewInstanceType, here: PlatformDep, actor: ActorDep, response: Response
) -> InstanceTypeRecord:
    """Make one."""
    record = await here.store.transact(
        partial(instance_types.create, actor=actor, **body.model_dump())
    )
    deps.set_etag(response, record.revision)
    return record


@router.get("/instance-types/{name}")
async def get_instance_type(
    name: str, here: PlatformDep, actor: ActorDep, response: Response
) -> InstanceTypeRecord:
    """One of them."""
    record = await here.store.read(partial(instance_types.one, actor=actor, name=name))
    deps.set_etag(response, record.revision)
    return record


@router.patch("/instance-types/{name}")
async def edit_instance_type(
    name: str,
    body: InstanceTypeChanges,
    here: PlatformDep,
    actor: ActorDep,
    expected: ExpectedDep,
    response: Response,
) -> InstanceTypeRecord:
    """Change one; what is deployed keeps what it has until it is deployed again."""
    changes = body.model_dump(exclude_none=True)
    record = await here.store.transact(
        partial(instance_types.edit, actor=actor, name=name, changes=changes, expected=expected)
    )
    deps.set_etag(response, record.revision)
    return record


@router.delete("/instance-types/{name}", status_code=204)
async def delete_instance_type(
    name: str, here: PlatformDep, actor: ActorDep, expected: ExpectedDep
) -> Response:
    """Remove one; what is deployed with it stays as it is."""
    await here.store.transact(
        partial(instance_types.delete, actor=actor, name=name, expected=expected)
    )
    return Response(status_code=204)
