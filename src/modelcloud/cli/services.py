"""`services`, `service`, `register`, `versions` and what changes them.

Must never: import a model; the platform does that, in a process of its own.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelcloud.cli import parse, session, show
from modelcloud.errors import ModelcloudError, UsageError

if TYPE_CHECKING:
    from modelcloud.platform import Platform

VERSION_COLUMNS = (
    "version", "status", "runtime", "enabled", "metrics", "size", "created_by", "created_at",
    "description",
)  # fmt: skip
DEPLOYMENT_COLUMNS = (
    "version", "status", "state", "ready", "replicas", "instance_type", "weight", "labels",
    "answers", "deployed_by", "reason",
)  # fmt: skip

Service = Annotated[str, typer.Argument(metavar="SERVICE", help="Name of the service.")]
Version = Annotated[
    int, typer.Argument(metavar="VERSION", parser=parse.count, help="Number of the version.")
]
Route = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="A further address of its prediction; '': none."),
]
Method = Annotated[
    str | None,
    typer.Option(metavar="METHOD", help="The only one that the route answers; any: GET and POST."),
]
RoutePort = Annotated[
    int | None,
    typer.Option(
        metavar="N", parser=parse.port, help="Where the route is; 0: at the platform's port."
    ),
]
Description = Annotated[str | None, typer.Option(metavar="TEXT", help="For people.")]


def services(
    group: Annotated[str | None, typer.Option(metavar="GROUP", help="Of this group.")] = None,
    state: Annotated[
        str | None,
        typer.Option(
            metavar="STATE", help="With a version that is Deploying, Serving, Failed or Offline."
        ),
    ] = None,
    q: Annotated[
        str | None,
        typer.Option("--search", metavar="TEXT", help="With this in the name or description."),
    ] = None,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """List the services one may see."""
    with session.connect(url) as platform:
        records = platform.services(group=group, state=state, q=q)
    if as_json:
        show.as_text(records)
        return
    rows = [
        {
            **record,
            "deployed": [f"{d['version']} {d['status']}" for d in record["deployments"]],
        }
        for record in records
    ]
    show.listed(rows, ("name", "group", "status", "deployed", "versions", "port", "description"))


def service(service: Service, url: session.Url = None, as_json: show.Json = False) -> None:
    """Show a service: what is registered, what is online."""
    with session.connect(url) as platform:
        record = platform.service(service)
        versions, deployments = platform.versions(service), platform.deployments(service)
    if as_json:
        show.as_text({**record, "versions": versions, "deployments": deployments})
        return
    show.one({name: value for name, value in record.items() if name != "deployments"})
    show.listed(versions, VERSION_COLUMNS)
    if deployments:
        show.listed(deployments, DEPLOYMENT_COLUMNS)


def versions(service: Service, url: session.Url = None, as_json: show.Json = False) -> None:
    """List the versions of a service."""
    with session.connect(url) as platform:
        show.listed(platform.versions(service), VERSION_COLUMNS, as_json=as_json)


def register(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="The model's folder; or FILE.py or FILE.py:NAME in it; or an archive.",
        ),
    ],
    *,
    service: Annotated[
        str, typer.Option("--service", "-s", metavar="SERVICE", help="Made if it is new.")
    ],
    group: Annotated[
        str | None,
        typer.Option(
            "--group", "-g", metavar="GROUP", help="Of a service that is new; else one's own."
        ),
    ] = None,
    main: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="The served file, FILE.py or FILE.py:NAME; else the obvious one."
        ),
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(metavar="N", parser=parse.count, help="Its number; else the next one."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="An option of setup; repeat it."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME=VALUE", help="A metric of the model; repeat it."),
    ] = None,
    description: Description = None,
    requirements: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its packages; else requirements.txt of the folder."),
    ] = None,
    python: Annotated[
        str | None, typer.Option(metavar="PATH", help="Interpreter, on the server.")
    ] = None,
    model_path: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="In the files, for InferenceService and the like."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="N", parser=parse.port, help="A port of its own for a new service."),
    ] = None,
    disabled: Annotated[
        bool, typer.Option("--disabled", metavar="", help="It may not be deployed yet.")
    ] = False,
    on_server: Annotated[
        bool, typer.Option("--on-server", metavar="", help="PATH is one of the server's own.")
    ] = False,
    from_workspace: Annotated[
        bool,
        typer.Option(
            "--from-workspace", metavar="", help="PATH is a folder in the group's workspace."
        ),
    ] = False,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Register a version; the model is imported once to see what it offers."""
    fields: dict[str, Any] = {
        "group": group,
        "main": main,
        "version": version,
        "options_text": parse.pairs(option) if option else None,
        "metrics": _metrics(metric),
        "description": description,
        "requirements": _text(requirements),
        "python": python,
        "model_path": model_path,
        "port": port,
        "enabled": False if disabled else None,
    }
    if on_server and from_workspace:
        raise typer.BadParameter("name one of --on-server and --from-workspace")
    with session.connect(url) as platform:
        if on_server or from_workspace:
            place = {"folder" if from_workspace else "path": path.as_posix()}
            record = session.once(
                lambda key: platform.register(service, idempotency_key=key, **place, **fields)
            )
        else:
            record = _sent(platform, path, service, fields)
    commands = ", ".join(command["name"] for command in record["signature"]["commands"])
    show.said(
        f"registered {service} version {record['version']} ({record['runtime']}: {commands})",
        record,
        as_json=as_json,
    )


def create_service(
    service: Service,
    group: Annotated[
        str | None, typer.Option("--group", "-g", metavar="GROUP", help="Else one's own.")
    ] = None,
    description: Description = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="N", parser=parse.port, help="A port of its own."),
    ] = None,
    route: Route = None,
    method: Method = None,
    route_port: RoutePort = None,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Make a service without versions; the first `register` makes one too."""
    fields = {
        "description": description, "port": port or None, "route": route, "method": method,
        "route_port": route_port,
    }  # fmt: skip
    given = {name: value for name, value in fields.items() if value is not None}
    with session.connect(url) as platform:
        place = group or platform.whoami()["user"]
        record = session.once(
            lambda key: platform.create_service(service, place, idempotency_key=key, **given)
        )
    show.said(f"service {service} made in group {place}", record, as_json=as_json)


def edit_service(
    service: Service,
    description: Description = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="N", parser=parse.port, help="A port of its own; 0: none."),
    ] = None,
    route: Route = None,
    method: Method = None,
    route_port: RoutePort = None,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Change what may be changed of a service."""
    changes: dict[str, Any] = {}
    if description is not None:
        changes["description"] = description
    if port is not None:
        changes["port"] = port or None
    if route is not None:
        changes["route"] = route or None
    changes |= {
        name: value
        for name, value in (("method", method), ("route_port", route_port))
        if value is not None
    }
    if not changes:
        raise typer.BadParameter(
            "nothing to change; name --description, --port, --route, --method or --route-port"
        )
    with session.connect(url) as platform:
        record = platform.edit_service(service, **changes)
    show.said(f"{service} changed", record, as_json=as_json)


def edit_version(
    service: Service,
    version: Version,
    description: Description = None,
    enabled: Annotated[
        bool | None,
        typer.Option("--enable/--disable", metavar="", help="Whether it may be deployed."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME=VALUE", help="In place of all it has; repeat it."),
    ] = None,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Change what may be changed of a version; its files never are."""
    metrics = _metrics(metric)
    changes = {"description": description, "enabled": enabled, "metrics": metrics}
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    if not given:
        raise typer.BadParameter(
            "nothing to change; name --description, --enable, --disable or --metric"
        )
    with session.connect(url) as platform:
        record = platform.edit_version(service, version, **given)
    show.said(f"{service} version {version} changed", record, as_json=as_json)


def delete(
    service: Service,
    version: Annotated[
        int | None,
        typer.Argument(
            metavar="[VERSION]", parser=parse.count, help="Only this one, which is not deployed."
        ),
    ] = None,
    yes: session.Yes = False,
    url: session.Url = None,
) -> None:
    """Delete a version, or a service with all its versions, online or not."""
    what = f"{service} with all its versions" if version is None else f"{service} version {version}"
    session.confirm(what, yes=yes)
    with session.connect(url) as platform:
        if version is None:
            platform.delete_service(service)
        else:
            platform.delete_version(service, version)
    print(f"{what} deleted")


def _sent(platform: Platform, path: Path, service: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The version that a path became; a bar shows how far its archive is."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from modelcloud.cli.pack import packed

    columns = ("sending", BarColumn(bar_width=24), DownloadColumn(), TransferSpeedColumn())
    shown = Console(stderr=True)
    with (
        packed(path, fields["main"] or "") as (archive, main),
        Progress(*columns, console=shown, disable=not shown.is_terminal, transient=True) as bar,
    ):
        task = bar.add_task("", total=archive.stat().st_size)
        upload = platform.upload(archive, lambda sent, _: bar.update(task, completed=sent))
    asked = {**fields, "main": main or None, "upload": upload["upload"]}
    try:
        return session.once(lambda key: platform.register(service, idempotency_key=key, **asked))
    except ModelcloudError:
        with contextlib.suppress(ModelcloudError):  # it is forgotten after a day all the same
            platform.delete_upload(upload["upload"])
        raise


def _metrics(texts: list[str] | None) -> dict[str, Any] | None:
    """Metrics by name: what is JSON is read as that, the rest is text."""
    if not texts:
        return None

    return {name: parse.value(text) for name, text in parse.pairs(texts, "--metric").items()}


def _text(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--requirements {path}: {error}") from None
