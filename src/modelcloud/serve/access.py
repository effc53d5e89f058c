"""Who may ask what of the admin addresses: one pure decision over plain facts.

Must never: look at a body, read a clock or keep state. Deny by default: whatever is not named
as reading is a change.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from enum import Enum
from urllib.parse import urlsplit

import msgspec

from modelcloud.errors import Forbidden, ModelcloudError, TooManyRequests, Unauthorized

#: Wrong tokens that one client may present in `GUESS_WINDOW_S` seconds before it gets 429.
MAX_GUESSES = 10
GUESS_WINDOW_S = 60.0

#: A default port may be left out of Host and Origin.
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: What proxies add, beside every `x-forwarded-…`.
_FORWARDED = frozenset({"forwarded", "via", "x-real-ip"})
_HOST_FORBIDDEN = frozenset("/?#@\\ \t%,;'\"<>")


class Action(str, Enum):
    """What a request wants."""

    READ = "read"
    CHANGE = "change"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says of itself.

    Attributes:
        headers: each header's values, names in lower case.
        uid: of the client's process, as the kernel knows it; None where it is no unix socket.
        guesses: wrong tokens this client presented within the last `GUESS_WINDOW_S` seconds.
    """

    headers: Mapping[str, tuple[str, ...]]
    uid: int | None = None
    guesses: int = 0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the server was started with: the bound host, further names for it, the admin token.

    Attributes:
        uid: of the server itself where it listens on a unix socket; `host` then means nothing.
    """

    host: str
    uid: int | None = None
    allowed_hosts: tuple[str, ...] = ()
    token: str = ""


class WrongToken(Unauthorized):
    """A token was presented and is not the one: counts as a guess."""


def decide(action: Action, facts: Facts, settings: Settings) -> ModelcloudError | None:
    """Return why the request is refused, or None when it is allowed.

    A change is refused to a Host that is not this server's (DNS rebinding), to a page of another
    origin (CSRF), to whoever may be another machine while no admin token is set, and, once one is
    set, to whoever does not present it as `Authorization: Bearer TOKEN`.

    Who may be another machine: every client of a server bound beyond loopback; one whose request
    a proxy has forwarded, which hides where it came from; on a unix socket, any user but the
    server's own and root, since a proxy is one that runs as somebody else.
    """
    if action is Action.READ:
        return None
    return check_host(facts, settings) or check_origin(facts) or _check_token(facts, settings)


def is_forwarded(facts: Facts) -> bool:
    """Whether a proxy passed the request on, by its own word.

    Believing it is safe: the word only takes rights away.
    """
    return any(name in _FORWARDED or name.startswith("x-forwarded-") for name in facts.headers)


def is_loopback(host: str) -> bool:
    """Whether a bound or named host is this machine's loopback; other names are taken as not."""
    if host.lower().rstrip(".") == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def check_host(facts: Facts, settings: Settings) -> ModelcloudError | None:
    """Why the Host header is refused, or None: a browser may be led here under any name."""
    values = facts.headers.get("host", ())
    name = _host_name(values[0]) if len(values) == 1 else None
    if name is None:
        return Forbidden("the Host header is missing or malformed")
    # Rebinding takes a browser that connects by a name, and gains it the rights of who connects
    # without a token: no browser connects to a unix socket, and behind a proxy nobody has any.
    if settings.uid is not None or is_forwarded(facts):
        return None
    if is_loopback(name) or name in {
        _canonical(h) for h in (settings.host, *settings.allowed_hosts)
    }:
        return None
    bound = _address(settings.host)
    if bound is not None and bound.is_unspecified and _address(name) is not None:
        return None  # rebinding needs a name: a page served from an address cannot change its own
    return Forbidden(
        "the Host header names a host that this server does not know itself by; "
        "start it with --allowed-host NAME to accept that name here"
    )


def check_origin(facts: Facts) -> ModelcloudError | None:
    """Why a request that a page makes is refused, or None; asked once the Host is known."""
    refused = Forbidden("a page of another origin may not do this")
    if any(site not in {"same-origin", "none"} for site in facts.headers.get("sec-fetch-site", ())):
        return refused
    origins = facts.headers.get("origin", ())
    if not origins:
        return None
    if len(origins) > 1 or not _same_host(origins[0], facts.headers["host"][0]):
        return refused
    return None


def _check_token(facts: Facts, settings: Settings) -> ModelcloudError | None:
    if not settings.token:
        return _check_local(facts, settings)
    presented = facts.headers.get("authorization", ())
    if not presented:
        return Unauthorized("this needs the admin token, as `Authorization: Bearer TOKEN`")
    if facts.guesses >= MAX_GUESSES:
        return TooManyRequests("too many wrong admin tokens from this address; try again later")
    scheme, _, token = presented[0].partition(" ")
    wrong = not hmac.compare_digest(_bytes(token.strip()), _bytes(settings.token))
    if wrong or scheme.lower() != "bearer" or len(presented) > 1:
        return WrongToken("the admin token is wrong")
    return None


def _check_local(facts: Facts, settings: Settings) -> ModelcloudError | None:
    remedy = "start it with --admin-token-file FILE"
    if is_forwarded(facts):
        return Forbidden(
            "this came through a proxy, and the server has no admin token, so nobody may do this "
            f"from there; {remedy}, or ask it directly"
        )
    if settings.uid is not None:
        if facts.uid in {settings.uid, 0}:
            return None
        return Forbidden(
            "the server has no admin token, so only its own user and root may do this on its "
            f"socket; {remedy}"
        )
    if is_loopback(settings.host):
        return None
    return Forbidden(
        "this server is reachable from other machines and has no admin token, so nobody may do "
        f"this; {remedy}, or bind it to 127.0.0.1"
    )


def _host_name(host: str) -> str | None:
    """The name of a Host header without its port, canonical; None if it is malformed."""
    if not host or not host.isascii() or not _HOST_FORBIDDEN.isdisjoint(host):
        return None
    try:
        split = urlsplit(f"//{host}")
        split.port  # noqa: B018 — raises when the port is none
    except ValueError:
        return None
    return _canonical(split.hostname) if split.hostname else None


def _same_host(origin: str, host: str) -> bool:
    """Whether an Origin is this server; its scheme may be that of a proxy that ends TLS."""
    try:
        page = urlsplit(origin)
        here = urlsplit(f"//{host}")
        default = _DEFAULT_PORTS.get(page.scheme)
        ports = page.port or default, here.port or default
    except ValueError:
        return False
    return (
        default is not None
        and page.hostname is not None
        and page.hostname == here.hostname
        and ports[0] == ports[1]
    )


def _canonical(host: str) -> str:
    address = _address(host)
    return str(address) if address else host.lower().rstrip(".")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")  # compare_digest takes no other text than ASCII
