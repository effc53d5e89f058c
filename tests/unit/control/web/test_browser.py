"""What a browser may present, and where it may be sent."""

from __future__ import annotations

import pytest

from modelcloud.control.web.browser import is_api, safe_next, session_token, sign_in_address


@pytest.mark.parametrize(
    "wanted",
    ["/", "/services", "/services/m261/logs?version=3", "/groups/a%20b", "/services?q=http://x"],
)
def test_a_page_of_this_site_is_gone_on_to(wanted: str) -> None:
    assert safe_next(wanted) == wanted


@pytest.mark.parametrize(
    "wanted",
    [
        None, "", "services", "http://evil.example", "https:evil.example", "//evil.example",
        "/\\evil.example", "\\/evil.example", "/\t/evil.example", "/\n/evil.example",
        "/%2fevil.example", "/%5cevil.example", "/%2F%2Fevil.example", "javascript:alert(1)",
        "data:text/html,x", "/sign-in?next=//evil.example", "/sign-out", "/api/v1/users",
        "/" + "a" * 3000, " /services", "/ser vices", "/\x7f/",
    ],
)  # fmt: skip
def test_another_site_a_door_or_the_api_is_not(wanted: str | None) -> None:
    assert safe_next(wanted) == "/"


def test_where_to_sign_in_names_the_page_that_was_wanted() -> None:
    assert sign_in_address("/") == "/sign-in"
    assert sign_in_address("/services?q=a b") == "/sign-in"  # it holds a space: none of ours
    assert sign_in_address("/services?q=a&state=b") == "/sign-in?next=/services%3Fq%3Da%26state%3Db"
    assert sign_in_address("//evil.example") == "/sign-in"


def test_the_session_is_the_one_cookie_of_its_name() -> None:
    assert session_token({"cookie": ("a=1; modelcloud_session=mc_x; b=2",)}) == "mc_x"
    assert session_token({}) is None
    assert session_token({"cookie": ("modelcloud_session=",)}) is None
    twice = ("modelcloud_session=mc_x", "modelcloud_session=mc_y")
    assert session_token({"cookie": twice}) is None, "nobody can tell which"


def test_what_is_the_apis_is_no_page() -> None:
    for path in ("/api", "/api/docs", "/api/v1/users", "/healthz", "/readyz", "/metrics"):
        assert is_api(path)
    for path in ("/", "/services", "/apis", "/metricsx", "/healthz/"):
        assert not is_api(path)
