"""Registers versions: stages the files, asks the model what it offers, stores all of it or nothing.

Must never: run the model's code here, or leave files behind that no version has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from msgspec.structs import replace

from modelcloud.artifacts.stage import Staged
from modelcloud.artifacts.store import ArtifactStore
from modelcloud.artifacts.tree import Caps
from modelcloud.config import PlatformConfig
from modelcloud.control.access.permissions import Actor
from modelcloud.control.common.idempotency import Once
from modelcloud.control.common.records import Record
from modelcloud.control.services import artifacts, curves, group_folders, versions
from modelcloud.control.services.curves import Training, check_curves, check_metrics
from modelcloud.control.services.probing import PREFIX, Prober
from modelcloud.control.services.uploads import Uploads
from modelcloud.control.services.version_forms import (
    MAX_REQUIREMENTS,
    RegisterBody,
    check_model_path,
    check_python,
    source_below,
    with_main_split_off,
)
from modelcloud.control.services.versions import Proposal, VersionRecord
from modelcloud.engines.base import Engine
from modelcloud.errors import InvalidInput, ModelcloudError, NotFound, TooManyRequests
from modelcloud.node.orders import Standing, WorkerLine
from modelcloud.serve.options import check_options
from modelcloud.store.store import Store
from modelcloud.types import GenerationSpec

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

#: What a new version is done with beside being added, in the same transaction.
Add: TypeAlias = Callable[["Session"], VersionRecord]

ARTIFACTS, STAGING = "artifacts", "staging"
#: For unpacking and checking one artifact.
STAGE_S = 900.0
#: Versions being registered; of those, how many at a time have their files staged.
MAX_UNDER_WAY, STAGED_AT_ONCE = 16, 2
#: Of refusals that would be the same again for the same files.
OF_CONTENT = frozenset({400, 413, 415, 422})
#: Read of a file beside the model.
MAX_FILE = 8 * 1024 * 1024


class Files(NamedTuple):
    """What a version is made of.

    Attributes:
        path: as `StageRequest.source`.
        root: likewise.
        origin: see `VersionRecord`.
        golden: see `StageRequest`.
        refused: called when they are refused for what they hold.
    """

    path: Path
    root: str
    origin: dict[str, Any]
    golden: str = ""
    refused: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def judged(self) -> Iterator[None]:
        """Within it they are refused for what they hold, and not for how they were asked for."""
        try:
            yield
        except ModelcloudError as error:
            if error.status in OF_CONTENT:
                self.refused()
            raise


class Preview(Record):
    """What a version would be. `notes`: what was left out; `curves`: the names of the series."""

    main: str
    signature: dict[str, Any]
    options: dict[str, Any]
    requirements: str
    metrics: dict[str, Any]
    curves: list[str]
    notes: list[str]


class Registration:
    """The way by which versions come in. A part of the platform that is `Background`.

    Attributes:
        uploads: archives that were sent.

    Args:
        store: of the platform.
        engine: where throw-away workers run.
        standing: what the node is.
        write: appends a line to the deployment log of a service.
        in_use: what workers may still be started from.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        standing: Standing,
        *,
        write: Callable[[str, str], None],
        in_use: Callable[[], Iterable[GenerationSpec]],
        clock: Callable[[], float],
    ) -> None:
        config: PlatformConfig = standing.config
        data = Path(config.data).absolute()
        self._store = store
        self._config = config
        self._standing = standing
        self._in_use = in_use
        self._write = write
        self._prober = Prober(engine)
        self._artifacts = ArtifactStore(
            data / ARTIFACTS, data / STAGING, Caps(bytes=config.upload_limit), STAGE_S
        )
        self.uploads = Uploads(data / STAGING, config.upload_limit, clock)
        self._under_way = 0
        self._stages = asyncio.Semaphore(STAGED_AT_ONCE)

    # ---- life

    async def start(self) -> None:
        """Remove what an earlier control plane left half done."""
        await asyncio.to_thread(self._artifacts.prepare)

    async def stop(self) -> None:
        """Nothing of it works by itself."""

    # ---- what routers call

    @property
    def taken_ports(self) -> tuple[int, ...]:
        """At which the platform itself listens."""
        return (self._standing.port, self._standing.control_port)

    async def register(
        self, actor: Actor, service: str, asked: RegisterBody, once: Once
    ) -> VersionRecord:
        """Register a version.

        Raises:
            ModelcloudError: it was refused, and nothing of it is left: the request does not fit
                (400), the actor may not (403), a name or number is taken (409), the archive is over
                a limit (413), the model cannot be imported (422).
        """
        asked = with_main_split_off(asked)
        with self._one_more():
            given = await self._checked(actor, service, asked)
            files = await self._source(actor, service, asked)
            record = await self._register(
                actor, service, asked, files, given, lambda add: once.around(add, 201), _every
            )
        assert record is not None
        if asked.upload is not None:
            self._drop(actor, asked.upload)
        return record

    async def register_files(
        self,
        actor: Actor,
        service: str,
        asked: RegisterBody,
        files: Files,
        *,
        together: Callable[[Add], Add],
        admit: Callable[[Staged], bool],
    ) -> VersionRecord | None:
        """Register a version of files that are on this machine.

        Args:
            actor: whose version it is.
            service: its name.
            asked: all of it but for `upload`, `path` and `folder`, which `files` stand for.
            files: what it is made of.
            together: makes the transaction that adds the version a larger one.
            admit: whether a version is to be made of what was staged; it may refuse by raising.

        Returns:
            The version; None: none was made, as `admit` said.

        Raises:
            ModelcloudError: as `register`.
        """
        with self._one_more():
            given = await self._checked(actor, service, asked)
            return await self._register(actor, service, asked, files, given, together, admit)

    async def preview(self, actor: Actor, service: str, asked: RegisterBody) -> Preview:
        """What a version would be: its code is imported, and nothing is kept. Raises as `register`.

        An environment that was built stays for when the version is registered.
        """
        asked = with_main_split_off(asked)
        with self._one_more():
            given = await self._checked(actor, service, asked)
            files = await self._source(actor, service, asked)
            files = files._replace(refused=lambda: None)  # it may be tried anew
            try:
                async with self._staged(asked, files) as staged:
                    proposal, _ = await self._propose(asked, staged, given, files)
                    return Preview(
                        main=proposal.staged.main,
                        signature=proposal.signature,
                        options=proposal.options,
                        requirements=proposal.requirements,
                        metrics=proposal.metrics,
                        curves=list(proposal.curves),
                        notes=proposal.origin["notes"],
                    )
            finally:
                await self.collect()

    async def collect(self) -> None:
        """Remove the files of artifacts that nothing refers to any more."""

        async def referenced() -> set[str]:
            used = {spec.digest for spec in self._in_use()}
            return used | {found.digest for found in await self._store.read(artifacts.referenced)}

        removed = await self._artifacts.collect(referenced)
        if removed:
            log.info("%d artifacts that nothing refers to were removed", len(removed))

    def take_line(self, line: WorkerLine) -> None:
        """A line of a worker's output, or of the preparation of its generation."""
        self._prober.take_line(line)

    # ---- inside

    @contextlib.contextmanager
    def _one_more(self) -> Iterator[None]:
        if self._under_way >= MAX_UNDER_WAY:
            raise TooManyRequests(f"{MAX_UNDER_WAY} versions are being registered; wait for one")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def _checked(self, actor: Actor, service: str, asked: RegisterBody) -> Training:
        """What came of training, as it was given.

        Raises as `register` does, before anything is touched.
        """
        check = partial(
            versions.check, actor=actor, name=service, asked=asked, taken_ports=self.taken_ports
        )
        await self._store.read(check)
        await asyncio.to_thread(check_python, asked.python)
        check_model_path(asked.model_path)
        return replace(check_curves(asked.curves or {}), metrics=check_metrics(asked.metrics or {}))

    @contextlib.asynccontextmanager
    async def _staged(self, asked: RegisterBody, files: Files) -> AsyncIterator[Staged]:
        """An artifact of the files, held meanwhile."""
        async with contextlib.AsyncExitStack() as held:
            async with self._stages:
                with files.judged():
                    staged = await held.enter_async_context(
                        self._artifacts.holding(files.path, asked.main, files.root, files.golden)
                    )
            yield staged

    async def _register(
        self,
        actor: Actor,
        service: str,
        asked: RegisterBody,
        files: Files,
        given: Training,
        together: Callable[[Add], Add],
        admit: Callable[[Staged], bool],
    ) -> VersionRecord | None:
        try:
            async with self._staged(asked, files) as staged:
                if not admit(staged):
                    return None
                proposal, said = await self._propose(asked, staged, given, files)
                add = partial(
                    versions.add,
                    actor=actor,
                    name=service,
                    asked=asked,
                    proposal=proposal,
                    taken_ports=self.taken_ports,
                )
                record = await self._store.transact(together(add))
        except BaseException as error:
            await self._undo(actor, service, asked, error)
            raise
        for line in said:  # it is built now; a deployment will find it there
            self._write(service, f"version {record.version}: {line}")
        return record

    async def _source(self, actor: Actor, service: str, asked: RegisterBody) -> Files:
        ways = [name for name in ("upload", "path", "folder") if getattr(asked, name) is not None]
        if len(ways) != 1:
            got = " and ".join(ways) or "none"
            raise InvalidInput("upload, path, folder", got, "one of them")
        if asked.upload is not None:
            path = self.uploads.path(actor, asked.upload)
            drop = partial(self._drop, actor, asked.upload)
            return Files(path, "", {"kind": "upload"}, refused=drop)
        if asked.path is not None:
            source, root = source_below(asked.path, self._config.roots, self._config.data)
            return Files(source, str(root), {"kind": "path", "path": asked.path})
        assert asked.folder is not None
        group = await self._store.read(
            partial(group_folders.group_for, actor=actor, service=service, asked=asked)
        )
        top = group_folders.folder_of(Path(self._config.data), group)
        source = await asyncio.to_thread(group_folders.below, top, asked.folder)
        return Files(source, str(top), {"kind": "workspace", "folder": asked.folder})

    def _drop(self, actor: Actor, upload: str) -> None:
        with contextlib.suppress(NotFound):  # another registration of it was quicker
            self.uploads.drop(actor, upload)

    async def _propose(
        self,
        asked: RegisterBody,
        staged: Staged,
        given: Training,
        files: Files,
    ) -> tuple[Proposal, list[str]]:
        """What is to be stored, and what was said as the environment was built."""
        with files.judged():
            requirements, found = await asyncio.to_thread(_read_beside, staged, asked)
        spec = GenerationSpec(
            service=PREFIX,
            generation=1,
            version=0,
            target=staged.main,
            snapshot=staged.folder,
            digest=staged.digest,
            options_text=asked.options_text,
            port=asked.port or self._standing.port,
            python=asked.python,
            model_path=asked.model_path,
            requirements=requirements,
            load_timeout_s=self._config.load_timeout_s,
        )
        deadline_s = self._config.load_timeout_s
        if requirements:
            deadline_s += self._config.env_timeout_s
        with files.judged():
            signature, said = await self._prober.probe(spec, deadline_s)
        values = signature.pop("optionValues")
        check_options(asked.options, signature["options"])
        proposal = Proposal(
            staged=staged,
            signature=signature,
            options=asked.options | {name: values[name] for name in asked.options_text},
            requirements=requirements,
            metrics=found.metrics if asked.metrics is None else given.metrics,
            curves=found.curves if asked.curves is None else given.curves,
            origin={**files.origin, "notes": [*given.notes, *found.notes]},
        )
        return proposal, said

    async def _undo(
        self, actor: Actor, service: str, asked: RegisterBody, error: BaseException
    ) -> None:
        """After a refusal: no files, and an entry in the audit log."""
        try:
            await self.collect()
            if isinstance(error, ModelcloudError):
                reason = error.message
                await self._store.transact(
                    lambda tx: versions.note_failed(tx, actor, service, asked, reason)
                )
        except Exception:
            log.exception("after a version of %s was refused", service)


def _every(_: Staged) -> bool:
    return True


def _read_beside(staged: Staged, asked: RegisterBody) -> tuple[str, Training]:
    """Requirements, metrics and curves from the files of an artifact."""
    requirements = asked.requirements
    if requirements is None:
        data = _file(staged, "requirements.txt", MAX_REQUIREMENTS)
        try:
            requirements = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise InvalidInput("requirements.txt", "other bytes", "text in UTF-8") from None
    if not any(line.partition("#")[0].strip() for line in requirements.splitlines()):
        requirements = ""
    found = Training()
    for name in ("metrics.json", "history.csv"):
        data = _file(staged, name, MAX_FILE)
        if not data:
            continue
        if name.endswith(".json"):
            read = curves.read_json(data, name)
        else:
            read = curves.read_csv(data.decode("utf-8-sig", errors="replace"), name)
        found = Training(
            {**found.metrics, **read.metrics},
            {**found.curves, **read.curves},
            (*found.notes, *read.notes),
        )
    return requirements, found


def _file(staged: Staged, name: str, limit: int) -> bytes:
    """A file at the top of an artifact, or beside its main file; b"" without one."""
    root = Path(staged.folder)
    for path in (root / name, (root / staged.main).parent / name):
        if path.is_file():
            if path.stat().st_size > limit:
                raise InvalidInput(name, f"{path.stat().st_size} bytes", f"up to {limit}")
            return path.read_bytes()
    return b""
