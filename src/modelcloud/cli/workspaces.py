"""`workspaces`: a JupyterLab of one's own in a folder of the group.

Must never: run a notebook; the platform does, in a process of its own.
"""

from __future__ import annotations

from typing import Annotated

import typer

from modelcloud.cli import session, show

workspaces = typer.Typer(
    help="Workspaces: a JupyterLab in a folder of the group.", no_args_is_help=True
)

Group = Annotated[
    str | None, typer.Argument(metavar="[GROUP]", help="Of this group; else one's own.")
]


@workspaces.command("list")
def list_workspaces(url: session.Url = None, as_json: show.Json = False) -> None:
    """List one's own, and those in the groups that one manages."""
    columns = ("group", "user", "state", "started_at", "memory")
    with session.connect(url) as platform:
        show.listed(platform.workspaces(), columns, as_json=as_json)


@workspaces.command("start")
def start_workspace(
    group: Group = None, url: session.Url = None, as_json: show.Json = False
) -> None:
    """Start one's own, and say where a browser gets into it: once, within a minute."""
    with session.connect(url) as platform:
        place = group or platform.whoami()["user"]
        platform.start_workspace(place)
        record = platform.open_workspace(place)
    show.said(record["url"], record, as_json=as_json)


@workspaces.command("open")
def open_workspace(
    group: Group = None, url: session.Url = None, as_json: show.Json = False
) -> None:
    """Say where a browser gets into one's own: once, within a minute."""
    with session.connect(url) as platform:
        record = platform.open_workspace(group or platform.whoami()["user"])
    show.said(record["url"], record, as_json=as_json)


@workspaces.command("stop")
def stop_workspace(
    group: Group = None,
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help="That of this user, in a group one manages.")
    ] = None,
    url: session.Url = None,
) -> None:
    """Stop one with all that runs in it; the group's files stay."""
    with session.connect(url) as platform:
        place = group or platform.whoami()["user"]
        platform.stop_workspace(place, user)
    print(f"the workspace in group {place} is stopped")


@workspaces.command("folders")
def list_folders(group: Group = None, url: session.Url = None, as_json: show.Json = False) -> None:
    """List what in the group's folder can be registered, with `register --from-workspace`."""
    with session.connect(url) as platform:
        found = platform.workspace_folders(group or platform.whoami()["user"])
    show.listed(found, ("folder", "main"), as_json=as_json)
