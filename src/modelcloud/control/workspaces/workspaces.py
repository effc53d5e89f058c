"""The workspaces that run: who started which, how long each may, and why it ended.

They are in no store: a workspace ends with the control plane, and its files stay.

Must never: run a user's code in this process, or go on with a workspace whose user may not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import modelcloud
from modelcloud.artifacts.store import remove_tree
from modelcloud.control.access import audit, groups
from modelcloud.control.access.auth import actor_of
from modelcloud.control.access.permissions import Action, Actor, Resource, allowed, require
from modelcloud.control.common.records import Listing, Record, Time
from modelcloud.control.services import group_folders
from modelcloud.control.state import PlatformState
from modelcloud.control.workspaces.tickets import Tickets
from modelcloud.dataplane.confinement import Confinement
from modelcloud.errors import Conflict, ModelcloudError, NotFound, TooManyRequests
from modelcloud.node.reaper import TAG
from modelcloud.node.usage import usage_of
from modelcloud.store.tables import Group
from modelcloud.waiting import within
from modelcloud.workspaces import WORKSPACE_LIBRARIES
from modelcloud.workspaces.enter import Lab
from modelcloud.workspaces.process import LabProcess

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

#: Between two looks at a workspace.
LOOK_S = 5.0
#: Of the environment, what says how programs run here and holds no credential.
_KEPT = {
    "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR", "SSL_CERT_FILE", "TZ",
}  # fmt: skip
_TUTORIAL = Path(modelcloud.__file__).parent / "workspaces" / "tutorial.ipynb"
#: Who stopped a workspace that nobody asked to stop, as the audit log has it.
_PLATFORM = "modelcloud up"


class WorkspaceRecord(Record):
    """A workspace. `memory`: bytes that it uses with all that was started in it."""

    group: str
    user: str
    state: Literal["starting", "running"]
    started_at: Time
    memory: int


class Workspace:
    """One that runs, or is being started.

    Attributes:
        id: in its addresses; nobody can guess it.
        resource: its group, and whose it is, for `allowed`.
        process: its lab; None until there is one.
        ending: it is stopped, or about to be.
    """

    def __init__(self, group: Group, actor: Actor, started_at: float, now: float) -> None:
        self.id = secrets.token_urlsafe(12)
        self.user_id = actor.user_id
        self.user, self.group = actor.name, group.name
        self.resource = _resource(group, actor.name)
        self.process: LabProcess | None = None
        self.ending = False
        self.started_at = started_at
        self.active_at = now
        self.memory = 0
        self.ready = False
        self.connections = 0
        self._mark = ""

    @property
    def base(self) -> str:
        """What its addresses begin with."""
        return f"/w/{self.id}/"

    @property
    def record(self) -> WorkspaceRecord:
        """As the API shows it."""
        return WorkspaceRecord(
            group=self.group,
            user=self.user,
            state="running" if self.ready else "starting",
            started_at=self.started_at,
            memory=self.memory,
        )

    async def look(self, now: float, *, memory: int, idle_s: float) -> str:
        """Why it is to end; empty: it may go on."""
        assert self.process is not None
        used = await asyncio.to_thread(usage_of, [self.process.pid])
        self.memory = sum(usage.memory for usage in used.values())
        if memory and self.memory > memory:
            return f"it used {self.memory} bytes of memory; accepted: up to {memory}"
        activity = await self.process.activity()
        if activity is not None and (activity.busy or activity.mark != self._mark):
            self._mark, self.active_at = activity.mark, now
        if now - self.active_at > idle_s:
            return f"nothing was done in it for {idle_s:g} s"
        return ""


class Workspaces:
    """All of them. A part of the platform that is `Background`.

    Attributes:
        tickets: by which browsers get in.
    """

    def __init__(self, state: PlatformState) -> None:
        self._state = state
        self._config = state.config
        self.tickets = Tickets(state.clock)
        self._running: dict[int, Workspace] = {}  # by the user's id: each has one at most
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._run_dir = Path(state.standing.run_dir) if state.standing.run_dir else None

    async def start(self) -> None:
        """Nothing runs yet, and what an earlier control plane had is gone with it."""

    async def stop(self) -> None:
        """End all of them."""
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*map(self._end, [*self._running.values()]), return_exceptions=True)

    # ---- what routers call

    @property
    def missing(self) -> str:
        """What keeps workspaces from being started here, and what to do; empty: nothing."""
        if any(find_spec(library) is None for library in WORKSPACE_LIBRARIES):
            return (
                "workspaces are not installed here; run: pip install 'modelcloud[workspace]', and "
                "start the platform with --workspaces N"
            )
        if not self._config.workspaces:
            return "workspaces are off; start the platform with --workspaces N"
        return ""

    def listing(self, actor: Actor) -> Listing[WorkspaceRecord]:
        """One's own, and those that one may stop."""
        seen = (
            one
            for one in self._running.values()
            if allowed(actor, Action.STOP_WORKSPACE, one.resource)
        )
        return Listing(items=[one.record for one in seen])

    async def begin(self, actor: Actor, group_name: str) -> WorkspaceRecord:
        """Start one's own in a group; returns once it answers. If it is there, it stays.

        Raises:
            NotFound: no such group that the actor may see.
            Refused: the actor may not.
            Conflict: there are no workspaces here, or one's own is in another group.
            TooManyRequests: as many run as may.
            Overloaded, DeadlineExceeded: it did not start.
        """
        group = await self._group(actor, group_name)
        if self.missing:
            raise Conflict(self.missing)
        there = self._running.get(actor.user_id)
        if there is not None:
            if there.group != group.name:
                raise Conflict(
                    f"your workspace runs in group {there.group!r}; stop it there before you start "
                    "one in another"
                )
            return there.record
        if len(self._running) >= self._config.workspaces:
            raise TooManyRequests(
                f"{self._config.workspaces} workspaces run, which is as many as may; try again "
                "when one is stopped"
            )
        made = Workspace(group, actor, self._state.wall(), self._state.clock())
        self._running[actor.user_id] = made
        try:
            await self._state.store.transact(partial(_note, actor, Action.WORKSPACE, made))
            folder = group_folders.folder_of(self._state.data, group)
            made.process = LabProcess(await asyncio.to_thread(self._prepare, made, folder))
            if made.ending:  # by somebody who did not find a process yet
                await made.process.stop()
            await made.process.start()
        except BaseException as error:
            await self._end(made)
            if isinstance(error, ModelcloudError):
                log.warning("a workspace did not start: %s %s", error.message, error.detail)
            raise
        made.ready = True
        made.active_at = self._state.clock()
        self._tasks[made.id] = asyncio.get_running_loop().create_task(self._watch(made))
        return made.record

    async def end(self, actor: Actor, group_name: str, user: str | None) -> None:
        """Stop one's own, or somebody's in a group that one manages.

        Raises:
            NotFound: no such group that the actor may see, or no workspace there.
            Refused: the actor may not.
        """
        group = await self._group(actor, group_name, Action.READ)
        whose = user or actor.name
        require(actor, Action.STOP_WORKSPACE, _resource(group, whose))
        found = self._of(group.name, whose)
        if found is None:
            raise NotFound(f"no workspace of {whose!r} runs in group {group_name!r}")
        await self._state.store.transact(partial(_note, actor, Action.STOP_WORKSPACE, found))
        await self._stop(found)

    async def ticket(self, actor: Actor, group_name: str) -> tuple[str, str]:
        """The path below the workspaces' address by which a browser gets into one's own.

        Returns:
            The path, and the ticket for it.

        Raises:
            NotFound: no such group that the actor may see, or no workspace of one's own there.
            Refused: the actor may not.
        """
        group = await self._group(actor, group_name)
        found = self._of(group.name, actor.name)
        if found is None or not found.ready:
            raise NotFound(f"no workspace of yours runs in group {group_name!r}; start it first")
        return f"{found.base}enter", self.tickets.issue(found.id, actor.token_id)

    async def folders(self, actor: Actor, group_name: str) -> Listing[group_folders.FolderRecord]:
        """What in the group's folder can be registered.

        Raises:
            NotFound: no such group that the actor may see.
            Refused: the actor may not.
        """
        group = await self._group(actor, group_name)
        top = group_folders.folder_of(self._state.data, group)
        return Listing(items=await asyncio.to_thread(group_folders.found_in, top))

    def by_id(self, workspace: str) -> Workspace | None:
        """The one that runs under this id."""
        return next((one for one in self._running.values() if one.id == workspace), None)

    # ---- inside

    async def _group(self, actor: Actor, name: str, action: Action = Action.WORKSPACE) -> Group:
        return await self._state.store.read(
            partial(groups.find, actor=actor, name=name, action=action)
        )

    def _of(self, group: str, user: str) -> Workspace | None:
        there = (one for one in self._running.values() if (one.group, one.user) == (group, user))
        return next(there, None)

    def _prepare(self, made: Workspace, files: Path) -> Lab:
        """Make the folders; what the lab is to be."""
        assert self._run_dir is not None
        with contextlib.suppress(FileExistsError):
            files.mkdir(mode=0o700, parents=True)
            shutil.copyfile(_TUTORIAL, files / _TUTORIAL.name)
        place = self._place(made)
        own, sockets = place / "own", place / "s"
        own.mkdir(mode=0o700, parents=True)
        sockets.mkdir(mode=0o700)
        kept = {name: value for name, value in os.environ.items() if name in _KEPT}
        realm = os.environ.get(TAG, "").partition("/")[0]
        config = self._config
        confinement = Confinement(
            hidden=(str(self._state.data.absolute()), str(self._run_dir), *config.hidden),
            writable=(str(files), str(own)),
            sockets=(str(sockets),),
            fixed=(sys.prefix, sys.base_prefix, str(Path(modelcloud.__file__).parent)),
        )
        return Lab(
            files=str(files),
            own=str(own),
            socket=str(sockets / "s"),
            base=made.base,
            token=secrets.token_urlsafe(32),
            confinement=confinement if config.confine else Confinement(),
            environment={**kept, **({TAG: f"{realm}/workspace-{made.id}"} if realm else {})},
        )

    def _place(self, made: Workspace) -> Path:
        assert self._run_dir is not None
        return self._run_dir / f"ws-{made.id[:8]}"

    async def _watch(self, made: Workspace) -> None:
        """Stop it once it has ended, may not go on, or is used no more."""
        assert made.process is not None
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await within(made.process.ended.wait(), LOOK_S)
            try:
                why = await self._why_end(made)
            except ModelcloudError:  # nobody can tell
                continue
            except Exception:
                log.exception("a workspace could not be looked at")
                continue
            if why:
                break
        log.info("the workspace of %s in group %s is stopped: %s", made.user, made.group, why)
        note = partial(_note, _PLATFORM, Action.STOP_WORKSPACE, made, detail=why)
        try:
            await self._state.store.transact(note)
        except ModelcloudError as error:
            log.warning("that a workspace ended could not be kept: %s", error.message)
        self._tasks.pop(made.id, None)
        await self._end(made)

    async def _why_end(self, made: Workspace) -> str:
        if made.process is not None and made.process.ended.is_set():
            return "it ended by itself"
        if not await self._state.store.read(partial(_may_go_on, made=made)):
            return "its user may not work in the group any more"
        return await made.look(
            self._state.clock(),
            memory=self._config.workspace_memory,
            idle_s=self._config.workspace_idle_s,
        )

    async def _stop(self, made: Workspace) -> None:
        task = self._tasks.pop(made.id, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._end(made)

    async def _end(self, made: Workspace) -> None:
        """Let nobody in, end its processes, remove what was its own."""
        made.ending, made.ready = True, False
        self.tickets.forget(made.id)
        try:
            if made.process is not None:
                await made.process.stop()
            if self._run_dir is not None:
                await asyncio.to_thread(remove_tree, self._place(made))
        finally:
            if self._running.get(made.user_id) is made:
                del self._running[made.user_id]


def _resource(group: Group, user: str) -> Resource:
    return Resource(
        group_id=group.id,
        kind="workspace",
        name=user,
        group=group.name,
        owners=frozenset({user}),
    )


def _may_go_on(tx: Session, made: Workspace) -> bool:
    actor = actor_of(tx, made.user_id, "")
    group = tx.get(Group, made.resource.group_id)
    return (
        group is not None
        and group.name == made.group
        and allowed(actor, Action.WORKSPACE, made.resource)
    )


def _note(
    actor: Actor | str, action: Action, workspace: Workspace, tx: Session, *, detail: str = ""
) -> None:
    audit.note(tx, actor, action, "workspace", workspace.user, workspace.group, detail=detail)
