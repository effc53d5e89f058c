"""Which headers pass between a browser and its lab, each way; pure decisions.

The lab is a user's own process, so that neither side may learn of the other what is the platform's:
no cookie goes in or out, and the lab is told nothing of where a request came from.

Must never: let a header pass that is not known to be harmless to the other side.
"""

from __future__ import annotations

from collections.abc import Iterable

Raw = list[tuple[bytes, bytes]]

COOKIE = "modelcloud_workspace"
#: Of a request, what the lab gets; all else stays here, cookies and what proxies add among it.
_IN = frozenset({
    b"accept", b"accept-encoding", b"accept-language", b"cache-control", b"content-length",
    b"content-type", b"content-encoding", b"if-match", b"if-modified-since", b"if-none-match",
    b"if-range", b"if-unmodified-since", b"pragma", b"range", b"user-agent", b"x-requested-with",
    b"x-xsrftoken",
})  # fmt: skip
#: Of an answer, what the browser gets.
_OUT = frozenset({
    b"accept-ranges", b"cache-control", b"content-disposition", b"content-encoding",
    b"content-language", b"content-length", b"content-range", b"content-security-policy",
    b"content-type", b"date", b"etag", b"expires", b"last-modified", b"location", b"vary",
})  # fmt: skip
#: Beside the lab's own policy: what runs in the page sends nothing to any other origin by itself,
#: this platform's pages least of all, and stands in nobody's frame.
_POLICY = "connect-src 'self' blob: data:; form-action 'self'; frame-ancestors 'self'"
_ADDED: Raw = [
    (b"content-security-policy", _POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
]


def to_lab(headers: Iterable[tuple[bytes, bytes]], token: str) -> Raw:
    """The headers of a request, as the lab gets them, with its token."""
    kept = [(name, value) for name, value in headers if name.lower() in _IN]
    return [*kept, (b"host", b"localhost"), (b"authorization", f"token {token}".encode())]


def to_browser(headers: Iterable[tuple[bytes, bytes]]) -> Raw:
    """The headers of an answer, as the browser gets them."""
    return [*((n.lower(), v) for n, v in headers if n.lower() in _OUT), *_ADDED]


def split(path: str) -> tuple[str, str] | None:
    """The workspace and the rest of a path below `/w/`; None: it is no such path."""
    empty, w, workspace, *rest = [*path.split("/", 3), "", "", ""][:4]
    if empty or w != "w" or not workspace:
        return None
    return workspace, rest[0]


def set_cookie(base: str, value: str, *, secure: bool) -> bytes:
    """The cookie that opens a workspace, to its own addresses alone."""
    more = "; Secure" if secure else ""
    return f"{COOKIE}={value}; Path={base}; HttpOnly; SameSite=Strict{more}".encode()
