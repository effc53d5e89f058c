"""Gets one model from a source, whole and verified, with nothing of it taken over if it is not.

Must never: hand on what changed while it came, or what does not fit what the producer said of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from pathlib import Path
from typing import Protocol

import msgspec

from modelcloud.artifacts.store import remove_tree
from modelcloud.errors import Conflict, NotFound, UsageError
from modelcloud.monitors.mark import (
    DONE_FILE_LIMIT,
    Mark,
    Promise,
    Seen,
    changed,
    differs,
    promise_of,
    sha256_of_text,
)
from modelcloud.monitors.source import Watched
from modelcloud.monitors.source_process import size_below

log = logging.getLogger(__name__)

#: Pulls in a row that a change of the remote may spoil.
ATTEMPTS = 3
_CHUNK = 4 * 1024 * 1024


class Asked(Protocol):
    """What is needed of a `SourceProcess`."""

    async def marks(self, *names: str) -> list[Mark | None]: ...  # noqa: D102
    async def read(self, name: str, limit: int) -> bytes | None: ...  # noqa: D102
    async def fetch(self, name: str, into: Path) -> None: ...  # noqa: D102


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One look at the source; `content` is the done-file's, where it was read."""

    seen: Seen
    content: bytes | None = None


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """A model on this machine.

    Attributes:
        path: file or folder.
        seen: what the source said of it, before and after.
        size: bytes.
        sha256: of a file.
        version: what its producer calls it.
        verified: whether it was compared with a digest of its producer.
    """

    path: Path
    seen: Seen
    size: int
    sha256: str
    version: str
    verified: bool


async def look(source: Asked, watched: Watched, before: Seen | None) -> Look | None:
    """What is there now; None: no done-file.

    The done-file is read too, unless its mark is exact and the one of `before`.

    Raises:
        ModelcloudError: the source cannot be asked.
    """
    done, model = await source.marks(watched.done, watched.model)
    if done is None:
        return None
    if done.folder or (done.size or 0) > DONE_FILE_LIMIT:
        raise UsageError(f"{watched.done} is no done-file: it is a folder or a large file")
    if done.exact and before is not None and not differs(before.done, done):
        return Look(seen=Seen(done=done, model=model))
    content = await source.read(watched.done, DONE_FILE_LIMIT)
    if content is None:
        return None
    done = msgspec.structs.replace(done, digest=hashlib.sha256(content).hexdigest())
    return Look(seen=Seen(done=done, model=model), content=content)


async def pull(source: Asked, watched: Watched, found: Look, into: Path) -> Pulled:
    """Get the model; one that changes meanwhile is thrown away and got anew.

    Args:
        source: where it is.
        watched: how it is called there.
        found: what is there.
        into: an empty folder of one's own; what is left in it after an error is for the caller to
            remove.

    Raises:
        NotFound: there is no done-file, or no model.
        UsageError: it does not fit its size or its digest.
        Conflict: it changed each time that it was got.
        ModelcloudError: the source cannot be asked.
    """
    path = into / watched.model.rpartition("/")[2]
    for attempt in range(1, ATTEMPTS + 1):
        if found.seen.model is None:
            raise NotFound(
                f"the done-file {watched.done} is there, the model {watched.model} is not; is "
                "--remote_model_name right? A producer writes the model first, then the done-file"
            )
        promise = await _promise(source, watched, found)
        await source.fetch(watched.model, path)
        after = await look(source, watched, found.seen)
        if after is None:
            raise NotFound(f"the done-file {watched.done} went while the model was pulled")
        if not changed(found.seen, after.seen):
            log.info("pull remote model(%s).", watched.model)
            is_folder = found.seen.model.folder
            if is_folder:
                size, sha256 = await asyncio.to_thread(size_below, path), ""
            else:
                size, sha256 = await _measured(path)
            _verify(watched.model, promise, found.seen.model, size, sha256)
            return Pulled(
                path=path, seen=found.seen, size=size, sha256=sha256, version=promise.version,
                verified=bool(promise.sha256),
            )  # fmt: skip
        log.warning(
            "remote model(%s) changed while it was pulled: thrown away (%d of %d).",
            watched.model, attempt, ATTEMPTS,
        )  # fmt: skip
        remove_tree(path)
        found = after
    raise Conflict(f"the remote model changed during each of {ATTEMPTS} pulls")


async def _promise(source: Asked, watched: Watched, found: Look) -> Promise:
    """What the producer says: in the done-file, else in a `.sha256` beside the model."""
    content = found.content
    if content is None:
        content = await source.read(watched.done, DONE_FILE_LIMIT) or b""
    promise = promise_of(content)
    if promise.sha256:
        return promise
    content = await source.read(f"{watched.model}.sha256", DONE_FILE_LIMIT)
    if content is None:
        return promise
    name = watched.model.rpartition("/")[2]
    return msgspec.structs.replace(promise, sha256=sha256_of_text(content, name))


async def _measured(file: Path) -> tuple[int, str]:
    """Bytes of a file, and their digest; the loop goes on meanwhile, and may cancel it."""
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as reader:
        while chunk := await asyncio.to_thread(reader.read, _CHUNK):
            await asyncio.to_thread(digest.update, chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def _verify(name: str, promise: Promise, mark: Mark, size: int, sha256: str) -> None:
    """Compare what came with what was said of it."""
    for what, expected in (("the source", mark.size), ("its done-file", promise.size)):
        if expected is not None and expected != size:
            raise UsageError(f"{name} has {size} bytes, by {what} {expected}: not published")
    if not promise.sha256:
        log.info(
            "integrity of remote model(%s) was not checked: its producer gives no sha256, only "
            "size and end are known.", name,
        )  # fmt: skip
    elif not sha256:
        raise UsageError(f"{name} is a folder, which a sha256 does not fit; pack it")
    elif sha256 != promise.sha256:
        raise UsageError(
            f"{name} has the sha256 {sha256}, by its producer {promise.sha256}: damaged, or not "
            "the one that the done-file means; not published"
        )
