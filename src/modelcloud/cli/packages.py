"""`new`, `check` and `call`: a package below `algopkg/`, made, tried, asked where it is served.

Must never: run a package's code in this process.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelcloud.cli import parse, show
from modelcloud.errors import ModelcloudError, UpdateFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

new = typer.Typer(no_args_is_help=True, help="Lay out what is to be served.")

Params = Annotated[
    str, typer.Option(metavar="JSON", help="The parameters of the request, as JSON.")
]


@new.command()
def algopkg(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the package.")],
    folder: Annotated[
        Path, typer.Option("--in", metavar="FOLDER", help="Where algopkg/ and conf.ini are.")
    ] = Path(),
) -> None:
    """Make algopkg/NAME, and conf.ini and Model_ZOO/ beside it; what is there stays as it is."""
    from modelcloud.packages import layout

    done = layout.new(folder, name)
    for path in done.made:
        print(show.plain(f"made {path}"))
    for path in done.kept:
        print(show.plain(f"kept {path}"))
    if done.hint:
        print(done.hint.rstrip())


def check(
    package: Annotated[
        Path, typer.Argument(metavar="PACKAGE", help="Its folder, as algopkg/FaceDetection.")
    ],
    *,
    params: Params = "{}",
    backend: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Of backend.py; else as in conf.ini, or the only one."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="FILE,…", help="In Model_ZOO; else as in conf.ini."),
    ] = None,
    user_config: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="For reconfigure; else as in conf.ini."),
    ] = None,
    requirements: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Its packages; else as in conf.ini, or its own file."),
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Interpreter, 3.10 or newer; else as in conf.ini."),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", parser=parse.wait, help="For import, load and inference."),
    ] = 600.0,
    as_json: show.Json = False,
) -> None:
    """Import, load and ask a package once, in its own environment, and say what is wrong."""
    import msgspec
    from rich.console import Console

    from modelcloud.packages import check as checking
    from modelcloud.packages import values

    given = {
        "backend": _read("--backend", values.identifier, backend),
        "model": _read("--model", values.names, model),
        "user_config": _read("--user-config", values.config, user_config),
        "requirements": requirements if requirements is None else str(Path(requirements).resolve()),
        "python": _read("--python", values.python, python),
    }
    body = _read("--params", values.config, params)
    progress = Console(stderr=True)
    section, root = checking.section_of(package, given)
    result = checking.check(
        section,
        root,
        body,
        envs=checking.envs_folder(),
        timeout_s=timeout,
        say=lambda line: progress.print(show.plain(line), markup=False, style="dim"),
    )
    if as_json:
        show.as_text(msgspec.to_builtins(result))
    else:
        rows = [(step.step, f"{step.seconds:.3f} s", step.note) for step in result.steps]
        show.console().print(show.table(("step", "took", ""), rows))
        if result.detail:
            print(*map(show.plain, result.detail.splitlines()), sep="\n")
        if result.answer is not None:
            show.as_text(result.answer, indent=None)
    if result.problem:
        raise UpdateFailed(f"{package}: {result.problem}")


def call(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="A route, as http://127.0.0.1:8080/extract.")
    ],
    *,
    params: Params = "{}",
    method: Annotated[
        str, typer.Option(metavar="NAME", help="GET or POST; both send the JSON as the body.")
    ] = "GET",
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", parser=parse.wait, help="Longest wait.")
    ] = 60.0,
    token: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="A token, where the group's models ask for one."),
    ] = None,
) -> None:
    """Ask a route once; print the answer, and on standard error how long it took."""
    import httpx

    from modelcloud.client import Unreachable
    from modelcloud.packages import values

    body = _read("--params", values.config, params)
    if method.upper() not in {"GET", "POST"}:
        raise typer.BadParameter(f"--method {method}; accepted: GET or POST")
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    begun = time.monotonic()
    try:
        answer = httpx.request(
            method.upper(), url, json=body, headers=headers, timeout=timeout, trust_env=False
        )
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise UsageError(f"{url!r} is no address: {error}") from None
    except httpx.RequestError as error:
        raise Unreachable(f"no answer from {url}: {error}") from None
    took = time.monotonic() - begun
    found = _answer(answer)
    show.as_text(found, indent=None)
    version = answer.headers.get("x-model-version")
    by = f", version {version}" if version else ""
    show.console(stderr=True).print(f"{answer.status_code} in {1000 * took:.1f} ms{by}")
    if not answer.is_success:
        raise ModelcloudError(f"{url} answered with status {answer.status_code}")
    if isinstance(found, dict) and found.get("status") == 0:
        raise ModelcloudError(f"{url}: the model failed, and its answer has status 0")


def _answer(answer: Any) -> Any:
    try:
        return answer.json()
    except ValueError:
        return answer.text


def _read(flag: str, read: Callable[[str], Any], text: str | None) -> Any:
    """The value of a flag, as `conf.ini` has it."""
    from modelcloud.packages.values import Unfit

    if text is None:
        return None
    try:
        return read(text)
    except Unfit as error:
        raise typer.BadParameter(f"{flag} {text[:60]}: accepted: {error}") from None
