"""Uploads: archives that are to become versions, streamed to the disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from typing import Annotated

from fastapi import HTTPException, Query, Request, Response

from modelcloud.control.api import deps
from modelcloud.control.api.deps import ActorDep, PlatformDep
from modelcloud.control.common.records import Listing
from modelcloud.control.services.registration import Registration
from modelcloud.control.services.uploads import UploadRecord
from modelcloud.errors import UnsupportedMedia
from modelcloud.waiting import within

router = deps.router("uploads")

#: Without a byte; and the least rate, in bytes a second, after some time of grace.
STALL_S, MIN_RATE, GRACE_S = 30.0, 4096, 60.0
MEDIA_TYPE = "application/octet-stream"


@router.post("/uploads", status_code=201)
async def upload(
    request: Request,
    here: PlatformDep,
    actor: ActorDep,
    sha256: Annotated[
        str | None,
        Query(pattern="^[0-9a-fA-F]{64}$", description="what the bytes must hash to"),
    ] = None,
) -> UploadRecord:
    """Send an archive (tar, tar.gz, tar.bz2, tar.xz, tar.zst, zip) as the body.

    It is kept for a day, for who sent it, until it is registered or refused for what it holds.
    """
    media_type = request.headers.get("content-type", MEDIA_TYPE).partition(";")[0].strip().lower()
    if media_type != MEDIA_TYPE:
        raise UnsupportedMedia(f"body: got {media_type[:60]!r}; accepted: {MEDIA_TYPE}")
    length = request.headers.get("content-length", "")
    return await here.part(Registration).uploads.receive(
        actor,
        _patiently(request.stream()),
        length=int(length) if length.isdecimal() else None,
        sha256=sha256,
    )


@router.get("/uploads")
async def list_uploads(here: PlatformDep, actor: ActorDep) -> Listing[UploadRecord]:
    """One's own uploads that are not registered yet, oldest first; there are never many."""
    return here.part(Registration).uploads.listing(actor)


@router.delete("/uploads/{upload}", status_code=204)
async def delete_upload(upload: str, here: PlatformDep, actor: ActorDep) -> Response:
    """Forget one's own upload."""
    here.part(Registration).uploads.drop(actor, upload)
    return Response(status_code=204)


async def _patiently(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same chunks, as long as they come."""
    start, size = monotonic(), 0
    while True:
        try:
            chunk = await within(chunks.__anext__(), STALL_S)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:
            raise HTTPException(408, f"body: nothing came for {STALL_S:g} s") from None
        size += len(chunk)
        late = monotonic() - start - GRACE_S
        if late > 0 and size < late * MIN_RATE:
            raise HTTPException(408, f"body: it comes slower than {MIN_RATE} bytes a second")
        yield chunk
