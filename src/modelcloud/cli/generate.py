"""`modelcloud generate`: the systemd unit and the nginx site for a `modelcloud serve` command line.

Must never: start or change anything but the file it is told to write.
"""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from modelcloud.cli import serve
from modelcloud.config import ServeConfig
from modelcloud.errors import UsageError

app = typer.Typer(help="Write what stands around a server in production.")

#: What it does not know is for `modelcloud serve`.
_AND_THOSE_OF_SERVE = {"ignore_unknown_options": True, "allow_extra_args": True}
#: Values that name a file or folder.
_PATHS = {"PATH", "DIR"}
_SECRET = {"admin_token", "admin_token_file"}

Output = Annotated[
    Path | None, typer.Option(metavar="PATH", help="File to write; without it, it is printed.")
]


@app.command(context_settings=_AND_THOSE_OF_SERVE)
def systemd(
    context: typer.Context,
    *,
    user: Annotated[
        str, typer.Option(metavar="NAME", help="Whom the server runs as; else who you are.")
    ] = "",
    group: Annotated[
        str, typer.Option(metavar="NAME", help="Its group; with --uds, one that nginx is in.")
    ] = "",
    working_directory: Annotated[
        str, typer.Option(metavar="DIR", help="Where it is started; else here.")
    ] = "",
    output: Output = None,
) -> None:
    """Write a systemd unit. Takes TARGET and every option of `modelcloud serve`."""
    from modelcloud.generate.systemd import Surroundings, unit
    from modelcloud.serve.settings import checked

    config, command_line = _parsed(context.args)
    token_file = command_line.params["admin_token_file"]
    if config.admin_token and token_file is None:
        raise typer.BadParameter(
            "the admin token cannot stand in a unit, which every user may read; put it into a file "
            "and give --admin-token-file"
        )
    target = _absolute_target(config.target)
    arguments, paths = _arguments(command_line)
    positional = () if command_line.params["model"] else (target,)
    around = Surroundings(
        program=_program(),
        arguments=(*positional, *arguments),
        folder=_full(working_directory),
        user=user or _own_name(),
        group=group,
        token_file=_full(token_file) if token_file else "",
        paths=(target, *paths),
    )
    _write(unit(checked(config), around), output)


@app.command(context_settings=_AND_THOSE_OF_SERVE)
def nginx(
    context: typer.Context,
    *,
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Port, or address and port, of the site.")
    ] = "80",
    server_name: Annotated[
        str, typer.Option(metavar="NAMES", help="Host names of the site, separated by spaces.")
    ] = "_",
    expose_admin: Annotated[
        bool,
        typer.Option("--expose-admin", metavar="", help="Pass on /setup, /meta, /metrics … too."),
    ] = False,
    web_app: Annotated[
        bool,
        typer.Option("--web-app", metavar="", help="TARGET is a WSGI application: / is its own."),
    ] = False,
    output: Output = None,
) -> None:
    """Write an nginx site. Takes TARGET and every option of `modelcloud serve`."""
    from modelcloud.generate.nginx import site
    from modelcloud.serve.settings import checked

    config, _ = _parsed(context.args)
    text = site(
        checked(config),
        listen=listen,
        server_name=server_name,
        expose_admin=expose_admin,
        web_app=web_app,
    )
    _write(text, output)


def _parsed(arguments: list[str]) -> tuple[ServeConfig, typer.Context]:
    """The settings that `modelcloud serve` would serve with, and its command line as read."""
    command: Any = typer.main.get_command(_serve_alone)
    taken: list[ServeConfig] = []
    context = command.make_context("modelcloud serve", list(arguments), obj=taken.append)
    with context:
        command.invoke(context)
    return taken[0], context


_serve_alone = typer.Typer(add_completion=False)
_serve_alone.command()(serve.serve)


def _arguments(context: typer.Context) -> tuple[list[str], list[str]]:
    """The options given to `serve` once more, paths absolute; and those paths."""
    out: list[str] = []
    paths: list[str] = []
    given = serve.given(context) - _SECRET
    for parameter in context.command.params:
        name = parameter.name or ""
        if parameter.param_type_name != "option" or name not in given:
            continue
        flag = parameter.opts[0]
        value = context.params[name]
        if value is True:
            out.append(flag)
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            text = _text(one)
            if parameter.metavar in _PATHS:
                text = _absolute(name, text)
                paths.append(text)
            out += [flag, text]
    return out, paths


def _text(value: object) -> str:
    """A value as the command line takes it."""
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return str(getattr(value, "value", value))


def _absolute(name: str, text: str) -> str:
    if name == "python":
        return shutil.which(text) or text
    is_made_later = name in {"uds", "log_dir"}
    return _full(text) if is_made_later or Path(text).exists() else text


def _absolute_target(target: str) -> str:
    from modelcloud.serve.settings import split_target

    place, name = split_target(target)
    if Path(place).exists():
        place = _full(place)
    elif "/" in place or place.endswith(".py"):
        raise UsageError(f"{place} is not there; accepted: a file, a folder or module:function")
    return f"{place}:{name}" if name else place


def _full(path: str | Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 — a link stays one: what it leads to may change


def _program() -> str:
    """The script that this is run by, or the one beside this interpreter."""
    called = Path(sys.argv[0])
    script = called if called.name == "modelcloud" else Path(sys.executable).with_name("modelcloud")
    if not script.is_file():
        raise UsageError(f"{script} is not there; run this as `modelcloud generate systemd`")
    return _full(script)


def _own_name() -> str:
    if os.getuid() == 0:
        raise typer.BadParameter(
            "name whom the server is to run as with --user; models are no code to run as root"
        )
    return pwd.getpwuid(os.getuid()).pw_name


def _write(text: str, output: Path | None) -> None:
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror}") from None
