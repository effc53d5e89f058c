"""Archives that were sent here, on their way to becoming versions: kept for a day, then forgotten.

Must never: take a name from who sends, hold an upload in memory, or show one to another user.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from modelcloud.control.access.permissions import Action, Actor, Resource, allowed, require
from modelcloud.control.common.records import Listing, Record
from modelcloud.errors import InvalidInput, NotFound, Overloaded, TooLarge, TooManyRequests

KEPT_S = 24 * 3600.0
#: Of one user, and of all, whether complete or on their way.
OF_ONE, OF_ALL = 8, 64
#: Received before it is written.
PIECE = 1024 * 1024
#: Left free on the disk.
RESERVE = 64 * 1024 * 1024


class UploadRecord(Record):
    """An upload that is complete. `upload` is what registering a version takes."""

    upload: str
    bytes: int
    sha256: str


class _Upload(msgspec.Struct):
    owner: int
    path: Path
    begun_at: float
    record: UploadRecord | None = None  # once it is complete


class Uploads:
    """Those of one process; with it they end.

    Args:
        folder: where they are kept.
        limit: the most bytes of one.
        clock: monotonic seconds.
    """

    def __init__(
        self, folder: Path, limit: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._limit, self._clock = folder, limit, clock
        self._uploads: dict[str, _Upload] = {}

    async def receive(
        self,
        actor: Actor,
        chunks: AsyncIterator[bytes],
        *,
        length: int | None = None,
        sha256: str | None = None,
    ) -> UploadRecord:
        """Write an upload to the disk as it comes.

        Args:
            actor: who sends, and may use it.
            chunks: its bytes; what they raise ends it.
            length: how many there will be, where that is known.
            sha256: what they must hash to; None: whatever.

        Raises:
            Refused: the actor may register versions nowhere.
            TooManyRequests: too many uploads are kept.
            TooLarge: more than the limit.
            Overloaded: there is no space for it.
            InvalidInput: nothing came, or not what `sha256` says.
        """
        check_may_upload(actor)
        self.expire()
        self._refuse_more(actor)
        if length is not None and length > self._limit:
            raise self._too_large()
        if shutil.disk_usage(self._folder).free < (length or 0) + RESERVE:
            raise Overloaded("there is no space left for uploads")
        name = secrets.token_hex(16)
        upload = _Upload(actor.user_id, self._folder / f"upload-{name}", self._clock())
        self._uploads[name] = upload
        try:
            size, digest = await self._write(upload.path, chunks)
            _check(size, digest, sha256)
        except BaseException:
            self._forget(name)
            raise
        upload.record = UploadRecord(upload=name, bytes=size, sha256=digest)
        return upload.record

    def listing(self, actor: Actor) -> Listing[UploadRecord]:
        """The actor's own that are complete, oldest first.

        Raises:
            Refused: the actor may register versions nowhere.
        """
        check_may_upload(actor)
        self.expire()
        own = (one.record for one in self._uploads.values() if one.owner == actor.user_id)
        return Listing(items=[record for record in own if record is not None])

    def path(self, actor: Actor, name: str) -> Path:
        """Where a complete upload of the actor's own lies.

        Raises:
            NotFound: there is none of this name.
        """
        self.expire()
        upload = self._uploads.get(name)
        if upload is None or upload.owner != actor.user_id or upload.record is None:
            raise NotFound(f"no upload {name[:40]!r}; uploads are kept for {KEPT_S / 3600:g} hours")
        return upload.path

    def drop(self, actor: Actor, name: str) -> None:
        """Forget one of the actor's own.

        Raises:
            NotFound: there is none of this name.
        """
        self.path(actor, name)
        self._forget(name)

    def expire(self) -> None:
        """Forget those that are too old."""
        oldest = self._clock() - KEPT_S
        for name in [n for n, upload in self._uploads.items() if upload.begun_at < oldest]:
            self._forget(name)

    async def _write(self, path: Path, chunks: AsyncIterator[bytes]) -> tuple[int, str]:
        """Size and sha256 of what was written."""
        digest, size, piece = hashlib.sha256(), 0, bytearray()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb", buffering=0) as file:  # noqa: ASYNC230, PTH123 — a descriptor, written to in threads

            def write(data: bytes) -> None:
                digest.update(data)
                view = memoryview(data)
                while view:
                    view = view[file.write(view) or 0 :]

            try:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > self._limit:
                        raise self._too_large()
                    piece += chunk
                    if len(piece) >= PIECE:
                        await asyncio.to_thread(write, bytes(piece))
                        piece.clear()
                await asyncio.to_thread(write, bytes(piece))
            except OSError as error:
                raise Overloaded("the upload could not be kept", detail=str(error)) from None
        return size, digest.hexdigest()

    def _refuse_more(self, actor: Actor) -> None:
        own = sum(upload.owner == actor.user_id for upload in self._uploads.values())
        if own >= OF_ONE or len(self._uploads) >= OF_ALL:
            raise TooManyRequests(
                f"{own} uploads of yours are kept, and {len(self._uploads)} of all; accepted: "
                f"up to {OF_ONE} and {OF_ALL}. Register or delete one"
            )

    def _too_large(self) -> TooLarge:
        return TooLarge(f"body: accepted here up to {self._limit} bytes")

    def _forget(self, name: str) -> None:
        upload = self._uploads.pop(name, None)
        if upload is not None:
            with contextlib.suppress(OSError):
                upload.path.unlink(missing_ok=True)


def _check(size: int, digest: str, expected: str | None) -> None:
    if not size:
        raise InvalidInput("body", "nothing", "the bytes of an archive")
    if expected is not None and expected.lower() != digest:
        raise InvalidInput("sha256", "that of other bytes", f"{digest}, of what came")


def check_may_upload(actor: Actor) -> None:
    """Return if there is a group in which the actor may register versions.

    Raises:
        Refused: there is none.
    """
    groups = {*actor.levels, *([actor.scope_group] if actor.scope_group else [])}
    if actor.is_admin and actor.scope_group is None:
        groups.add(0)  # any group; an administrator may do it in each
    asked = [Resource(group_id=group, kind="upload") for group in groups]
    if not any(allowed(actor, Action.REGISTER, resource) for resource in asked):
        require(actor, Action.REGISTER, Resource(kind="upload"))
