"""`users` and `groups`: who there is, and who may do what where.

Must never: take a password as an argument, where others on this machine can read it.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from modelcloud.cli import account, parse, session, show

users = typer.Typer(help="Users (for administrators).", no_args_is_help=True)
groups = typer.Typer(help="Groups: they own services and are shared.", no_args_is_help=True)

User = Annotated[str, typer.Argument(metavar="USER", help="Name of the user.")]
MustChange = Annotated[
    bool,
    typer.Option(
        "--must-change", metavar="", help="Nothing but a change of the password is open to them."
    ),
]
Group = Annotated[str, typer.Argument(metavar="GROUP", help="Name of the group.")]


@users.command("list")
def list_users(url: session.Url = None, as_json: show.Json = False) -> None:
    """All users."""
    with session.connect(url) as platform:
        show.listed(
            platform.users(), ("name", "is_admin", "disabled", "created_at"), as_json=as_json
        )


@users.command("create")
def create_user(
    user: User,
    admin: Annotated[
        bool, typer.Option("--admin", metavar="", help="May manage users, types and quotas.")
    ] = False,
    must_change: MustChange = False,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Make a user, and a group of the same name. The password is asked for, or piped."""
    with session.connect(url) as platform:
        record = platform.create_user(
            user, account.new_password(), is_admin=admin, must_change_password=must_change
        )
    show.said(f"user {user} made", record, as_json=as_json)


@users.command("edit")
def edit_user(
    user: User,
    admin: Annotated[
        bool | None,
        typer.Option("--admin/--no-admin", metavar="", help="Give or take the right to manage."),
    ] = None,
    disabled: Annotated[
        bool | None,
        typer.Option("--disable/--enable", metavar="", help="Lock out at once, or let in again."),
    ] = None,
    new_password: Annotated[
        bool, typer.Option("--password", metavar="", help="Set a new password; it is asked for.")
    ] = False,
    must_change: MustChange = False,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Change a user."""
    changes = {"is_admin": admin, "disabled": disabled}
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    if new_password:
        given["password"] = account.new_password()
    if must_change:
        given["must_change_password"] = True
    if not given:
        raise typer.BadParameter(
            "nothing to change; name --admin, --disable, --password or --must-change"
        )
    with session.connect(url) as platform:
        record = platform.edit_user(user, **given)
    show.said(f"user {user} changed", record, as_json=as_json)


@users.command("delete")
def delete_user(user: User, yes: session.Yes = False, url: session.Url = None) -> None:
    """Remove a user; their tokens are worth nothing from now on."""
    session.confirm(f"user {user}", yes=yes)
    with session.connect(url) as platform:
        platform.delete_user(user)
    print(f"user {user} deleted")


@groups.command("list")
def list_groups(url: session.Url = None, as_json: show.Json = False) -> None:
    """The groups one may see."""
    with session.connect(url) as platform:
        columns = ("name", "level", "public_predictions", "description")
        show.listed(platform.groups(), columns, as_json=as_json)


@groups.command("show")
def show_group(group: Group, url: session.Url = None, as_json: show.Json = False) -> None:
    """A group, its quota and its members."""
    with session.connect(url) as platform:
        record = {**platform.group(group), "members": platform.members(group)}
    if as_json:
        show.as_text(record)
        return
    members = record.pop("members")
    show.one(record)
    show.listed(members, ("user", "level"))


@groups.command("create")
def create_group(
    group: Group,
    description: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.")] = "",
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Make a group that one manages."""
    with session.connect(url) as platform:
        record = platform.create_group(group, description)
    show.said(f"group {group} made", record, as_json=as_json)


@groups.command("edit")
def edit_group(
    group: Group,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is for.")] = None,
    public: Annotated[
        bool | None,
        typer.Option(
            "--public/--token-only", metavar="", help="Who may ask its models: anyone, or a token."
        ),
    ] = None,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Change a group."""
    changes = {"description": description, "public_predictions": public}
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    if not given:
        raise typer.BadParameter("nothing to change; name --description, --public or --token-only")
    with session.connect(url) as platform:
        record = platform.edit_group(group, **given)
    show.said(f"group {group} changed", record, as_json=as_json)


@groups.command("delete")
def delete_group(group: Group, yes: session.Yes = False, url: session.Url = None) -> None:
    """Remove a group that has no services."""
    session.confirm(f"group {group}", yes=yes)
    with session.connect(url) as platform:
        platform.delete_group(group)
    print(f"group {group} deleted")


@groups.command("share")
def share(
    group: Group,
    user: User,
    level: Annotated[
        str, typer.Argument(metavar="LEVEL", help="read, modify or manage; each holds the former.")
    ],
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Let a user read, modify or manage a group."""
    with session.connect(url) as platform:
        record = platform.share(group, user, level)
    show.said(f"{user} may {level} {group}", record, as_json=as_json)


@groups.command("unshare")
def unshare(group: Group, user: User, url: session.Url = None) -> None:
    """Take a user's level in a group away."""
    with session.connect(url) as platform:
        platform.unshare(group, user)
    print(f"{group} is no longer shared with {user}")


@groups.command("quota")
def quota(
    group: Group,
    cpu: Annotated[
        float | None, typer.Option(metavar="N", parser=parse.amount, help="Processors.")
    ] = None,
    memory: Annotated[
        int | None, typer.Option(metavar="BYTES", parser=parse.memory, help="Memory.")
    ] = None,
    gpu: Annotated[
        float | None, typer.Option(metavar="N", parser=parse.amount, help="Devices.")
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(metavar="N", parser=parse.whole, help="Workers.")
    ] = None,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Bound what a group uses together; what is not named is not bounded."""
    with session.connect(url) as platform:
        record = platform.set_quota(group, cpu=cpu, memory=memory, gpu=gpu, replicas=replicas)
    show.said(f"quota of {group} set", record, as_json=as_json)
