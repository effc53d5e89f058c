"""What passes between a browser and its lab: neither learns of the other what is the platform's."""

from __future__ import annotations

import pytest

from modelcloud.control.workspaces import forwarding


def test_a_lab_gets_its_token_and_none_of_the_browsers_cookies_or_addresses() -> None:
    sent = [
        (b"cookie", b"modelcloud_session=s; modelcloud_workspace=w; _xsrf=x"),
        (b"Authorization", b"Bearer stolen"), (b"host", b"labs.example"),
        (b"origin", b"http://labs.example"), (b"referer", b"http://labs.example/w/a/lab"),
        (b"x-forwarded-for", b"10.0.0.1"), (b"forwarded", b"for=10.0.0.1"),
        (b"connection", b"keep-alive"), (b"transfer-encoding", b"chunked"),
        (b"content-type", b"application/json"), (b"Range", b"bytes=0-1"),
    ]  # fmt: skip
    assert forwarding.to_lab(sent, "lab-token") == [
        (b"content-type", b"application/json"), (b"Range", b"bytes=0-1"),
        (b"host", b"localhost"), (b"authorization", b"token lab-token"),
    ]  # fmt: skip


def test_a_browser_gets_no_cookie_and_no_rule_of_the_labs_for_the_origin() -> None:
    sent = [
        (b"Set-Cookie", b"modelcloud_session=planted"), (b"Service-Worker-Allowed", b"/"),
        (b"Access-Control-Allow-Origin", b"*"), (b"Clear-Site-Data", b'"cookies"'),
        (b"Strict-Transport-Security", b"max-age=1"), (b"Connection", b"close"),
        (b"Content-Type", b"text/html"), (b"Content-Security-Policy", b"sandbox"),
    ]  # fmt: skip
    got = forwarding.to_browser(sent)
    assert got[:2] == [(b"content-type", b"text/html"), (b"content-security-policy", b"sandbox")]
    added = got[2:]
    assert {name for name, _ in added} == {
        b"content-security-policy", b"cross-origin-opener-policy",
        b"cross-origin-resource-policy", b"referrer-policy", b"x-content-type-options",
    }  # fmt: skip
    assert b"connect-src 'self'" in dict(added)[b"content-security-policy"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/w/abc/lab", ("abc", "lab")), ("/w/abc/api/kernels/1", ("abc", "api/kernels/1")),
        ("/w/abc/", ("abc", "")), ("/w/abc", ("abc", "")), ("/w/", None), ("/w", None), ("/", None),
        ("/x/abc/lab", None), ("//w/abc/lab", None), ("w/abc/lab", None), ("", None),
    ],
)  # fmt: skip
def test_a_path_names_its_workspace(path: str, found: tuple[str, str] | None) -> None:
    assert forwarding.split(path) == found


def test_the_cookie_is_for_its_workspaces_addresses_and_no_script() -> None:
    made = forwarding.set_cookie("/w/abc/", "secret", secure=True).decode()
    assert made == ("modelcloud_workspace=secret; Path=/w/abc/; HttpOnly; SameSite=Strict; Secure")
