"""What a browser presents in place of a token: a cookie with its session; and where it wants to.

Pure decisions over headers and addresses, for the gate and for whoever answers browsers.

Must never: let a cookie open the API, or send a browser to another site.
"""

from __future__ import annotations

from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

#: Holds the token of a session that signed in on a page.
COOKIE = "modelcloud_session"
SIGN_IN, PASSWORD, SIGN_OUT = "/sign-in", "/password", "/sign-out"
#: Open to who must change the password first.
BEFORE_PASSWORD = frozenset({PASSWORD, SIGN_OUT})
#: The rest of the control plane's addresses; everything else is the site's.
_API = ("/api/",)
_API_PATHS = frozenset({"/api", "/healthz", "/readyz", "/metrics"})
_LONGEST_NEXT = 2_000


class Site(Protocol):
    """Pages for browsers, beside the API: an ASGI application behind the gate.

    Attributes:
        public: paths that are answered without a session.
        uploads: paths whose bodies may be larger than others; who answers counts for itself.
    """

    public: frozenset[str]
    uploads: frozenset[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection; the gate has put `actor` into the scope's `state`."""

    async def stop(self) -> None:
        """End what works by itself."""


def is_api(path: str) -> bool:
    """Whether a path is the API's, where only `Authorization` counts."""
    return path in _API_PATHS or path.startswith(_API)


def session_token(headers: Mapping[str, tuple[str, ...]]) -> str | None:
    """The token in the session's cookie; None without one, or with two of them."""
    found: list[str] = []
    for value in headers.get("cookie", ()):
        try:
            cookie = SimpleCookie(value)
        except CookieError:
            continue
        if COOKIE in cookie:
            found.append(cookie[COOKIE].value)
    return found[0] if len(found) == 1 and found[0] else None


def sign_in_address(wanted: str) -> str:
    """Where to sign in, and then go on to `wanted`."""
    wanted = safe_next(wanted)
    return SIGN_IN if wanted == "/" else f"{SIGN_IN}?next={quote(wanted, safe='/')}"


def safe_next(wanted: str | None) -> str:
    r"""`wanted`, if it is a page of this site; else the entrance.

    Browsers take `//host`, `/\\host` and a tab or line break in between for another site.
    """
    if not wanted or len(wanted) > _LONGEST_NEXT or not wanted.startswith("/"):
        return "/"
    plain = unquote(wanted)
    if any(ord(letter) < 0x21 or letter == "\\" or ord(letter) == 0x7F for letter in wanted):
        return "/"
    if plain.startswith(("//", "/\\")) or wanted.startswith("//"):
        return "/"
    try:
        split = urlsplit(wanted)
    except ValueError:
        return "/"
    if split.scheme or split.netloc or is_api(split.path):
        return "/"
    return "/" if split.path in {SIGN_IN, SIGN_OUT} else wanted
