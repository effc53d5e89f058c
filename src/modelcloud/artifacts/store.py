"""The artifacts of a platform: `<folder>/<digest>/`, each whole or not there, never changed.

Must never: show a half-written artifact, or remove one that a registration under way relies on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from msgspec.structs import replace

from modelcloud.artifacts.snapshot import sync, verify
from modelcloud.artifacts.stage import Staged, StageRequest
from modelcloud.artifacts.stage_process import stage_apart
from modelcloud.artifacts.tree import Caps
from modelcloud.errors import ModelLoadError

log = logging.getLogger(__name__)

_DIGEST = re.compile(r"[0-9a-f]{64}")


class ArtifactStore:
    """One process's hold on the store; only one may have it at a time.

    Args:
        folder: where artifacts are kept.
        staging: where they are made, on the same file system; emptied by `prepare`.
        caps: the most that one may hold.
        deadline_s: for making one.
    """

    def __init__(self, folder: Path, staging: Path, caps: Caps, deadline_s: float) -> None:
        self._folder, self._staging = folder, staging
        self._caps, self._deadline_s = caps, deadline_s
        self._held: Counter[str] = Counter()
        self._held_since: set[str] = set()  # those, and all since the last collection began
        self._moving = threading.Lock()
        self._collecting = asyncio.Lock()

    def prepare(self) -> None:
        """Make the folders; remove what an earlier process left half done."""
        for folder in (self._folder, self._staging):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._staging.iterdir():
            remove_tree(left)

    def path(self, digest: str) -> Path:
        """The folder of an artifact."""
        return self._folder / digest

    @contextlib.asynccontextmanager
    async def holding(
        self, source: Path, main: str = "", root: str = "", golden: str = ""
    ) -> AsyncIterator[Staged]:
        """Make an artifact, and keep it from being collected until the block is left.

        What is to stay has become referenced by then; what is not, the next `collect` removes.

        Args:
            source: as in `StageRequest`.
            main: likewise.
            root: likewise.
            golden: likewise.

        Raises:
            ModelcloudError: as `stage_process.stage_apart`; nothing is left of it.
            OSError: it could not be put in its place.
        """
        staged = await self._make(source, main, root, golden)
        try:
            yield staged
        finally:
            self._release(staged.digest)

    async def collect(self, referenced: Callable[[], Awaitable[set[str]]]) -> set[str]:
        """Remove the artifacts that nothing refers to.

        Args:
            referenced: reads the digests that something refers to. It is called once it is settled
                which artifacts are looked at: one that is made or asked for since is left alone.

        Returns:
            The digests of those that were removed.
        """
        async with self._collecting:
            self._held_since = set(self._held)
            present = await asyncio.to_thread(self._present)
            unwanted = present - await referenced()
            return {digest for digest in unwanted if await asyncio.to_thread(self._remove, digest)}

    async def _make(self, source: Path, main: str, root: str, golden: str) -> Staged:
        work = Path(tempfile.mkdtemp(prefix="stage-", dir=self._staging))
        try:
            request = StageRequest(
                source=str(source),
                work=str(work),
                caps=self._caps,
                main=main,
                root=root,
                golden=golden,
            )
            staged = await stage_apart(request, self._deadline_s)
            self._held[staged.digest] += 1
            self._held_since.add(staged.digest)
            try:
                await asyncio.to_thread(self.publish, Path(staged.folder), staged.digest)
            except BaseException:
                self._release(staged.digest)
                raise
            return replace(staged, folder=str(self.path(staged.digest)))
        finally:
            await asyncio.to_thread(remove_tree, work)

    def publish(self, staged: Path, digest: str) -> None:
        """Put a staged artifact in its place; one that is there and whole stays.

        Raises:
            OSError: it could not; the place is as it was.
        """
        place = self.path(digest)
        with self._moving:
            if place.exists():
                try:
                    verify(place)
                except ModelLoadError as error:
                    log.warning("the artifact %s is damaged and replaced: %s", digest, error)
                    self._retire(place)
                else:
                    return
            staged.rename(place)
            place.chmod(0o550)
            sync(self._folder)

    def _release(self, digest: str) -> None:
        self._held[digest] -= 1
        if not self._held[digest]:
            del self._held[digest]

    def _present(self) -> set[str]:
        return {entry.name for entry in self._folder.iterdir() if _DIGEST.fullmatch(entry.name)}

    def _remove(self, digest: str) -> bool:
        with self._moving:
            if digest in self._held_since:
                return False
            self._retire(self.path(digest))
        return True

    def _retire(self, place: Path) -> None:
        """Take an artifact out of its place in one step, then delete it."""
        trash = Path(tempfile.mkdtemp(prefix="trash-", dir=self._staging))
        place.chmod(0o750)  # the kernel asks for it where a folder gets another parent
        place.rename(trash / place.name)
        remove_tree(trash)


def remove_tree(path: Path) -> None:
    """Remove a folder, read-only ones in it too, or a file; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        for folder, _, _ in os.walk(path):
            with contextlib.suppress(OSError):
                Path(folder).chmod(0o700)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
