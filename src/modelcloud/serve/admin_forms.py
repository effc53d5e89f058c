"""Forms of admin requests and of their answers, for whoever answers them.

Must never: know what an address means, or who may ask for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import msgspec

from modelcloud.dataplane.messages import AdminRequest, AdminResponse
from modelcloud.errors import (
    MethodNotAllowed,
    ModelcloudError,
    Overloaded,
    Superseded,
    TooManyRequests,
    Unauthorized,
    UpdateFailed,
    UsageError,
)
from modelcloud.serve import access

if TYPE_CHECKING:
    from modelcloud.serve import page


def matches(pattern: str, path: str) -> bool:
    """Whether a path is the pattern's; one that ends in `/*` takes one further segment."""
    if not pattern.endswith("/*"):
        return pattern == path
    head, _, tail = path.rpartition("/")
    return head == pattern[:-2] and bool(tail)


def headers_of(request: AdminRequest) -> dict[str, tuple[str, ...]]:
    """Each header's values, names in lower case."""
    headers: dict[str, tuple[str, ...]] = {}
    for name, value in request.headers:
        headers[name.lower()] = (*headers.get(name.lower(), ()), value)
    return headers


def last_segment(request: AdminRequest) -> str:
    """What stands behind the last slash of the path."""
    return request.path.rpartition("/")[2]


def waits(request: AdminRequest) -> bool:
    """Whether the answer is to come when what is asked for is done: not with `?wait=false`.

    Raises:
        UsageError: `wait` is something else.
    """
    given = parse_qs(request.query, keep_blank_values=True).get("wait", ["true"])
    if given not in (["true"], ["false"]):
        raise UsageError("wait: accepted: true or false", field="wait")
    return given == ["true"]


def json_answer(request: AdminRequest, status_code: int, record: object) -> AdminResponse:
    """An answer of JSON, which nobody is to keep."""
    headers = [("cache-control", "no-store")]
    if status_code == Overloaded.status:
        headers.append(("retry-after", "1"))
    body = msgspec.json.encode(record)
    return AdminResponse(id=request.id, status=status_code, body=body, headers=headers)


def content_answer(request: AdminRequest, content: page.Content) -> AdminResponse:
    """A file of the docs page."""
    return AdminResponse(
        id=request.id,
        status=200,
        body=content.body,
        content_type=content.content_type,
        headers=list(content.headers),
    )


def refusal(request: AdminRequest, error: ModelcloudError) -> AdminResponse:
    """The answer that an error is."""
    record = error.to_dict()
    if isinstance(error, (UpdateFailed, Superseded)):
        record = {"success": False, **record}
    response = json_answer(request, error.status, record)
    if isinstance(error, Unauthorized):
        response.headers.append(("www-authenticate", "Bearer"))
    if isinstance(error, TooManyRequests):
        response.headers.append(("retry-after", str(round(access.GUESS_WINDOW_S))))
    if isinstance(error, MethodNotAllowed):
        response.headers.append(("allow", ", ".join(error.fields["accepted"])))
    return response
