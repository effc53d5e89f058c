"""`modelcloud update` and `modelcloud rollback`: ask a running server, and show how it goes.

Must never: call an update done before the server says that the switch is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelcloud.cli import parse
from modelcloud.types import Strategy

if TYPE_CHECKING:
    from modelcloud.client import Client

Url = Annotated[
    str,
    typer.Argument(
        metavar="URL", help="Where it is served, such as http://127.0.0.1:8080, or unix:PATH."
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

#: Types whose JSON form is text: what stands on the command line is the value.
TEXT_TYPES = {"text", "file", "image", "directory"}


def update(
    url: Url,
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
    strategy: Annotated[
        Strategy | None,
        typer.Option(metavar="NAME", help=f"{parse.STRATEGIES}; else the server's own."),
    ] = None,
    max_surge: Annotated[
        int | None,
        typer.Option(
            metavar="N", parser=parse.whole, help="With rolling: workers beyond the replicas."
        ),
    ] = None,
    max_unavailable: Annotated[
        int | None,
        typer.Option(
            metavar="N", parser=parse.whole, help="With rolling: workers that may be missing."
        ),
    ] = None,
    no_wait: NoWait = False,
    token: Token = None,
    token_file: TokenFile = None,
) -> None:
    """Replace a served model while it serves; without changes, load its files again."""
    texts = parse.pairs(option or ())
    spec = parse.strategy(strategy, max_surge, max_unavailable)
    with connect(url, token, token_file) as client:
        options = typed(texts, client.meta()["options"]) if texts else {}
        answer = client.update(
            options, artifact=artifact, model_path=model_path, strategy=spec, wait=False
        )
        _watch(client, answer, no_wait)


def rollback(
    url: Url, *, no_wait: NoWait = False, token: Token = None, token_file: TokenFile = None
) -> None:
    """Go back to the generation that served before."""
    with connect(url, token, token_file) as client:
        # A rollout that was on its way is called off: that too is going back.
        _watch(client, client.rollback(wait=False), no_wait, wanted=("succeeded", "rolled_back"))


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
        try:
            return json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return text

    return {name: value(name, text) for name, text in texts.items()}


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _watch(
    client: Client,
    answer: dict[str, Any],
    no_wait: bool,
    wanted: tuple[str, ...] = ("succeeded",),
) -> None:
    from rich.console import Console

    from modelcloud.cli.follow import follow

    rollout_id = str(answer["rollout"])
    if no_wait:
        print(f"rollout {rollout_id} accepted; modelcloud status {client.url} shows it")
        return
    rollout = follow(client, rollout_id, Console(), wanted=wanted)
    now = rollout["to" if rollout["state"] == "succeeded" else "from"]
    print(f"now serving version {now['version']}, generation {now['generation']}")
