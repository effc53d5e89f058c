"""`modelcloud update` and `modelcloud rollback`: ask a running server, and show how it goes.

Must never: call an update done before the server says that the switch is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelcloud.cli import parse, session, show
from modelcloud.types import Strategy

if TYPE_CHECKING:
    from modelcloud.client import Client

Url = Annotated[
    str,
    typer.Argument(
        metavar="URL", help="Where it is served, such as http://127.0.0.1:8080, or unix:PATH."
    ),
]
Place = Annotated[
    str,
    typer.Argument(
        metavar="URL|SERVICE",
        help="Where it is served, such as http://127.0.0.1:8080 or unix:PATH; with VERSION, the "
        "name of a service on the platform.",
    ),
]
OfPlatform = Annotated[
    int | None,
    typer.Argument(
        metavar="[VERSION]",
        parser=parse.count,
        help="Of a service on the platform: the one that is online.",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="The server's admin token. Others on this machine can read it; prefer a file, or "
        f"{parse.TOKEN_VARIABLE} in the environment.",
    ),
]
TokenFile = Annotated[
    Path | None, typer.Option(metavar="PATH", help="File whose first line is the admin token.")
]
NoWait = Annotated[
    bool,
    typer.Option("--no-wait", metavar="", help="Return once it is accepted; do not follow it."),
]

StrategyName = Annotated[
    Strategy | None, typer.Option(metavar="NAME", help=f"{parse.STRATEGIES}; else what is set.")
]
Steps = Annotated[
    list[str] | None,
    typer.Option("--step", metavar="PERCENT:SECONDS", help="With canary: a step; repeat it."),
]
MaxErrorRate = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE", parser=parse.share, help="With canary: errors (0 to 1) that send it back."
    ),
]
MaxP99 = Annotated[
    float | None,
    typer.Option(
        "--max-p99", metavar="MS", parser=parse.amount, help="With canary: p99 that sends it back."
    ),
]
MinRequests = Annotated[
    int | None,
    typer.Option(metavar="N", parser=parse.whole, help="With canary: answers before it is judged."),
]
MaxSurge = Annotated[
    int | None,
    typer.Option(
        metavar="N", parser=parse.whole, help="With rolling: workers beyond the replicas."
    ),
]
MaxUnavailable = Annotated[
    int | None,
    typer.Option(
        metavar="N", parser=parse.whole, help="With rolling: workers that may be missing."
    ),
]
#: Types whose JSON form is text: what stands on the command line is the value.
TEXT_TYPES = {"text", "file", "image", "directory"}


def update(
    place: Place,
    version: OfPlatform = None,
    *,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", metavar="NAME=VALUE", help="An option to change; repeat it."
        ),
    ] = None,
    artifact: Annotated[
        str | None, typer.Option(metavar="PATH", help="New files, as a path on the server.")
    ] = None,
    model_path: Annotated[
        str | None, typer.Option(metavar="PATH", help="New model files, as a path on the server.")
    ] = None,
    strategy: StrategyName = None,
    max_surge: MaxSurge = None,
    max_unavailable: MaxUnavailable = None,
    step: Steps = None,
    max_error_rate: MaxErrorRate = None,
    max_p99: MaxP99 = None,
    min_requests: MinRequests = None,
    no_wait: NoWait = False,
    token: Token = None,
    token_file: TokenFile = None,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Replace a served model while it serves; without changes, load its files again."""
    spec = parse.strategy(
        strategy, max_surge, max_unavailable, step, max_error_rate, max_p99, min_requests
    )
    if version is not None:
        from modelcloud.cli.deploy import update_deployment

        if artifact or model_path:
            raise typer.BadParameter("new files are a new version: `register`, then `deploy`")
        _refuse_tokens(token, token_file)
        update_deployment(place, version, option, spec, url=url, no_wait=no_wait, as_json=as_json)
        return
    _refuse_url(url)
    texts = parse.pairs(option or ())
    with connect(place, token, token_file) as client:
        options = typed(texts, client.meta()["options"]) if texts else {}
        answer = client.update(
            options, artifact=artifact, model_path=model_path, strategy=spec, wait=False
        )
        _watch(client, answer, no_wait=no_wait, as_json=as_json)


def rollback(
    place: Place,
    version: OfPlatform = None,
    *,
    no_wait: NoWait = False,
    token: Token = None,
    token_file: TokenFile = None,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Go back to the generation that served before."""
    if version is not None:
        from modelcloud.cli.deploy import roll_deployment_back

        _refuse_tokens(token, token_file)
        roll_deployment_back(place, version, url=url, no_wait=no_wait, as_json=as_json)
        return
    _refuse_url(url)
    with connect(place, token, token_file) as client:
        # A rollout that was on its way is called off: that too is going back.
        wanted = ("succeeded", "rolled_back")
        answer = client.rollback(wait=False)
        _watch(client, answer, no_wait=no_wait, as_json=as_json, wanted=wanted)


def connect(url: str, token: str | None, token_file: Path | None) -> Client:
    """A client for the address and token of a command line."""
    from modelcloud.client import Client

    return Client(url, parse.token(token, token_file) or None)


def typed(texts: Mapping[str, str], described: list[dict[str, Any]]) -> dict[str, Any]:
    """Options as typed → in JSON form, by the types that the server describes.

    What is no JSON goes as text: the server then says what it accepts instead.
    """
    by_name = {option["name"]: option for option in described}

    def value(name: str, text: str) -> Any:
        option = by_name.get(name, {})
        if option.get("type") in TEXT_TYPES:
            return text
        if "oneOf" in option:
            return next((choice for choice in option["oneOf"] if str(choice) == text), text)
        return parse.value(text)

    return {name: value(name, text) for name, text in texts.items()}


def _refuse_tokens(token: str | None, token_file: Path | None) -> None:
    if token is not None or token_file is not None:
        raise typer.BadParameter("admin tokens are of `modelcloud serve`; here, sign in first")


def _refuse_url(url: str | None) -> None:
    if url is not None:
        raise typer.BadParameter("--url goes with SERVICE VERSION: it names the platform")


def _watch(
    client: Client,
    answer: dict[str, Any],
    *,
    no_wait: bool,
    as_json: bool,
    wanted: tuple[str, ...] = ("succeeded",),
) -> None:
    from rich.console import Console

    from modelcloud.cli.follow import follow

    rollout_id = str(answer["rollout"])
    if no_wait:
        told = f"rollout {rollout_id} accepted; modelcloud status {client.url} shows it"
        show.said(told, answer, as_json=as_json)
        return
    rollout = follow(client, rollout_id, Console(stderr=as_json), wanted=wanted)
    now = rollout["to" if rollout["state"] == "succeeded" else "from"]
    told = f"now serving version {now['version']}, generation {now['generation']}"
    show.said(told, rollout, as_json=as_json)
