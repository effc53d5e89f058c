"""Fetches what a client names by URL, treating URL, resolver and server as hostile.

Must never: connect to an address that was not checked (each hop anew, the checked IP itself), or
read past its byte limit or deadline. Proxy variables are ignored: behind one nothing is checked.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import urljoin

from modelcloud.errors import InvalidInput

MAX_REDIRECTS = 3
MAX_URL = 8192
_CHUNK = 64 * 1024
_REDIRECTS = {301, 302, 303, 307, 308}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Not public, by IANA's special-purpose registries and the metadata addresses of clouds. Listed
#: here because `is_private` misses some and `is_global` differs between Python versions.
_REFUSED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier NAT; Alibaba's metadata is 100.100.100.200
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host
        "169.254.0.0/16",  # link-local; metadata of AWS, Azure, Google
        "172.16.0.0/12",
        "192.0.0.0/24",  # Oracle's metadata is 192.0.0.192
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "2001::/23",  # Teredo and other protocols
        "2001:db8::/32",
        "2002::/16",  # 6to4, which holds any IPv4 address
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
#: All that is handed out of IPv6; NAT64, unique local, link-local and multicast lie outside.
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")

_URL = re.compile(r"(https?)://([^/?#]*)(/[^?#]*)?(\?[^#]*)?(?:#.*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"([A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_UNSAFE = re.compile(r"[^\x21-\x7e]|\\")

_allowed: tuple[Network, ...] = ()


def allow_networks(*networks: str) -> None:
    """Name the non-public networks (`10.1.0.0/16`) that may be fetched from; none at first."""
    global _allowed  # noqa: PLW0603 — one per process, set once before it serves
    _allowed = tuple(ipaddress.ip_network(network) for network in networks)


class Target(NamedTuple):
    """A URL, parsed once; every later step uses these parts."""

    scheme: str
    host: str  # without the brackets of an IPv6 address
    port: int
    path: str  # with the query

    @property
    def origin(self) -> str:
        """The `Host` header: with the port unless it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _default_port(self.scheme) else f"{host}:{self.port}"


def fetch(
    url: str, *, max_bytes: int, timeout_s: float, allow: Iterable[str] | None = None
) -> bytes:
    """The bytes at an http(s) URL of a public host, after at most three redirects.

    Args:
        url: absolute; without user name, and percent-encoded where it is not ASCII.
        max_bytes: the greatest body.
        timeout_s: for all of it together: looking up names, connecting, redirects, reading.
        allow: networks that may be fetched from though they are not public; those of
            `allow_networks` when not given.

    Raises:
        InvalidInput: the URL is refused, or what it names cannot be had within the limits. The
            text names no address, so that nothing can be learnt of the network inside.
    """
    allowed = _allowed if allow is None else tuple(map(ipaddress.ip_network, allow))
    deadline = time.monotonic() + timeout_s
    try:
        for _ in range(MAX_REDIRECTS + 1):
            target = parse(url)
            addresses = _resolve(target, deadline)
            if not all(is_public(address[4][0], allowed) for address in addresses):
                raise _refused("a URL whose host has a non-public address")
            with _connect(target, addresses, deadline) as connection:
                reader = _ask(connection, target, deadline)
                with http.client.HTTPResponse(reader, method="GET") as response:  # type: ignore[arg-type]
                    response.begin()
                    reader.in_head = False
                    if response.status not in _REDIRECTS:
                        return _read(response, max_bytes)
                    location = response.getheader("Location")
            if not location or _UNSAFE.search(location):
                raise _refused("a redirect to nowhere")
            url = urljoin(url, location)
        raise _refused(f"a URL with more than {MAX_REDIRECTS} redirects")
    except TimeoutError:
        raise _refused(f"a URL that is not answered in full within {timeout_s:g} s") from None
    except ssl.SSLError:
        raise _refused("a URL whose host has no valid certificate, or fails at TLS") from None
    except (OSError, http.client.HTTPException, ValueError):
        raise _refused("a URL whose host cannot be reached or answers no proper HTTP") from None


def parse(url: str) -> Target:
    r"""The parts of a URL. One parser, and nothing that two parsers might read differently.

    Raises:
        InvalidInput: not http(s), or with a backslash, user name, control or non-ASCII character.
    """
    if len(url) > MAX_URL:
        raise _refused(f"a URL of {len(url)} characters")
    if _UNSAFE.search(url):
        raise _refused("a URL with a backslash, space, control or non-ASCII character")
    found = _URL.fullmatch(url)
    if found is None:
        raise _refused("no http(s) URL")
    scheme, authority, path, query = found.groups()
    if "@" in authority:
        raise _refused("a URL with a user name or password")
    place = _AUTHORITY.fullmatch(authority)
    if place is None:
        raise _refused("a URL whose host or port is none")
    scheme, host = scheme.lower(), place[1].strip("[]").lower()
    port = int(place[2]) if place[2] else _default_port(scheme)
    if not 0 < port < 65536:
        raise _refused("a URL whose port is none")
    return Target(scheme, host, port, (path or "/") + (query or ""))


def is_public(address: str, allowed: Iterable[Network] = ()) -> bool:
    """Whether an IP address is on the public internet, or in a network that is allowed."""
    ip: Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if any(ip in network for network in allowed):
        return True
    if isinstance(ip, ipaddress.IPv6Address) and ip not in _GLOBAL_V6:
        return False
    return not any(ip in network for network in _REFUSED)


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _refused(got: str) -> InvalidInput:
    return InvalidInput("", got, "an http(s) URL of a public host that answers 200 within limits")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _resolve(target: Target, deadline: float) -> list[Any]:
    """What `getaddrinfo` says, in a thread of its own because it takes no deadline."""
    found: list[Any] = []

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError):
            found.append([])

    thread = threading.Thread(target=look_up, name="modelcloud-resolve", daemon=True)
    thread.start()
    thread.join(_left(deadline))
    if not found:
        raise TimeoutError
    if not found[0]:
        raise _refused("a URL whose host has no address")
    return found[0]  # type: ignore[no-any-return]


def _connect(target: Target, addresses: list[Any], deadline: float) -> socket.socket:
    """A socket to the first checked address that takes it; for https with TLS to the name."""
    error: OSError = OSError("no address")
    for family, kind, protocol, _, place in addresses:
        plain = socket.socket(family, kind, protocol)
        try:
            plain.settimeout(_left(deadline))
            plain.connect(place)
            if target.scheme == "http":
                return plain
            plain.settimeout(_left(deadline))
            context = ssl.create_default_context()
            return context.wrap_socket(plain, server_hostname=target.host)
        except OSError as failed:
            plain.close()
            error = failed
        except BaseException:
            plain.close()
            raise
    raise error


class _Reader(io.RawIOBase):
    """A socket's reading side, on which the whole answer shares one deadline."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self.in_head = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(_left(self._deadline))
        count = self._connection.recv_into(buffer)
        if not count and self.in_head:  # which http.client takes for the end of the head
            raise ConnectionError("cut short")
        return count

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What `http.client.HTTPResponse` asks of a socket."""
        return io.BufferedReader(self, _CHUNK)


def _ask(connection: socket.socket, target: Target, deadline: float) -> _Reader:
    connection.settimeout(_left(deadline))
    connection.sendall(
        f"GET {target.path} HTTP/1.1\r\nHost: {target.origin}\r\nUser-Agent: modelcloud\r\n"
        "Accept: */*\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n".encode("ascii")
    )
    return _Reader(connection, deadline)


def _read(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    if response.status != 200:
        raise _refused(f"a URL that answers {response.status}")
    if response.getheader("Content-Encoding", "identity").lower() != "identity":
        raise _refused("a URL that answers with compression that was not asked for")
    body = bytearray()
    while chunk := response.read(min(_CHUNK, max_bytes + 1 - len(body))):
        body += chunk
        if len(body) > max_bytes:
            raise _refused(f"a URL that answers more than {max_bytes} bytes")
    if response.length:
        raise _refused("a URL whose answer is cut short")
    return bytes(body)
