"""The OpenAPI document, the page to try it out on, and whether the control plane is well.

All of it is public, so: must never show what is in the store.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from sqlalchemy import text

from modelcloud.control.api.deps import PREFIX, PlatformDep
from modelcloud.control.web import problems
from modelcloud.errors import NotFound, NotReady
from modelcloud.serve import page

PAGE = "/api/docs"
DOCUMENT = f"{PREFIX}/openapi.json"

router = APIRouter(include_in_schema=False)


@router.get("/")
async def entrance() -> Response:
    """To the page."""
    return RedirectResponse(PAGE)


@router.get("/healthz")
async def healthz() -> Response:
    """Whether this process answers."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz")
async def readyz(request: Request, here: PlatformDep) -> Response:
    """Whether it does its work: the store answers, and every part of it has started."""
    await here.store.read(lambda tx: tx.execute(text("SELECT 1")).all())
    if not request.app.state.started:
        raise NotReady("the control plane is starting")
    return JSONResponse({"status": "ok"})


@router.get(DOCUMENT)
async def openapi(request: Request) -> Response:
    """The document."""
    return JSONResponse(document(request.app))


@router.get(PAGE)
async def docs() -> Response:
    """The page that `serve` has, over this document."""
    return _content(page.page(), b"/redoc/", f"{PAGE}/".encode())


@router.get(PAGE + "/{name}")
async def docs_file(name: str) -> Response:
    """A file of the page."""
    found = page.asset(name)
    if found is None:
        raise NotFound(f"nothing at {PAGE}/{name}")
    if name == "init.js":
        return _content(found, b'"/docs.json"', f'"{DOCUMENT}"'.encode())
    return _content(found)


def _content(found: page.Content, old: bytes = b"", new: bytes = b"") -> Response:
    body = found.body.replace(old, new) if old else found.body
    return Response(body, headers=dict(found.headers), media_type=found.content_type)


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of `app`, with the errors and the token as they really are."""
    made = app.openapi()
    if "securitySchemes" in (parts := made.setdefault("components", {})):
        return made  # FastAPI keeps the one that it made
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    schemas = parts.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = _PROBLEM
    made["security"] = [{"token": []}]
    failed = {
        "description": "It was refused or it failed; `detail` says why (RFC 9457).",
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for path in made["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = failed
    made["paths"]["/api/v1/session"]["post"]["security"] = []
    return made


_PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
