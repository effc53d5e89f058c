"""The `modelcloud` command: its sub-commands, and how a failure is told.

Must never: show a traceback for a user's mistake, or import at start what only one sub-command
needs (httpx, progress bars).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from modelcloud import __version__
from modelcloud.cli import (
    account,
    apply,
    cluster,
    deploy,
    generate,
    instance,
    monitor,
    monitors,
    observe,
    packages,
    people,
    serve,
    services,
    show,
    status,
    traffic,
    up,
    update,
    workspaces,
)
from modelcloud.errors import ModelcloudError, UsageError

app = typer.Typer(
    name="modelcloud",
    help="Serve Python models that are replaced while they serve.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve.serve)
app.command()(up.up)
app.command()(up.reset_admin)
app.command()(update.update)
app.command()(update.rollback)
app.command()(status.status)
app.command()(monitor.monitor)
app.add_typer(generate.app, name="generate")
app.add_typer(cluster.app, name="cluster")
app.add_typer(packages.new, name="new")
app.command()(packages.check)
app.command()(packages.call)
for command in (
    account.login, account.logout, account.whoami, account.passwd,
    services.services, services.service, services.register, services.versions,
    services.create_service, services.edit_service, services.edit_version, services.delete,
    deploy.deploy, deploy.deployments, deploy.redeploy, deploy.start, deploy.stop, deploy.scale,
    deploy.undeploy, deploy.rollouts, apply.apply, traffic.traffic, traffic.label,
    observe.logs, observe.metrics, instance.node, instance.audit,
):  # fmt: skip
    app.command(rich_help_panel="Platform")(command)
for name, family in (
    ("monitors", monitors.monitors),
    ("workspaces", workspaces.workspaces),
    ("tokens", account.tokens),
    ("users", people.users),
    ("groups", people.groups),
    ("instance-types", instance.instance_types),
):
    app.add_typer(family, name=name, rich_help_panel="Platform")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", metavar="", help="Print the version.")
    ] = False,
) -> None:
    if version:
        print(f"modelcloud {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status: 0, 1 for a failure, 2 for wrong usage."""
    try:
        return app(arguments, prog_name="modelcloud", standalone_mode=False) or 0
    except typer.TyperException as error:
        return _fail(error.format_message(), error.exit_code)
    except ModelcloudError as error:
        return _fail(error.message, 2 if isinstance(error, UsageError) else 1)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:  # who reads has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        return 1


def _fail(message: str, status: int) -> int:
    told = show.plain(" ".join(message.replace("Value error, ", "").split()))  # pydantic's
    print(f"modelcloud: {told}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
