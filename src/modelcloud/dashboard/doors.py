"""Signing in, changing the password and signing out: plain pages that need no script.

Must never: say whether a name or a password was wrong, or keep either.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote

from starlette.responses import HTMLResponse, RedirectResponse, Response

from modelcloud.control.access import auth as sessions
from modelcloud.control.access.auth import SESSION_S, Auth
from modelcloud.control.access.passwords import LONGEST, SHORTEST
from modelcloud.control.web import browser
from modelcloud.dashboard import files
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import alert, button
from modelcloud.dashboard.parts.forms import Field, control
from modelcloud.dashboard.tokens import form_token, is_form_token
from modelcloud.dashboard.words import Words
from modelcloud.errors import Forbidden, InvalidInput, ModelcloudError, TooManyRequests

if TYPE_CHECKING:
    from starlette.requests import Request

    from modelcloud.control.access.permissions import Actor
    from modelcloud.control.state import PlatformState

#: What signing in says of itself.
_DOOR_WORDS = ("the user name or the password is wrong",)
#: No script, no frame, nothing from elsewhere.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "same-origin",  # without one, browsers send forms with the origin `null`
    "x-frame-options": "DENY",
}


class Doors:
    """The plain pages.

    Args:
        state: the platform.
        auth: who signs people in.
    """

    def __init__(self, state: PlatformState, auth: Auth) -> None:
        self._state = state
        self._auth = auth

    async def sign_in(self, request: Request) -> Response:
        """The page, and what it sends."""
        t = files.words_of(request)
        wanted = browser.safe_next(request.query_params.get("next"))
        actor: Actor | None = request.state.actor
        if request.method != "POST":
            if actor is not None:
                return RedirectResponse(wanted, 303)
            if _from_elsewhere(request):
                return _bounce(t, wanted)
            return _page(request, t, t("Sign in"), _sign_in_form(t, wanted))
        fields = await _fields(request)
        user, password = fields.get("user", ""), fields.get("password", "")
        peer = request.client.host if request.client else ""
        try:
            signed_in = await self._auth.sign_in(user[:LONGEST], password[: LONGEST + 1], peer)
        except ModelcloudError as error:
            text = t(error.message) if error.status == 401 else error.message
            form = _sign_in_form(t, wanted, user=user[:100], error=text)
            answer = _page(request, t, t("Sign in"), form, status=error.status)
            if isinstance(error, TooManyRequests) and "retry_after_s" in error.fields:
                answer.headers["retry-after"] = str(error.fields["retry_after_s"])
            return answer
        to = browser.PASSWORD if signed_in.must_change_password else wanted
        answer = RedirectResponse(to, 303)
        answer.set_cookie(
            browser.COOKIE,
            signed_in.token,
            max_age=int(SESSION_S),
            httponly=True,
            samesite="strict",
            secure=request.headers.get("origin", "").startswith("https:"),
        )
        return answer

    async def password(self, request: Request) -> Response:
        """The page to change one's password, and what it sends."""
        t = files.words_of(request)
        actor: Actor = request.state.actor
        token = _token(request)
        draw = partial(_password_form, t, token, must=actor.must_change_password)
        if request.method != "POST":
            return _page(request, t, t("Change password"), draw())
        fields = await _form_of(request, token)
        try:
            if fields.get("new", "") != fields.get("again", ""):
                raise InvalidInput("again", "another one", "the new password once more")
            await self._auth.change_password(
                actor, fields.get("current", ""), fields.get("new", "")
            )
        except ModelcloudError as error:
            field, text = _wrong(t, error)
            form = draw(errors={field: text})
            return _page(request, t, t("Change password"), form, status=error.status)
        return RedirectResponse("/", 303)

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        await _form_of(request, _token(request))
        await self._state.store.transact(partial(sessions.sign_out, actor=request.state.actor))
        answer = RedirectResponse(browser.SIGN_IN, 303)
        answer.delete_cookie(browser.COOKIE, httponly=True, samesite="strict")
        return answer


def _token(request: Request) -> str:
    headers = {"cookie": tuple(request.headers.getlist("cookie"))}
    return browser.session_token(headers) or ""


async def _fields(request: Request) -> dict[str, str]:
    """What a form sends; of a name that comes twice, the first."""
    found = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=20)
    return {name: values[0] for name, values in found.items()}


async def _form_of(request: Request, token: str) -> dict[str, str]:
    """Likewise, of a page of this session only.

    Raises:
        Forbidden: it is of none.
    """
    fields = await _fields(request)
    if not is_form_token(token, fields.get("form_token", "")):
        raise Forbidden("this form is not of a page of your session; load the page again")
    return fields


def _wrong(t: Words, error: ModelcloudError) -> tuple[str, str]:
    """The field that is wrong, and what is wrong with it."""
    if isinstance(error, InvalidInput):
        field = str(error.fields.get("field", ""))
        if field == "again":
            return field, t("The two passwords differ")
        if field == "new":
            return field, t(
                "A password has {least} to {most} characters and is not the one before",
                least=SHORTEST,
                most=LONGEST,
            )
        return field, error.message
    if isinstance(error, Forbidden):
        return "current", t("This is not your password")
    return "", error.message


def _from_elsewhere(request: Request) -> bool:
    """Whether a link on another site led here: then the browser kept its cookie to itself."""
    return (
        request.headers.get("sec-fetch-site") == "cross-site"
        and "again" not in request.query_params
    )


def _bounce(t: Words, wanted: str) -> Response:
    """Leads to the same page from here, so that the cookie comes along."""
    to = f"{browser.SIGN_IN}?again=1&next={quote(wanted, safe='/')}"
    page = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("title", "modelcloud"),
            element("meta", http_equiv="refresh", content=f"0;url={to}"),
        ),
        element("body", element("a", t("Go on"), href=to)),
        lang=t.language,
    )
    return HTMLResponse(f"<!DOCTYPE html>{page}", headers=_HEADERS)


def _sign_in_form(t: Words, wanted: str, *, user: str = "", error: str = "") -> Markup:
    return element(
        "form",
        alert(error) if error else None,
        control(
            Field(name="user", label=t("User"), value=user, autocomplete="username", focus=not user)
        ),
        control(
            Field(
                name="password",
                label=t("Password"),
                kind="password",
                autocomplete="current-password",
                focus=bool(user),
            )
        ),
        button(t("Sign in"), kind="primary wide"),
        method="post",
        action=browser.sign_in_address(wanted),
    )


def _password_form(
    t: Words, token: str, *, must: bool, errors: dict[str, str] | None = None
) -> Markup:
    wrong = errors or {}
    new_help = t("{least} characters or more", least=SHORTEST)
    fields = [
        Field(
            name="current",
            label=t("Current password"),
            kind="password",
            autocomplete="current-password",
            focus=True,
        ),
        Field(
            name="new",
            label=t("New password"),
            kind="password",
            autocomplete="new-password",
            help=new_help,
        ),
        Field(
            name="again",
            label=t("New password, once more"),
            kind="password",
            autocomplete="new-password",
        ),
    ]
    note: Child = t("Choose a password of your own before anything else.") if must else None
    return join(
        element(
            "form",
            element("p", note, class_="note") if note else None,
            alert(wrong[""]) if "" in wrong else None,
            element("input", type="hidden", name="form_token", value=form_token(token)),
            *(control(field, wrong.get(field.name, "")) for field in fields),
            button(t("Change password"), kind="primary wide"),
            method="post",
            action=browser.PASSWORD,
        ),
        None if must else element("p", element("a", t("Back"), href="/"), class_="below"),
    )


def _page(request: Request, t: Words, title: str, *content: Child, status: int = 200) -> Response:
    page = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("title", f"{title} · modelcloud"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("link", rel="stylesheet", href=files.address("page.css")),
            element("link", rel="icon", href=files.address("icon.svg")),
        ),
        element(
            "body",
            element(
                "main",
                element(
                    "div",
                    element("img", src=files.address("icon.svg"), alt="", width=36, height=36),
                    element("h1", title),
                    class_="door-head",
                ),
                *content,
                class_="door",
            ),
        ),
        lang=t.language,
        data_theme=files.theme_of(request),
    )
    return HTMLResponse(f"<!DOCTYPE html>{page}", status, headers=_HEADERS)
