"""The artifacts of a machine in a cluster: each fetched once, whole or not there.

Must never: show a half-fetched artifact, or write outside of its folder whatever is sent. That an
artifact is what its digest says is checked before each start of a worker, by who prepares for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path, PurePosixPath

from modelcloud.artifacts.snapshot import sync_tree
from modelcloud.errors import ModelLoadError
from modelcloud.node.replicas import Piece, Whole

#: For an artifact to come whole.
FETCH_S = 600.0
LOCK_POLL_S = 0.1


class ArtifactCache:
    """One replica's hold on the artifacts of its machine.

    Args:
        folder: that all replicas of the machine share.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stage: Path | None = None
        self._whole: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def path(self, digest: str) -> Path:
        """Where an artifact is, if it is there."""
        return self._folder / digest

    def drop(self, digest: str) -> None:
        """It is damaged: the next who needs it fetches it anew."""
        shutil.rmtree(self.path(digest), ignore_errors=True)

    async def have(self, digest: str, ask: Callable[[], None]) -> Path:
        """Where the artifact is, fetched if need be: `ask` makes the pieces come.

        Raises:
            ModelLoadError: it did not come whole.
            OSError: it cannot be kept.
        """
        place = self.path(digest)
        async with _locked(place.with_suffix(".lock")):
            if not place.exists():
                await self._fetch(place, ask)
        return place

    async def _fetch(self, place: Path, ask: Callable[[], None]) -> None:
        stage = self._stage = Path(tempfile.mkdtemp(prefix=".stage-", dir=place.parent))
        try:
            whole = self._whole = asyncio.get_running_loop().create_future()
            ask()
            done, _ = await asyncio.wait({whole}, timeout=FETCH_S)
            if not done:
                raise ModelLoadError(f"the artifact did not come within {FETCH_S:g} s")
            if whole.result():
                raise ModelLoadError(whole.result())
            await asyncio.to_thread(sync_tree, stage)
            await asyncio.to_thread(stage.rename, place)
        finally:
            self._stage = None
            shutil.rmtree(stage, ignore_errors=True)

    def take(self, message: Piece | Whole) -> None:
        """What came of the artifact that was asked for."""
        if self._stage is None or self._whole.done():
            return
        if isinstance(message, Whole):
            self._whole.set_result(message.error)
            return
        path = PurePosixPath(message.path)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            self._whole.set_result(f"the artifact has a file {message.path!r}, which is refused")
            return
        target = self._stage / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("ab") as file:
                file.write(message.data)
        except OSError as error:
            self._whole.set_result(f"the artifact cannot be kept here: {error}")


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold a lock file: one replica of a machine fetches, the others find what it fetched."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)
