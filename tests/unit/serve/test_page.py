"""The docs page's files: exactly these, and nothing from elsewhere."""

from __future__ import annotations

import re

import pytest

from modelcloud.serve import page


def test_every_file_that_the_page_names_is_served_from_its_own_address() -> None:
    html = page.page().body.decode()
    named = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert len(named) == 4
    for address in named:
        if address == "data:,":
            continue
        content = page.asset(address.removeprefix("/redoc/"))
        assert content is not None, address
        assert content.body


def test_no_script_is_inline_so_that_the_policy_can_forbid_it() -> None:
    html = page.page().body.decode()
    assert re.findall(r"<script(?![^>]* src=)", html) == []
    assert re.search(r"\son\w+=", html) is None


def test_the_policy_allows_nothing_but_this_server() -> None:
    for content in (page.page(), page.asset("init.js"), page.asset("swagger-ui.css")):
        assert content is not None
        headers = dict(content.headers)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "name",
    ["", "..", "../page.py", "swagger_bundle.js", "templates.py", "url.json", "/etc/passwd", "x\0",
     "./swagger-ui.css", "SWAGGER-UI.CSS", "swagger-ui.css/"],
)  # fmt: skip
def test_any_other_name_is_not_served(name: str) -> None:
    assert page.asset(name) is None
