"""Errors as the API shows them: RFC 9457 problem details.

Must never: show a path of the server, a traceback or what was typed into a field.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from modelcloud.control.access import audit
from modelcloud.control.access.permissions import Refused
from modelcloud.errors import ModelcloudError, Overloaded, Unauthorized

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_RETRY_S = 1
#: Of what is wrong with one request, so that no answer is larger than what it answers.
MOST_TOLD, LONGEST_FIELD = 20, 200


def problem(error: ModelcloudError) -> Response:
    """The answer for an error of this package."""
    if error.detail:
        error.fields.setdefault("error_id", _log(error.detail))
    kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(error).__name__).lower()
    headers = {}
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    retry_after = error.fields.get("retry_after_s", _RETRY_S)
    if isinstance(error, Overloaded) or "retry_after_s" in error.fields:
        headers["retry-after"] = str(retry_after)
    return _answer(f"urn:modelcloud:{kind}", error.status, error.message, error.fields, headers)


def unknown_problem(error: Exception, request_line: str) -> Response:
    """The answer for what nobody foresaw."""
    error_id = secrets.token_hex(6)
    log.error("error %s: %s failed", error_id, request_line, exc_info=error)
    detail = "this went wrong on the server; its log says why, under the error_id"
    return _answer("about:blank", 500, detail, {"error_id": error_id})


def install(app: FastAPI) -> None:
    """Make every error of a router an answer of this form."""

    @app.exception_handler(ModelcloudError)
    async def _ours(request: Request, error: ModelcloudError) -> Response:
        if isinstance(error, Refused):
            await audit.keep_refused(request.app.state.platform.store, error)
        return problem(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        wrong = error.errors()
        found = [_invalid_field(one) for one in wrong[:MOST_TOLD]]
        detail = "; ".join(f"{one['field']}: {one['problem']}" for one in found)
        if len(wrong) > MOST_TOLD:
            detail += f"; and {len(wrong) - MOST_TOLD} more"
        return _answer("urn:modelcloud:invalid_input", 400, detail, {"errors": found})

    @app.exception_handler(HTTPException)
    async def _framework(request: Request, error: HTTPException) -> Response:
        detail = str(error.detail)
        if error.status_code == 404:
            detail = f"nothing at {request.url.path}"
        elif error.status_code == 405:
            detail = f"{request.method} does not apply to {request.url.path}"
        return _answer("about:blank", error.status_code, detail, {}, error.headers)


def _invalid_field(error: Mapping[str, Any]) -> dict[str, str]:
    """Where it is and what is wrong; what came is not repeated, as it may be a password."""
    place = [str(step) for step in error["loc"]]
    if len(place) > 1:
        del place[0]  # `body`, `query`, `path`, `header`
    message = str(error["msg"])
    if error["type"] == "extra_forbidden":
        message = "not known here"
    return {"field": ".".join(place)[:LONGEST_FIELD], "problem": message}


def _answer(
    kind: str,
    status: int,
    detail: str,
    fields: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
) -> Response:
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    body = {**fields, "type": kind, "title": title, "status": status, "detail": detail}
    return Response(msgspec.json.encode(body), status, dict(headers or {}), MEDIA_TYPE)


def _log(detail: str) -> str:
    error_id = secrets.token_hex(6)
    log.error("error %s: %s", error_id, detail)
    return error_id
