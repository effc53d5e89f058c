"""The few files that pages load, named by what they hold, and what a request says of its browser.

Must never: answer with any other file.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import Response

from modelcloud.dashboard.words import COOKIE, Words, language_of

if TYPE_CHECKING:
    from starlette.requests import Request

PREFIX, ICON = "/files/", "/favicon.ico"
_FOLDER = Path(__file__).parent / "static"
_TYPES = {
    "page.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_THEMES = frozenset({"light", "dark"})


@cache
def _content(name: str) -> tuple[bytes, str]:
    """What a file holds, and a mark of it."""
    body = (_FOLDER / name).read_bytes()
    return body, hashlib.sha256(body).hexdigest()[:12]


def address(name: str) -> str:
    """Where a file is; another address once it is another file."""
    return f"{PREFIX}{name}?{_content(name)[1]}"


def paths() -> frozenset[str]:
    """Where all of them are."""
    return frozenset({ICON, *(PREFIX + name for name in _TYPES)})


async def icon(_: Request) -> Response:
    """The icon, where browsers look for one by themselves."""
    return Response(_content("icon.svg")[0], media_type=_TYPES["icon.svg"])


async def answer(request: Request) -> Response:
    """A file."""
    name = request.path_params["name"]
    if name not in _TYPES:
        return Response(status_code=404)
    headers = {"cache-control": "public, max-age=31536000, immutable"}
    return Response(_content(name)[0], headers=headers, media_type=_TYPES[name])


def words_of(request: Request) -> Words:
    """The words for a browser."""
    accepts = request.headers.get("accept-language", "")
    return Words(language_of(request.cookies.get(COOKIE), accepts))


def theme_of(request: Request) -> str:
    """The theme that was chosen; auto: as the system has it."""
    theme = request.cookies.get("modelcloud_theme", "")
    return theme if theme in _THEMES else "auto"
