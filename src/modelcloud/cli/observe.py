"""`logs` and `metrics`: what happened, and how it fares.

Must never: let what a model printed steer the terminal.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from modelcloud.cli import parse, session, show
from modelcloud.cli.services import Service

COLUMNS = (
    "at", "requests", "errors", "p50_ms", "p95_ms", "p99_ms", "queue_ms", "in_flight",
    "batch_size", "memory", "cpu",
)  # fmt: skip
SHADOW_COLUMNS = ("shadowed", "shadow_same", "shadow_different")


def logs(
    service: Service,
    version: Annotated[
        int | None,
        typer.Argument(
            metavar="[VERSION]",
            parser=parse.count,
            help="Its application log; without it, the deployment log of the service.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", metavar="", help="Go on as lines are written.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", parser=parse.count, help="The last ones.")
    ] = 100,
    replica: Annotated[
        int | None, typer.Option(metavar="N", parser=parse.count, help="Of this worker only.")
    ] = None,
    q: Annotated[
        str | None, typer.Option("--search", metavar="TEXT", help="Lines that hold it.")
    ] = None,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Show the steps of rollouts, or what a version's workers wrote.

    With --follow, --json prints an object for each line.
    """
    query = {"replica": replica, "q": q}
    with session.connect(url) as platform:
        if follow:
            for line in platform.follow_logs(service, version, lines=lines, **query):
                _line(line, as_json=as_json)
            return
        record = platform.logs(service, version, lines=lines, **query)
    if as_json:
        show.as_text(record)
        return
    for line in record["lines"]:
        _line(line)


def metrics(
    service: Service,
    version: Annotated[
        int | None,
        typer.Argument(
            metavar="[VERSION]", parser=parse.count, help="Only this one; else all together."
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From this time on, ISO 8601; else an hour.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Up to this time, ISO 8601; else now.")
    ] = None,
    span: Annotated[
        int | None,
        typer.Option(metavar="SECONDS", parser=parse.count, help="Of a point, a multiple of 10."),
    ] = None,
    curves: Annotated[
        bool, typer.Option("--curves", metavar="", help="The training curves of VERSION instead.")
    ] = False,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Show how a service or a version fared over time, or how a version was trained.

    The table has the points at which there were requests, and the last with a worker.
    """
    if curves and version is None:
        raise typer.BadParameter("--curves goes with a VERSION")
    with session.connect(url) as platform:
        if curves and version is not None:
            _curves(platform.curves(service, version), as_json=as_json)
            return
        record = platform.metrics(service, version, since=since, until=until, span=span)
    if as_json:
        show.as_text(record)
        return
    points = record["points"]
    last = next((point for point in reversed(points) if point["memory"]), None)
    asked = [point for point in points if point["requests"] or point["shadowed"] or point is last]
    columns = COLUMNS + (SHADOW_COLUMNS if any(point["shadowed"] for point in asked) else ())
    show.listed(asked, columns)


def _curves(record: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show.as_text(record)
        return
    points = [
        {"series": name, "step": step, "value": value}
        for name, series in record["curves"].items()
        for step, value in series
    ]
    show.listed(points, ("series", "step", "value"))


def _line(line: dict[str, Any], *, as_json: bool = False) -> None:
    if as_json:
        show.as_text(line, indent=None)
        return
    source = f"{line['source']} | " if line["source"] else ""
    print(show.plain(f"{line['at']} {source}{line['text']}".lstrip()), flush=True)
