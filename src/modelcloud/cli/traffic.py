"""`traffic` and `label`: how requests that name no version, or a label, find one.

Must never: overwrite what another changed in the meantime.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from modelcloud.cli import parse, session, show
from modelcloud.cli.services import Service
from modelcloud.errors import NotFound


def traffic(
    service: Service,
    weight: Annotated[
        list[str] | None,
        typer.Option("--weight", "-w", metavar="VERSION=N", help="Its share; repeat it."),
    ] = None,
    shadow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VERSION=SHARE",
            help="Copy this share (0 to 1) of the others' requests to it, and to no other version "
            "than those named; repeat it. VERSION=0 ends it.",
        ),
    ] = None,
    sticky: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:NAME",
            help="Keep a client at one version by header:NAME, cookie:NAME or body:KEY; or none.",
        ),
    ] = None,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Show or change how requests that name no version are shared."""
    changes: dict[str, Any] = {}
    if weight:
        changes["weights"] = _numbers("--weight", weight)
    if shadow:
        changes["shadow"] = _numbers("--shadow", shadow)
    if sticky is not None:
        changes["sticky"] = _sticky(sticky)
    with session.connect(url) as platform:
        change = platform.set_traffic if changes else platform.traffic
        show.one(change(service, **changes), as_json=as_json)


def label(
    service: Service,
    name: Annotated[str, typer.Argument(metavar="LABEL", help="Such as stable or canary.")],
    version: Annotated[
        int | None,
        typer.Argument(metavar="[VERSION]", parser=parse.count, help="Where it is to lead."),
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", metavar="", help="Have it lead nowhere any more.")
    ] = False,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Have a label lead to a version, from wherever it led before, or to none."""
    if (version is None) is not remove:
        raise typer.BadParameter("accepted: a VERSION, or --remove")
    with session.connect(url) as platform:
        now = platform.traffic(service)
        labels = {label: to for label, to in now["labels"].items() if label != name}
        if remove and len(labels) == len(now["labels"]):
            there = ", ".join(labels) or "none"
            raise NotFound(f"{service} has no label {name}; there are: {there}")
        if version is not None:
            labels[name] = version
        record = platform.set_traffic(service, labels=labels, revision=now["revision"])
    leads = "leads nowhere any more" if version is None else f"leads to version {version}"
    show.said(f"/predict/{service}/{name} {leads}", record, as_json=as_json)


def _numbers(flag: str, texts: list[str]) -> dict[str, float]:
    found = {}
    for text in texts:
        version, _, number = text.partition("=")
        try:
            found[str(parse.count(version))] = parse.amount(number)
        except typer.BadParameter:
            raise typer.BadParameter(f"{flag} {text}: accepted: VERSION=NUMBER") from None
    return found


def _sticky(text: str) -> dict[str, str] | None:
    if text == "none":
        return None
    kind, colon, name = text.partition(":")
    if not colon or not name:
        raise typer.BadParameter(f"--sticky {text}: accepted: header:, cookie: or body:NAME, none")
    return {"kind": kind, "name": name}
