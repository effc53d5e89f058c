"""The gate before pages: a cookie opens them and nothing else, from their own origin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from starlette.responses import JSONResponse

from modelcloud.control.app import create_app
from modelcloud.control.web.browser import COOKIE
from support.control import ControlRig

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

HERE = "http://127.0.0.1:8000"
PAGE = {"accept": "text/html,application/xhtml+xml"}


class Site:
    """Says who looks at it."""

    public = frozenset({"/sign-in"})
    uploads = frozenset({"/files/archive"})
    stopped = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        actor = scope["state"]["actor"]
        await JSONResponse({"who": actor and actor.name})(scope, receive, send)

    async def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def site(rig: ControlRig) -> Site:
    made = Site()
    rig.app = create_app(rig.state, lambda _state, _auth: made)
    transport = httpx.ASGITransport(rig.app, client=("127.0.0.1", 40000))
    rig.run(rig.http.aclose())
    rig.http = httpx.AsyncClient(transport=transport, base_url=HERE)
    return made


def cookie(token: str) -> dict[str, str]:
    return {"cookie": f"{COOKIE}={token}"}


@pytest.mark.usefixtures("site")
def test_pages_know_who_looks_by_the_cookie_alone(rig: ControlRig) -> None:
    ann = rig.user("ann")
    assert rig.call(None, "GET", "/x", headers=cookie(ann)).json() == {"who": "ann"}
    assert rig.call(ann, "GET", "/x").status_code == 401, "a bearer token opens no page"
    assert rig.call(None, "GET", "/sign-in").json() == {"who": None}
    assert rig.call(None, "GET", "/sign-in", headers=cookie(ann)).json() == {"who": "ann"}
    token = rig.token("ann")
    assert rig.call(None, "GET", "/x", headers=cookie(token)).status_code == 401


@pytest.mark.usefixtures("site")
def test_the_api_takes_no_cookie(rig: ControlRig) -> None:
    ann = rig.user("ann")
    assert rig.call(None, "GET", "/api/v1/groups", headers=cookie(ann)).status_code == 401
    assert rig.call(ann, "GET", "/api/v1/groups").status_code == 200
    assert rig.call(None, "GET", "/healthz").status_code == 200
    assert rig.call(None, "GET", "/metrics", headers=cookie(ann)).status_code == 401


@pytest.mark.usefixtures("site")
def test_a_browser_is_led_to_the_door_and_a_program_is_told(rig: ControlRig) -> None:
    answer = rig.call(None, "GET", "/a/b?c=d", headers=PAGE)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/a/b%3Fc%3Dd")
    assert rig.call(None, "GET", "/a/b").status_code == 401
    assert rig.call(None, "POST", "/a/b", headers=PAGE).status_code == 401


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"},
     {"sec-fetch-site": "same-site"}],
)  # fmt: skip
def test_what_changes_something_comes_from_a_page_of_this_origin(
    rig: ControlRig, headers: dict[str, str]
) -> None:
    ann = cookie(rig.user("ann"))
    assert rig.call(None, "POST", "/x", headers={**ann, **headers}).status_code == 403
    assert rig.call(None, "POST", "/sign-in", headers=headers).status_code == 403
    assert rig.call(None, "GET", "/x", headers={**ann, **headers}).status_code == 200
    own = {**ann, "origin": HERE, "sec-fetch-site": "same-origin"}
    assert rig.call(None, "POST", "/x", headers=own).status_code == 200


@pytest.mark.usefixtures("site")
def test_a_page_has_the_names_of_this_server_only(rig: ControlRig) -> None:
    ann = cookie(rig.user("ann"))
    evil = {**ann, "host": "evil.example"}
    assert rig.call(None, "GET", "/x", headers=evil).status_code == 403
    assert rig.call(None, "GET", "/sign-in", headers={"host": "evil.example"}).status_code == 403


@pytest.mark.usefixtures("site")
def test_bodies_are_limited_but_for_uploads(rig: ControlRig) -> None:
    ann = cookie(rig.user("ann"))
    large = {"content": b"x" * (2 << 20), "headers": ann}
    assert rig.call(None, "POST", "/x", **large).status_code == 413  # type: ignore[arg-type]
    answer = rig.call(None, "POST", "/files/archive", **large)  # type: ignore[arg-type]
    assert answer.status_code == 200


def test_the_site_ends_with_the_application(rig: ControlRig, site: Site) -> None:
    rig.start()
    assert not site.stopped
    rig.run(rig._lifespan.__aexit__(None, None, None))
    rig._lifespan = None
    assert site.stopped
