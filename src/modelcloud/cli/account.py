"""`login`, `logout`, `whoami`, `passwd` and `tokens`: who one is on a platform.

Must never: take a password as an argument, where others on this machine can read it.
"""

from __future__ import annotations

import os
import sys
from getpass import getpass
from typing import Annotated

import typer

from modelcloud.cli import parse, session, show
from modelcloud.errors import Unauthorized, UsageError

PASSWORD_VARIABLE = "MODELCLOUD_PASSWORD"  # noqa: S105 — the variable's name

tokens = typer.Typer(help="Tokens: who presents one may do what it says.", no_args_is_help=True)


def login(
    url: Annotated[
        str, typer.Argument(metavar="[URL]", help="The platform's control plane.")
    ] = session.DEFAULT_URL,
    user: Annotated[
        str | None, typer.Option("--user", "-u", metavar="NAME", help="Who signs in.")
    ] = None,
    as_json: show.Json = False,
) -> None:
    """Sign in at a platform; later commands are this user's.

    The password is asked for, or read from MODELCLOUD_PASSWORD or a pipe.
    """
    from modelcloud.platform import Platform

    if user is None:
        if not sys.stdin.isatty():
            raise UsageError("who signs in? name --user")
        user = str(typer.prompt("User", err=True))
    with Platform(url) as platform:
        answer = platform.sign_in(user, password("Password: "))
        session.remember(platform.url, answer["token"])
    record = {name: value for name, value in answer.items() if name != "token"}
    show.said(f"signed in at {platform.url} as {user}", record, as_json=as_json)
    if answer["must_change_password"]:
        print("change your password first: modelcloud passwd", file=sys.stderr)


def logout(url: session.Url = None) -> None:
    """End the session; its token is worth nothing from now on."""
    kept = session.remembered()
    with session.connect(url) as platform:
        try:
            platform.sign_out()
        except Unauthorized:
            pass  # it has ended already
        finally:
            if kept.get("url") == platform.url:
                session.forget()
    print("signed out")


def whoami(url: session.Url = None, as_json: show.Json = False) -> None:
    """Show who one is, and one's level in each group."""
    with session.connect(url) as platform:
        record = platform.whoami()
    if as_json:
        show.as_text(record)
        return
    groups = record.pop("groups")
    show.one(record)
    show.listed(groups, ("group", "level"))


def passwd(url: session.Url = None) -> None:
    """Change one's own password. From a pipe: the current one, then the new one."""
    with session.connect(url) as platform:
        current = password("Current password: ")
        platform.change_password(current, new_password())
    print("password changed")


@tokens.command("list")
def list_tokens(
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help="Those of this user (administrators).")
    ] = None,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """One's own tokens and sessions, with their last use."""
    columns = ("id", "name", "kind", "group", "level", "expires_at", "last_used_at")
    with session.connect(url) as platform:
        show.listed(platform.tokens(user), columns, as_json=as_json)


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    level: Annotated[
        str,
        typer.Option(metavar="LEVEL", help="The most it may do: predict, read, modify or manage."),
    ] = "predict",
    group: Annotated[
        str | None, typer.Option(metavar="GROUP", help="The only group it opens; else all.")
    ] = None,
    expires_in: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", parser=parse.wait, help="When it ends; else never."),
    ] = None,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Make a token. It is shown this once."""
    with session.connect(url) as platform:
        record = platform.create_token(name, level, group, expires_in)
    show.said(record["token"], record, as_json=as_json)


@tokens.command("revoke")
def revoke_token(
    token_id: Annotated[
        int, typer.Argument(metavar="ID", parser=parse.count, help="As in `tokens list`.")
    ],
    url: session.Url = None,
) -> None:
    """Make a token or a session worthless at once."""
    with session.connect(url) as platform:
        platform.revoke_token(token_id)
    print(f"token {token_id} revoked")


def password(prompt: str) -> str:
    """A password from the environment, a pipe, or the terminal.

    Raises:
        UsageError: there is none.
    """
    given = os.environ.get(PASSWORD_VARIABLE)
    if given is None:
        given = getpass(prompt) if sys.stdin.isatty() else _line()
    if not given:
        raise UsageError(f"no password came; type it, pipe it, or set {PASSWORD_VARIABLE}")
    return given


def new_password(prompt: str = "New password: ") -> str:
    """A new password, typed twice on a terminal, else the next line of a pipe.

    Raises:
        UsageError: there is none, or the two differ.
    """
    if not sys.stdin.isatty():
        given = _line()
        if not given:
            raise UsageError("no new password came; pipe it as a line of its own")
        return given
    given = getpass(prompt)
    if getpass("Again: ") != given:
        raise UsageError("the two passwords differ; nothing was changed")
    return given


def _line() -> str:
    return sys.stdin.readline().rstrip("\r\n")
