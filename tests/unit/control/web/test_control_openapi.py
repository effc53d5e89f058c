"""The API's document is valid, complete, and shown without the internet."""

from __future__ import annotations

import re
from typing import Any

from openapi_spec_validator import validate

from modelcloud.control.web.gate import PUBLIC_PAGES
from support.control import ControlRig


def document(rig: ControlRig) -> dict[str, Any]:
    found: dict[str, Any] = rig.call(None, "GET", "/openapi.json").json()
    return found


def test_the_document_is_valid_and_tells_of_errors_and_tokens(rig: ControlRig) -> None:
    found = document(rig)
    validate(found)
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["description"], where
            assert "422" not in operation["responses"], where
            assert "application/problem+json" in operation["responses"]["default"]["content"], where
    assert found["security"] == [{"token": []}]
    assert document(rig) == found


def test_operation_ids_are_unique(rig: ControlRig) -> None:
    ids = [
        operation["operationId"]
        for operations in document(rig)["paths"].values()
        for operation in operations.values()
    ]
    assert len(ids) == len(set(ids))


def test_the_page_takes_everything_from_this_server(rig: ControlRig) -> None:
    at = "http://127.0.0.1:8000"
    html = rig.call(None, "GET", f"{at}/api/docs")
    named = set(re.findall(r'(?:src|href)="([^"]+)"', html.text)) - {"data:,"}
    assert named == {page for page in PUBLIC_PAGES if page.startswith("/api/docs/")}
    for path in named:
        answer = rig.call(None, "GET", f"{at}{path}")
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    init = rig.call(None, "GET", f"{at}/api/docs/init.js").text
    assert 'url: "/api/v1/openapi.json"' in init
    assert rig.call(None, "GET", f"{at}/api/docs/other.js").status_code == 401
