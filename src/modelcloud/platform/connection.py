"""One connection to a platform's API: requests, whole lists, events, and what errors stand for.

Must never: repeat by itself a request that changes something, or hide an answer's error.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from modelcloud import errors
from modelcloud.client import ERROR_OF_STATUS, Unreachable

Record = dict[str, Any]

#: Lists are fetched in pages of this size.
PAGE = 500
#: A stream of events that breaks is taken up again; it ends when no answer came for so long.
PATIENCE_S = 15.0
PAUSE_S = 0.2


class Connection:
    """Speaks HTTP to the control plane; `Platform` says which words.

    Args:
        url: where it listens, without a path.
        token: presented with each request.
        timeout_s: longest wait for one answer, in seconds.
        transport: stands in for the network, as in `httpx.Client`.

    Raises:
        UsageError: `url` is no address, or `token` no token.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        timeout_s: float,
        transport: httpx.BaseTransport | None,
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        with _translating(self.url):
            self._http = httpx.Client(
                base_url=f"{self.url}/api/v1", timeout=timeout_s, transport=transport
            )
        self.token = token

    @property
    def token(self) -> str | None:
        """What is presented with each request."""
        return self._token

    @token.setter
    def token(self, token: str | None) -> None:
        if token and not re.fullmatch(r"[!-~]+", token):  # the network's own error would show it
            raise errors.UsageError("this is no token: it holds more than printable ASCII")
        self._token = token
        self._http.headers.pop("authorization", None)
        if token:
            self._http.headers["authorization"] = f"Bearer {token}"

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Record | None = None,
        revision: int | None = None,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        **arguments: Any,
    ) -> httpx.Response:
        """The answer to one request.

        Args:
            method: of HTTP.
            path: below `/api/v1`.
            body: sent as JSON.
            query: parameters; those that are None are left out.
            revision: that an edit is made on (`If-Match`).
            key: the same key again gives the same answer and does nothing more.
            headers: further ones.
            arguments: of `httpx.Client.request`.

        Raises:
            UsageError: `body` is no JSON.
            ModelcloudError: it was refused, or failed.
            Unreachable: no answer came.
        """
        sent = dict(headers or {})
        if revision is not None:
            sent["if-match"] = f'"{revision}"'
        if key is not None:
            sent["idempotency-key"] = key
        if body is not None:
            arguments["content"] = _encoded(body)
            sent["content-type"] = "application/json"
        with _translating(self.url):
            response = self._http.request(
                method, path, params=given(query or {}), headers=sent, **arguments
            )
        if not response.is_success:
            raise error_of(response.status_code, response.content)
        return response

    def record(self, method: str, path: str, body: Any = None, **arguments: Any) -> Record:
        """The JSON object that a request is answered with. Raises as `send` does."""
        response = self.send(method, path, body, **arguments)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._no_platform()
        return answer

    def items(
        self, path: str, query: Record | None = None, page: int | None = None
    ) -> Iterator[Record]:
        """All records of a list, fetched a page at a time as they are asked for."""
        asked: Record = {**(query or {}), "limit": page or PAGE}
        while True:
            answer = self.record("GET", path, query=asked)
            if not isinstance(answer.get("items"), list):
                raise self._no_platform()
            yield from answer["items"]
            if answer.get("next") is None:
                return
            asked["cursor"] = answer["next"]

    def whole(self, path: str) -> list[Record]:
        """The records of a list that comes as one page."""
        answer = self.record("GET", path)
        if not isinstance(answer.get("items"), list):
            raise self._no_platform()
        return list(answer["items"])

    def first(self, limit: int, path: str, query: Record) -> list[Record]:
        """The first records of a list, at most so many."""
        return list(islice(self.items(path, query, min(limit, PAGE)), limit))

    def events(
        self, path: str, query: Record | None = None, *, end: float | None = None
    ) -> Iterator[Record]:
        """The JSON of each server-sent event, until `end` (monotonic) or without end.

        A stream that breaks goes on where it was, as one whose control plane is started again.

        Raises:
            Unreachable, Overloaded: there was no stream for `PATIENCE_S`.
            ModelcloudError: it was refused.
        """
        last_id, give_up = "", 0.0
        while end is None or time.monotonic() < end:
            try:
                for event in self._stream(path, query, last_id, end):
                    give_up = 0.0
                    last_id = event.id or last_id
                    yield event.record
            except (Unreachable, errors.Overloaded):
                now = time.monotonic()
                give_up = give_up or now + PATIENCE_S
                if now >= give_up:
                    raise
            time.sleep(PAUSE_S)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _stream(
        self, path: str, query: Record | None, last_id: str, end: float | None
    ) -> Iterator[_Event]:
        """The events of one stream (WHATWG HTML, 9.2).

        With an `end` it is over at the first comment, by which servers keep streams alive: the
        wait for the next byte is then bounded by what is left.
        """
        headers = {"accept": "text/event-stream"}
        if last_id:
            headers["last-event-id"] = last_id
        timeout = self._timeout_s
        if end is not None:
            timeout = max(0.01, min(timeout, end - time.monotonic()))
        event_id, data = "", []
        with (
            _translating(self.url),
            self._http.stream(
                "GET", path, params=given(query or {}), headers=headers, timeout=timeout
            ) as response,
        ):
            if not response.is_success:
                raise error_of(response.status_code, response.read())
            for line in _lines(response.iter_bytes()):
                field, _, value = line.partition(":")
                if field == "data":
                    data.append(value.removeprefix(" "))
                elif field == "id":
                    event_id = value.removeprefix(" ")
                elif not line and data:
                    yield _Event(event_id, self._decoded("\n".join(data)))
                    event_id, data = "", []
                elif line and not field and end is not None:
                    return

    def _decoded(self, data: str) -> Record:
        try:
            record = json.loads(data)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise self._no_platform()
        return record

    def _no_platform(self) -> errors.ModelcloudError:
        return errors.ModelcloudError(f"what answers at {self.url} is no modelcloud platform")


class _Event(NamedTuple):
    id: str
    record: Record


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """The lines of a stream. Only a line feed ends one: a model may print the other separators."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")


@contextmanager
def _translating(url: str) -> Iterator[None]:
    """Turns what the network raises into errors of this package."""
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise errors.UsageError(f"{url!r} is no address: {error}") from None
    except httpx.TimeoutException:
        raise Unreachable(f"{url} did not answer in time") from None
    except httpx.RequestError as error:
        raise Unreachable(f"no answer from {url}: {error}") from None


# ---- errors


def _kinds(of: type[errors.ModelcloudError]) -> Iterator[tuple[str, type[errors.ModelcloudError]]]:
    yield re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", of.__name__).lower(), of
    for kind in of.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from _kinds(kind)


#: `urn:modelcloud:<kind>` is the `type` of a problem.
_OF_KIND = dict(_kinds(errors.ModelcloudError))


def error_of(status: int, body: bytes) -> errors.ModelcloudError:
    """The error that an answer of the API stands for (RFC 9457)."""
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        problem = None
    if not (isinstance(problem, dict) and isinstance(problem.get("detail"), str)):
        problem = {"detail": f"the platform answered {status}"}
    named = str(problem.get("type")).removeprefix("urn:modelcloud:")
    kind = _OF_KIND.get(named) or ERROR_OF_STATUS.get(status, errors.ModelcloudError)
    error = kind.__new__(kind)  # some take more than a message, of which only its text came
    errors.ModelcloudError.__init__(error, problem["detail"])
    error.status = status
    error.fields = {
        str(name): value
        for name, value in problem.items()
        if name not in {"type", "title", "status", "detail"}
    }
    return error


# ---- paths and fields


def _encoded(body: Any) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise errors.UsageError(f"what is sent has to be JSON: {error}") from None


def part(name: object) -> str:
    """A path segment."""
    return quote(str(name), safe="")


def version_path(service: str, version: int) -> str:
    """The path of a version."""
    return f"/services/{part(service)}/versions/{version}"


def given(fields: Record) -> Record:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}
