"""Which platform the command line speaks to, and as whom.

Must never: keep a password, or a token where others can read it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from modelcloud.errors import ModelcloudError, Unauthorized, UsageError

if TYPE_CHECKING:
    from modelcloud.platform import Platform

T = TypeVar("T")

URL_VARIABLE = "MODELCLOUD_URL"
TOKEN_VARIABLE = "MODELCLOUD_TOKEN"  # noqa: S105 — the variable's name
CONFIG_VARIABLE = "MODELCLOUD_CONFIG"
DEFAULT_URL = "http://127.0.0.1:8000"

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help=f"The platform's control plane; else {URL_VARIABLE}, else where one signed in.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", metavar="", help="Do not ask.")]


def file() -> Path:
    """Where the address and the token of `modelcloud login` are kept."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "modelcloud" / "credentials.json"


def remember(url: str, token: str) -> Path:
    """Keep them, for this user alone.

    Raises:
        UsageError: the file cannot be written.
    """
    path = file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, stage = tempfile.mkstemp(prefix=".credentials-", dir=path.parent)  # 0600
        with os.fdopen(descriptor, "w", encoding="utf-8") as text:
            json.dump({"url": url, "token": token}, text)
        Path(stage).rename(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    return path


def forget() -> None:
    """Keep nothing any more."""
    file().unlink(missing_ok=True)


def remembered() -> dict[str, str]:
    """The `url` and `token` of the last `modelcloud login`; empty without one.

    Raises:
        UsageError: the file cannot be read.
    """
    path = file()
    try:
        found: Any = json.loads(path.read_text("utf-8"))
        return {"url": str(found["url"]), "token": str(found["token"])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{path} cannot be read as what `modelcloud login` keeps; remove it and sign in again"
        ) from None


def connect(url: str | None) -> Platform:
    """A connection for a command line: `--url`, the environment, then what `login` remembered.

    Raises:
        Unauthorized: there is no token for that platform.
    """
    from modelcloud.platform import Platform

    kept = remembered()
    place = (url or os.environ.get(URL_VARIABLE) or kept.get("url") or DEFAULT_URL).rstrip("/")
    token = os.environ.get(TOKEN_VARIABLE)
    if not token and kept.get("url") == place:
        token = kept["token"]
    if not token:
        raise Unauthorized(f"not signed in at {place}; run: modelcloud login {place}")
    return Platform(place, token)


def once(call: Callable[[str], T]) -> T:
    """As `platform.once.once`, which is imported when it is used."""
    from modelcloud.platform.once import once

    return once(call)


def confirm(what: str, *, yes: bool) -> None:
    """Return if `what` may be deleted.

    Raises:
        UsageError: there is nobody to ask.
        ModelcloudError: the answer was no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{what} would be deleted for good; say so with --yes")
    if not typer.confirm(f"Delete {what} for good?", err=True):
        raise ModelcloudError("nothing was deleted")
