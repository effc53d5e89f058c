"""`instance-types`, `node` and `audit`: what an administrator looks after.

Must never: change what runs; an instance type is for what is deployed from now on.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from modelcloud.cli import parse, session, show

instance_types = typer.Typer(
    help="Instance types: named resources of one replica.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the instance type.")]
Cpu = Annotated[
    float | None,
    typer.Option(metavar="N", parser=parse.amount, help="Processors; 0 does not limit."),
]
Memory = Annotated[
    int | None,
    typer.Option(metavar="BYTES", parser=parse.memory, help="Memory, as 512M; 0: no limit."),
]
Gpu = Annotated[
    float | None,
    typer.Option(metavar="N", parser=parse.amount, help="Devices; a fraction shares one."),
]
Description = Annotated[str | None, typer.Option(metavar="TEXT", help="What it is for.")]


@instance_types.command("list")
def list_types(url: session.Url = None, as_json: show.Json = False) -> None:
    """All instance types."""
    with session.connect(url) as platform:
        columns = ("name", "cpu", "memory", "gpu", "description")
        show.listed(platform.instance_types(), columns, as_json=as_json)


@instance_types.command("create")
def create_type(
    name: Name,
    cpu: Cpu = None,
    memory: Memory = None,
    gpu: Gpu = None,
    description: Description = None,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Make an instance type."""
    with session.connect(url) as platform:
        record = platform.create_instance_type(name, **_given(cpu, memory, gpu, description))
    show.said(f"instance type {name} made", record, as_json=as_json)


@instance_types.command("edit")
def edit_type(
    name: Name,
    cpu: Cpu = None,
    memory: Memory = None,
    gpu: Gpu = None,
    description: Description = None,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Change an instance type, for what is deployed from now on."""
    given = _given(cpu, memory, gpu, description)
    if not given:
        raise typer.BadParameter("nothing to change; name --cpu, --memory, --gpu or --description")
    with session.connect(url) as platform:
        record = platform.edit_instance_type(name, **given)
    show.said(f"instance type {name} changed", record, as_json=as_json)


@instance_types.command("delete")
def delete_type(name: Name, yes: session.Yes = False, url: session.Url = None) -> None:
    """Remove an instance type; what is deployed with it stays as it is."""
    session.confirm(f"instance type {name}", yes=yes)
    with session.connect(url) as platform:
        platform.delete_instance_type(name)
    print(f"instance type {name} deleted")


def node(url: session.Url = None, as_json: show.Json = False) -> None:
    """Show what the node has, and what of it is in use."""
    with session.connect(url) as platform:
        record = platform.node()
    if as_json:
        show.as_text(record)
        return
    groups = record.pop("groups")
    show.one(record)
    show.listed(groups, ("group", "in_use", "quota"))


def audit(
    actor: Annotated[str | None, typer.Option(metavar="USER", help="By whom.")] = None,
    action: Annotated[
        str | None, typer.Option(metavar="ACTION", help="What was done, as in the list.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="To what: service, group, user …")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="To which.")] = None,
    group: Annotated[str | None, typer.Option(metavar="GROUP", help="In which group.")] = None,
    peer: Annotated[str | None, typer.Option(metavar="ADDRESS", help="From where.")] = None,
    outcome: Annotated[
        str | None, typer.Option(metavar="OUTCOME", help="What came of it: ok, refused or failed.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From this time on, ISO 8601.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Up to this time, ISO 8601.")
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", parser=parse.count, help="At most so many, newest first.")
    ] = 100,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Show who did what, from where, and what came of it."""
    filters = {
        "actor": actor, "action": action, "kind": kind, "name": name, "group": group,
        "peer": peer, "outcome": outcome,
    }  # fmt: skip
    with session.connect(url) as platform:
        records = platform.audit(limit, since=since, until=until, **filters)
    columns = ("at", "actor", "action", "kind", "name", "group", "peer", "outcome", "detail")
    show.listed(records, columns, as_json=as_json)


def _given(
    cpu: float | None, memory: int | None, gpu: float | None, description: str | None
) -> dict[str, Any]:
    fields = {"cpu": cpu, "memory": memory, "gpu": gpu, "description": description}
    return {name: value for name, value in fields.items() if value is not None}
