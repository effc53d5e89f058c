"""Signing in and out of the pages, and what keeps other pages, scripts and programs out of them."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, urlsplit

import httpx
import pytest
from playwright.sync_api import Page, expect

from support.dashboard import show, sign_in
from support.online import again
from support.up import PASSWORD, Up, up

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("dashboard")]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("doors") / "data") as running:
        yield running


@pytest.fixture
def session(platform: Up) -> Iterator[httpx.Client]:
    """A browser's cookies without a browser."""
    with httpx.Client(base_url=platform.api, headers={"accept": "text/html"}) as client:
        answer = client.post("/sign-in", data={"user": "admin", "password": PASSWORD})
        assert answer.status_code == 303, answer.text
        yield client


def test_one_signs_in_and_is_led_to_the_page_that_was_wanted(platform: Up, page: Page) -> None:
    page.goto(f"{platform.api}/groups?x=1")
    assert urlsplit(page.url).path == "/sign-in"
    page.get_by_label("User").fill("admin")
    page.get_by_label("Password").fill("not this one")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("the user name or the password is wrong")
    expect(page.get_by_label("User")).to_have_value("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Groups", level=1)).to_be_visible()
    assert page.url == f"{platform.api}/groups?x=1"
    (cookie,) = [c for c in page.context.cookies() if c.get("name") == "modelcloud_session"]
    assert cookie.get("httpOnly")
    assert cookie.get("sameSite") == "Strict"
    assert "modelcloud_session" not in page.evaluate("document.cookie")


@pytest.mark.parametrize(
    "wanted", ["//evil.example/", "/\\evil.example", "https://evil.example", "/\t/evil.example"]
)
def test_no_link_to_the_door_leads_to_another_site(platform: Up, page: Page, wanted: str) -> None:
    sign_in(page, platform, at=f"/sign-in?next={quote(wanted, safe='')}")
    assert page.url == f"{platform.api}/"


def test_signing_out_ends_the_session_for_good(platform: Up, page: Page) -> None:
    sign_in(page, platform)
    (cookie,) = [c for c in page.context.cookies() if c.get("name") == "modelcloud_session"]
    page.locator(".account summary").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    kept = {"cookie": f"modelcloud_session={cookie.get('value')}", "accept": "text/html"}
    answer = httpx.get(f"{platform.api}/services", headers=kept)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/services")
    with pytest.raises(Exception, match="401"):
        httpx.get(
            f"{platform.api}/api/v1/session",
            headers={"authorization": f"Bearer {cookie.get('value')}"},
        ).raise_for_status()


def test_a_page_that_is_open_is_left_once_its_session_has_ended(platform: Up, page: Page) -> None:
    platform.admin.create_user("leaver", PASSWORD)
    sign_in(page, platform, "leaver")
    platform.admin.edit_user("leaver", disabled=True)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_who_must_change_the_password_does_that_first(platform: Up, page: Page) -> None:
    platform.admin.create_user("fresh", PASSWORD, must_change_password=True)
    page.goto(f"{platform.api}/services")
    page.get_by_label("User").fill("fresh")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Change password")).to_be_visible()
    page.goto(f"{platform.api}/services")
    assert urlsplit(page.url).path == "/password"
    for current, new, repeated, wrong in (
        ("wrong wrong wrong", "another good one", "another good one", "This is not your password"),
        (PASSWORD, "short", "short", "10 to 256 characters"),
        (PASSWORD, PASSWORD, PASSWORD, "not the one before"),
        (PASSWORD, "another good one", "another bad one", "The two passwords differ"),
    ):
        page.get_by_label("Current password").fill(current)
        page.get_by_label("New password", exact=True).fill(new)
        page.get_by_label("New password, once more").fill(repeated)
        page.get_by_role("button", name="Change password").click()
        expect(page.locator(".error")).to_contain_text(wrong)
    page.get_by_label("Current password").fill(PASSWORD)
    page.get_by_label("New password", exact=True).fill("another good one")
    page.get_by_label("New password, once more").fill("another good one")
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def test_theme_and_language_are_chosen_and_kept(platform: Up, page: Page) -> None:
    sign_in(page, platform)
    page.locator(".account summary").click()
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    dark = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(dark) == "rgb(15, 19, 23)"
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", name="概览")).to_be_visible()
    show(page, platform, "/groups")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    expect(page.get_by_role("heading", name="组", exact=True)).to_be_visible()


def test_a_page_comes_back_by_itself_after_a_restart(platform: Up, page: Page) -> None:
    sign_in(page, platform, at="/groups")
    platform.kill_control()
    again(lambda: platform.admin.create_group("after-the-restart"))
    expect(page.get_by_text("after-the-restart")).to_be_visible()


# ---- attacks: rows 4, 13, 14 and 15


def upgrade(platform: Up, *headers: str, path: str = "/_nicegui_ws/socket.io/?EIO=4") -> bytes:
    """What a request for a websocket is answered with: its first line."""
    place = urlsplit(platform.api)
    assert place.hostname
    assert place.port
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        lines = [
            f"GET {path}&transport=websocket HTTP/1.1", f"Host: {place.netloc}",
            "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *headers,
        ]  # fmt: skip
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection.recv(4096).partition(b"\r\n")[0]


def test_4_a_websocket_needs_the_session_and_its_own_origin(
    platform: Up, session: httpx.Client
) -> None:
    session.get("/")  # the pages are loaded
    cookie = f"Cookie: modelcloud_session={session.cookies['modelcloud_session']}"
    assert b" 101 " in upgrade(platform, cookie, f"Origin: {platform.api}")
    assert b" 403 " in upgrade(platform)
    assert b" 403 " in upgrade(platform, "Cookie: modelcloud_session=mc_wrong")
    assert b" 403 " in upgrade(platform, cookie, "Origin: http://evil.example")
    assert b" 403 " in upgrade(platform, cookie, "Origin: null")
    token = platform.admin.create_token("x", "manage")["token"]
    assert b" 403 " in upgrade(platform, f"Cookie: modelcloud_session={token}")
    assert b" 403 " in upgrade(platform, f"Authorization: Bearer {platform.admin.token}")
    assert b" 401 " in upgrade(platform, cookie, path="/api/v1/users?x=1")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/services", "/nowhere", "/_nicegui/x", "/files/archive"])
def test_4_nothing_is_answered_without_a_session(platform: Up, method: str, path: str) -> None:
    answer = httpx.request(method, f"{platform.api}{path}")
    assert answer.status_code == 401
    assert httpx.get(f"{platform.api}{path}", headers={"accept": "text/html"}).status_code == 303


def test_13_the_cookie_opens_no_api(session: httpx.Client) -> None:
    for method, path in (("GET", "users"), ("POST", "groups"), ("DELETE", "session")):
        assert session.request(method, f"/api/v1/{path}", json={"name": "x"}).status_code == 401


def test_13_a_form_of_another_page_changes_nothing(session: httpx.Client, platform: Up) -> None:
    forged = [
        {"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ]  # fmt: skip
    for headers in forged:
        for path in ("/sign-out", "/sign-in", "/password", "/files/archive"):
            assert session.post(path, headers=headers).status_code == 403
    for path in ("/sign-out", "/password", "/files/archive"):
        own = {"origin": platform.api}
        assert session.post(path, headers=own).status_code == 403, "without the form's token"
    assert session.post("/sign-in", json={}).status_code == 401
    assert session.get("/").status_code == 200, "it was signed out"


class Evil:
    """A site of the attacker."""

    def __init__(self) -> None:
        site = self
        self.page = b""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.end_headers()
                self.wfile.write(site.page)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://localhost:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_13_another_site_can_neither_frame_nor_use_a_session(platform: Up, page: Page) -> None:
    sign_in(page, platform)
    evil = Evil()
    evil.page = f"""<!DOCTYPE html><iframe src="{platform.api}/groups"></iframe>
    <form id=form method=post action="{platform.api}/sign-out"><input name=form_token></form>
    <a id=link href="{platform.api}/groups">go</a>""".encode()
    page.goto(evil.url)
    assert page.frames[1].locator("#main").count() == 0, "it was framed"
    assert page.evaluate(
        """url => new Promise(resolve => {
            const socket = new WebSocket(url);
            socket.onopen = () => resolve('open');
            socket.onerror = () => resolve('refused');
        })""",
        platform.api.replace("http", "ws") + "/_nicegui_ws/socket.io/?EIO=4&transport=websocket",
    ) == "refused"  # fmt: skip
    with page.expect_navigation():
        page.evaluate("document.getElementById('form').submit()")
    page.goto(evil.url)
    page.locator("#link").click()  # a link leads in, by way of the door, and the session goes on
    expect(page.get_by_role("heading", name="Groups", level=1)).to_be_visible()
    evil.server.shutdown()
    evil.server.server_close()


def test_14_a_script_that_got_into_a_page_does_not_run(platform: Up, page: Page) -> None:
    sign_in(page, platform)
    blocked = page.evaluate(
        """() => new Promise(resolve => {
            document.addEventListener('securitypolicyviolation', e => resolve(e.violatedDirective));
            document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.owned=1>');
            const script = document.createElement('script');
            script.textContent = 'window.owned = 1';
            document.body.append(script);
        })"""
    )
    assert blocked.startswith("script-src")
    sent = page.evaluate(
        "fetch('http://127.0.0.1:1/x', {mode: 'no-cors'}).then(() => 'sent', () => 'blocked')"
    )
    assert sent == "blocked"
    assert page.evaluate("window.owned") is None


def test_15_every_page_has_a_policy_and_keeps_to_itself(
    platform: Up, session: httpx.Client
) -> None:
    nonces = set()
    for path in ("/", "/groups", "/nowhere", "/password", "/sign-in"):
        answer = session.get(path) if path != "/sign-in" else httpx.get(f"{platform.api}{path}")
        policy = dict(
            part.strip().partition(" ")[::2]
            for part in answer.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert "'unsafe-inline'" not in policy.get("script-src", "")
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        if nonce := re.search("'nonce-([^']+)'", policy.get("script-src", "")):
            nonces.add(nonce[1])
            assert answer.text.count("<script") == answer.text.count(f'<script nonce="{nonce[1]}"')
    assert len(nonces) == 3, "a nonce came twice"
