"""Files at an http(s) URL that asks for no password, as `wget` would get them.

Must never: follow more than three redirects, or one to another scheme than http(s).
"""

from __future__ import annotations

import calendar
import contextlib
import email.utils
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urljoin

import httpx

from modelcloud.errors import ModelcloudError, NotFound, Overloaded, Unauthorized, UsageError
from modelcloud.monitors.mark import Mark
from modelcloud.monitors.source import TIMEOUT_S, SourceSpec

MAX_REDIRECTS = 3
_REDIRECTS = {301, 302, 303, 307, 308}
_CHUNK = 256 * 1024


class General:
    """See `Source`. Proxy variables count only where there is no rule for addresses."""

    def __init__(self, base: str, spec: SourceSpec) -> None:
        self._base = base.rstrip("/")
        self._trust_env = spec.addresses.anything

    def marks(self, *names: str) -> list[Mark | None]:
        """See `Source.marks`."""
        with self._client() as client:
            return [self._mark(client, name) for name in names]

    def read(self, name: str, limit: int) -> bytes | None:
        """See `Source.read`."""
        content = b""
        with self._client() as client, self._got(client, "GET", name) as answer:
            if answer is None:
                return None
            for chunk in answer.iter_raw(_CHUNK):
                content += chunk
                if len(content) > limit:
                    raise UsageError(f"{name} holds more than {limit} bytes")
        return content

    def fetch(self, name: str, into: Path) -> None:
        """See `Source.fetch`. Compression that a server adds is left on, as it is on its disk."""
        with self._client() as client, self._got(client, "GET", name) as answer:
            if answer is None:
                raise NotFound(f"there is no {name} at {self._base}")
            with into.open("xb") as file:
                for chunk in answer.iter_raw(_CHUNK):
                    file.write(chunk)

    def _mark(self, client: httpx.Client, name: str) -> Mark | None:
        with self._got(client, "HEAD", name) as answer:
            if answer is None or answer.status_code not in {405, 501}:
                return None if answer is None else _mark_of(answer.headers)
        with self._got(client, "GET", name) as answer:  # its body is not read
            return None if answer is None else _mark_of(answer.headers)

    def _client(self) -> httpx.Client:
        return httpx.Client(
            timeout=TIMEOUT_S,
            trust_env=self._trust_env,
            headers={"user-agent": "modelcloud", "accept-encoding": "identity"},
        )

    @contextlib.contextmanager
    def _got(self, client: httpx.Client, method: str, name: str) -> Iterator[httpx.Response | None]:
        """The answer, its body still to be read; None where there is no such file."""
        url = f"{self._base}/{quote(name)}"
        with contextlib.ExitStack() as stack:
            try:
                for _ in range(MAX_REDIRECTS + 1):
                    answer = stack.enter_context(client.stream(method, url))
                    location = answer.headers.get("location", "")
                    if answer.status_code not in _REDIRECTS or not location:
                        break
                    url = urljoin(url, location)
                    if httpx.URL(url).scheme not in {"http", "https"}:
                        raise UsageError(f"{name} redirects to what is no http(s) URL")
                else:
                    raise UsageError(f"{name} redirects more than {MAX_REDIRECTS} times")
                _check(answer, name)
                yield None if answer.status_code in {404, 410} else answer
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise _translated(error, self._base) from error


def _check(answer: httpx.Response, name: str) -> None:
    status = answer.status_code
    if status in {401, 403, 407}:
        raise Unauthorized(
            f"the server answers {status} for {name}: it wants a password, or forbids it; type "
            "general is for places without one"
        )
    if status not in {200, 404, 405, 410, 501} or (status in {405, 501} and _is_get(answer)):
        raise Overloaded(f"the server answers {status} for {name}")


def _is_get(answer: httpx.Response) -> bool:
    return answer.request.method == "GET"


def _translated(error: Exception, base: str) -> ModelcloudError:
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return UsageError(f"{base} is no http(s) or ftp URL")
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
        return Overloaded(f"{base} broke off its answer: {error}")
    if isinstance(error, httpx.TimeoutException):
        return Overloaded(f"{base} did not answer within {TIMEOUT_S:g} s")
    return Overloaded(f"{base} cannot be reached: {error}; is --general_host right?")


def _mark_of(headers: httpx.Headers) -> Mark:
    length = headers.get("content-length", "")
    parsed = email.utils.parsedate(headers.get("last-modified", ""))
    return Mark(
        modified=float(calendar.timegm(parsed)) if parsed else None,
        size=int(length) if length.isdigit() else None,
        tag=headers.get("etag", ""),
    )
