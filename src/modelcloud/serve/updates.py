"""The one way to begin an update in serve mode: stage the code, make a spec, hand it over.

Must never: run the code, or wait for a rollout's end; it begins them, the reconciler does the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from modelcloud.artifacts.snapshot import Snapshot, take
from modelcloud.config import ServeConfig
from modelcloud.errors import (
    DeadlineExceeded,
    Forbidden,
    ModelcloudError,
    NotReady,
    UpdateFailed,
    UsageError,
)
from modelcloud.rollout.policy import supersedable
from modelcloud.rollout.reconciler import Reconciler
from modelcloud.rollout.records import Kind, Rollout
from modelcloud.runtimes import detect
from modelcloud.serve.options import check_options
from modelcloud.serve.settings import split_target
from modelcloud.serve.timestamp import take_whole, unfinished
from modelcloud.serve.watch import Look, look_at
from modelcloud.types import GenerationSpec, Observed, StrategySpec

log = logging.getLogger(__name__)

#: How long a model that arrives lets the one before it come up first. Of a producer that is
#: quicker than its models load, each would otherwise take the place of the one before.
PATIENCE_S = 30.0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What an update asks for; what it leaves out stays as it is.

    Attributes:
        options: option → JSON form, over the current ones.
        artifact: new target, as a path below the artifact root.
        model_path: likewise.
    """

    options: dict[str, Any] = {}
    strategy: StrategySpec | None = None
    artifact: str = ""
    model_path: str = ""


class Updates:
    """Begins the rollouts of one service.

    Args:
        config: checked settings.
        observe: what the engine sees of the service.
        folder: where snapshots are kept; those no longer needed are removed.
    """

    def __init__(
        self,
        config: ServeConfig,
        reconciler: Reconciler,
        observe: Callable[[], Observed],
        folder: Path,
    ) -> None:
        self._config = config
        self._reconciler = reconciler
        self._observe = observe
        self._folder = folder
        self._turn = asyncio.Lock()  # who asks first begins first, however long staging takes
        self._versions: dict[str, int] = {}
        self._timestamp = Path(config.timestamp_file) if config.timestamp_file else None
        self._stamp: Look = {}  # of the timestamp file, when its model was staged last
        self._newest: Snapshot | None = None
        self._folders: dict[int, str] = {}  # generation → snapshot, of those that may be needed
        self._cleaning: asyncio.Task[None] | None = None
        reconciler.on_finished(self._clean_soon)

    async def begin_first(self) -> Rollout:
        """Begin the rollout to what the server was started with.

        Raises:
            ModelLoadError: there is no such target, or it cannot be staged.
        """
        config = self._config
        staged = await self._take(config.target)
        spec = GenerationSpec(
            service=config.service,
            deployment=config.service,
            generation=self._reconciler.next_generation(),
            version=self._version(staged),
            target=config.target,
            snapshot=str(staged.folder),
            digest=staged.digest,
            options=config.options,
            options_text=config.options_text,
            port=config.port,
            model_path=config.model_path,
            upload_dir=config.upload_dir,
            python=config.python,
            runenv=config.runenv,
            threads=config.threads,
            load_timeout_s=config.load_timeout_s,
            max_body=config.limits.body,
        )
        return self._reconciler.begin(spec, kind=Kind.INITIAL)

    async def begin(self, change: Change) -> Rollout:
        """Stage the code as it is now and begin an update.

        Raises:
            InvalidInput: an option does not fit, as far as that is known before the code runs.
            UsageError: there is nothing at the artifact's path.
            Forbidden: a path outside the artifact root.
            UpdateFailed: the code could not be staged.
            NotReady: nothing serves yet.
            Conflict: the server is stopping.
        """
        target, model_path = self._paths(change)
        async with self._turn:
            staged = await self._stage(target or self.base().target)
            return self._begin(change, staged, target, model_path)

    def _begin(
        self, change: Change, staged: Snapshot, target: str = "", model_path: str = ""
    ) -> Rollout:
        base = self.base()
        if staged.digest == base.digest and (model_path or base.model_path) == base.model_path:
            signature = self._observe().signatures.get(base.generation)
            if signature is not None:
                check_options(change.options, signature["options"])
        spec = replace(
            base,
            generation=self._reconciler.next_generation(),
            revision=0,
            version=self._version(staged),
            target=target or base.target,
            snapshot=str(staged.folder),
            digest=staged.digest,
            options={**base.options, **change.options},
            options_text={
                name: text for name, text in base.options_text.items() if name not in change.options
            },
            inherited=tuple(sorted({*base.options, *base.options_text} - change.options.keys())),
            model_path=model_path or base.model_path,
        )
        return self._reconciler.begin(spec, change.strategy)

    async def begin_edited(self) -> Rollout | None:
        """Begin an update if the served files differ from what serves, or from what is on its way.

        Raises:
            UpdateFailed: they could not be staged.
            NotReady: nothing serves yet.
            Conflict: the server is stopping.
        """
        async with self._turn:
            staged = await self._stage(self.base().target)
            base, newest = self.base(), self._reconciler.rollouts()[0]
            same = staged.digest == (base if newest.finished else newest.target).digest
            # Of what lies at a model path, a snapshot holds nothing.
            outside = self._timestamp is not None and bool(base.model_path)
            return None if same and not outside else self._begin(Change(), staged)

    async def begin_arrived(self) -> Rollout | None:
        """Begin an update if the timestamp file changed since its model was staged last.

        A model that is not taken is tried again when the file changes again.

        Raises:
            UpdateFailed: it could not be staged, or is not whole.
            NotReady, Conflict: as `begin_edited`.
        """
        assert self._timestamp is not None
        newest = self._reconciler.rollouts()[0]
        with contextlib.suppress(DeadlineExceeded):
            await self._reconciler.wait(newest.id, PATIENCE_S)
        stamp = look_at(self._timestamp)
        if not stamp or stamp == self._stamp:
            return None
        self._stamp = stamp
        if late := await asyncio.to_thread(unfinished, self.base().target, self._timestamp):
            raise UpdateFailed(f"{late} is younger than {self._timestamp.name}, so it is not whole")
        return await self.begin_edited()

    def base(self) -> GenerationSpec:
        """What an update begun now changes: what will serve when its turn comes.

        That is the running rollout's target from the moment it can no longer be superseded.

        Raises:
            NotReady: nothing serves yet.
        """
        facts = self._reconciler.snapshot()
        if facts.flight is not None and not supersedable(facts, self._observe()):
            return facts.flight.target
        if facts.serving is None:
            raise NotReady("nothing serves yet")
        return facts.serving

    def watched(self) -> tuple[Path, tuple[str, ...]]:
        """Root and files of the newest staged code."""
        assert self._newest is not None
        return self._newest.root, tuple(self._newest.files)

    async def _stage(self, target: str) -> Snapshot:
        try:
            return await self._take(target)
        except ModelcloudError as error:
            raise UpdateFailed(error.message) from error
        except OSError as error:
            log.warning("%s could not be staged: %s", target, error)
            raise UpdateFailed(f"the code could not be staged: {error.strerror}") from error

    async def _take(self, target: str) -> Snapshot:
        if self._timestamp is None:
            taken = await asyncio.to_thread(take, target, self._folder)
        else:
            taken, self._stamp = await asyncio.to_thread(
                take_whole, target, self._folder, self._timestamp
            )
        self._newest = taken
        return taken

    def _version(self, staged: Snapshot) -> int:
        return self._versions.setdefault(staged.digest, len(self._versions) + 1)

    def _paths(self, change: Change) -> tuple[str, str]:
        """Target and model path that a change names, resolved; empty where it names none."""
        root = Path(self._config.artifact_root)
        target = model_path = ""
        if change.artifact:
            place, name = split_target(change.artifact)
            path = below(root, place, "artifact")
            if not (path.is_dir() or path.suffix in {".py", ".pkl"} or detect.detect(path)):
                raise UsageError(
                    "artifact: accepted: a .py file, a folder, a model file or a notebook's .pkl"
                )
            target = f"{path}:{name}" if name else str(path)
        if change.model_path:
            model_path = str(below(root, change.model_path, "model_path"))
        return target, model_path

    def _clean_soon(self, _: Rollout) -> None:
        if self._cleaning is None or self._cleaning.done():
            self._cleaning = asyncio.get_running_loop().create_task(self._clean())

    async def _clean(self) -> None:
        """Remove the snapshots that no generation still there was started from."""
        async with self._turn:  # so that none is between staged and begun
            in_use = {spec.generation: spec.snapshot for spec in self._reconciler.in_use()}
            # Code may be imported late, by a worker that answers its last request.
            there = {worker.generation for worker in self._observe().workers}
            leaving = {n: folder for n, folder in self._folders.items() if n in there}
            self._folders = {**leaving, **in_use}
            kept = {Path(folder).name for folder in self._folders.values()}
            await asyncio.to_thread(_remove_all_but, self._folder, kept)


def below(root: Path, given: str, field: str) -> Path:
    """The existing path that `given` names, which must lie below `root`.

    Compared by components after links are followed, so neither `..`, a link nor a sibling whose
    name begins like the root's leads out (attack row 26).

    Raises:
        Forbidden: it lies elsewhere.
        UsageError: nothing is there.
    """
    try:
        path = (root / given).resolve()
        inside = path.is_relative_to(root.resolve())
        exists = inside and path.exists()
    except (OSError, ValueError, RuntimeError):  # a NUL, a name too long, a loop of links
        raise UsageError(f"{field}: {given[:80]!r} is no path") from None
    if not inside:
        raise Forbidden(
            f"{field}: {given[:80]!r} lies outside the artifact root; accepted: a path below it "
            "(see --artifact-root)"
        )
    if not exists:
        raise UsageError(f"{field}: there is nothing at {given[:80]!r} below the artifact root")
    return path


def _remove_all_but(folder: Path, kept: set[str]) -> None:
    for entry in folder.iterdir():
        if entry.name not in kept:
            shutil.rmtree(entry, ignore_errors=True)
