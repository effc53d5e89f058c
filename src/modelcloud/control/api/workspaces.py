"""Workspaces: started, opened in a browser, stopped; what in a group's folder can be registered.

Must never: decide; `control.workspaces` does.
"""

from __future__ import annotations

from urllib.parse import quote

from fastapi import Response

from modelcloud.control.api import deps
from modelcloud.control.api.deps import ActorDep, PlatformDep
from modelcloud.control.common.records import Listing, Record
from modelcloud.control.services.group_folders import FolderRecord
from modelcloud.control.workspaces.workspaces import WorkspaceRecord, Workspaces
from modelcloud.node import sockets

router = deps.router("workspaces")


class OpeningRecord(Record):
    """Where a browser gets into one's workspace: once, within a minute.

    Attributes:
        url: of the whole address; where the platform does not know it, its host stands for that of
            this API.
        port, path: its parts, for whoever knows the host.
    """

    url: str
    port: int
    path: str


@router.get("/workspaces")
async def list_workspaces(here: PlatformDep, actor: ActorDep) -> Listing[WorkspaceRecord]:
    """One's own, and those in the groups that one manages."""
    return here.part(Workspaces).listing(actor)


@router.post("/workspaces/{group}", status_code=201)
async def start_workspace(group: str, here: PlatformDep, actor: ActorDep) -> WorkspaceRecord:
    """Start one's own in a group; answered once it is there. One that runs stays as it is."""
    return await here.part(Workspaces).begin(actor, group)


@router.post("/workspaces/{group}/open", status_code=201)
async def open_workspace(group: str, here: PlatformDep, actor: ActorDep) -> OpeningRecord:
    """An address that opens one's own workspace in a browser, once, within a minute."""
    path, ticket = await here.part(Workspaces).ticket(actor, group)
    path = f"{path}?ticket={quote(ticket)}"
    port = here.standing.workspace_port
    known = here.config.workspace_url or sockets.url_of(here.config.control_host, port)
    return OpeningRecord(url=f"{known}{path}", port=port, path=path)


@router.delete("/workspaces/{group}", status_code=204)
async def stop_workspace(
    group: str, here: PlatformDep, actor: ActorDep, user: str | None = None
) -> Response:
    """Stop one's own, or that of `user`; the files in the group's folder stay."""
    await here.part(Workspaces).end(actor, group, user)
    return Response(status_code=204)


@router.get("/workspaces/{group}/folders")
async def list_folders(group: str, here: PlatformDep, actor: ActorDep) -> Listing[FolderRecord]:
    """The folders of the group's workspace folder that hold the main file of a model."""
    return await here.part(Workspaces).folders(actor, group)
