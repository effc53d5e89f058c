"""What stands around every page: the navigation, who is signed in, theme and language.

Must never: offer what the user may not do.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelcloud.control.access.permissions import Action, Actor, allowed
from modelcloud.control.web import browser
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import button
from modelcloud.dashboard.parts.icons import icon
from modelcloud.dashboard.tokens import form_token
from modelcloud.dashboard.words import LANGUAGES, Words

_SECTION_WORDS = (
    "Overview",
    "Services",
    "Register",
    "Monitors",
    "Workspace",
    "Groups",
    "Tokens",
    "Users",
    "Instance types",
    "Node and quotas",
    "Audit log",
)
#: Section → address, icon and word.
_SECTIONS = (
    ("overview", "/", "overview", "Overview"),
    ("services", "/services", "services", "Services"),
    ("register", "/register", "register", "Register"),
    ("monitors", "/monitors", "monitors", "Monitors"),
    ("workspace", "/workspace", "workspace", "Workspace"),
    ("groups", "/groups", "groups", "Groups"),
    ("tokens", "/tokens", "tokens", "Tokens"),
)
_ADMIN = (
    ("users", "/users", "users", "Users"),
    ("instance-types", "/instance-types", "types", "Instance types"),
    ("node", "/node", "node", "Node and quotas"),
    ("audit", "/audit", "audit", "Audit log"),
)


def draw(t: Words, actor: Actor, section: str, theme: str, session: str) -> Markup:
    """The frame."""
    return join(
        element("a", t("Skip to the page"), href="#main", class_="skip", data_plain=True),
        element(
            "aside",
            element("a", _mark(), element("span", "modelcloud"), href="/", class_="brand"),
            element(
                "details",
                element("summary", icon("menu"), element("span", t("Menu")), class_="button quiet"),
                _navigation(t, actor, section),
                class_="menu narrow",
            ),
            element("div", _navigation(t, actor, section), class_="broad"),
            _account(t, actor, theme, session),
            class_="side",
        ),
    )


def _navigation(t: Words, actor: Actor, section: str) -> Markup:
    def entry(name: str, to: str, symbol: str, word: str) -> Markup:
        current = "page" if name == section else None
        return element(
            "li",
            element("a", icon(symbol), element("span", t(word)), href=to, aria_current=current),
        )

    admin: Child = None
    if allowed(actor, Action.MANAGE_USERS):
        admin = join(
            element("p", t("Administration"), class_="nav-title"),
            element("ul", *(entry(*one) for one in _ADMIN)),
        )
    return element(
        "nav", element("ul", *(entry(*one) for one in _SECTIONS)), admin, aria_label=t("Pages")
    )


def _account(t: Words, actor: Actor, theme: str, session: str) -> Markup:
    themes = [("auto", t("As the system")), ("light", t("Light")), ("dark", t("Dark"))]
    return element(
        "div",
        element(
            "details",
            element(
                "summary",
                element("span", actor.name[:1].upper(), class_="avatar", aria_hidden="true"),
                element("span", actor.name, class_="who", aria_hidden="true"),
                element("span", t("Account of {user}", user=actor.name), class_="unseen"),
                icon("more"),
            ),
            element(
                "div",
                element("p", t("Theme"), class_="nav-title"),
                element(
                    "div",
                    *(_choice(label, "theme", to, to == theme) for to, label in themes),
                    class_="choices",
                ),
                element("p", t("Language"), class_="nav-title"),
                element(
                    "div",
                    *(
                        _choice(label, "language", to, to == t.language)
                        for to, label in LANGUAGES.items()
                    ),
                    class_="choices",
                ),
                element("hr"),
                element(
                    "a",
                    icon("key"),
                    element("span", t("Change password")),
                    href=browser.PASSWORD,
                    data_plain=True,
                ),
                element(
                    "a", icon("docs"), element("span", t("API")), href="/api/docs", data_plain=True
                ),
                element(
                    "form",
                    element("input", type="hidden", name="form_token", value=form_token(session)),
                    button(t("Sign out"), symbol="door", kind="quiet"),
                    method="post",
                    action=browser.SIGN_OUT,
                ),
                class_="sheet",
            ),
            class_="menu up",
        ),
        class_="account",
    )


def _choice(label: str, do: str, to: str, chosen: bool) -> Markup:
    return element(
        "button",
        label,
        type="button",
        data_do=do,
        data_to=to,
        aria_pressed="true" if chosen else "false",
    )


def toasts(t: Words, said: Mapping[str, tuple[str, str]]) -> Markup:
    """What was said last."""
    return join(
        element(
            "div",
            element("span", text),
            button(
                t("Close"),
                "hush",
                symbol="close",
                kind="quiet",
                small=True,
                hidden_label=True,
                data_key=key,
            ),
            class_=f"toast tone-{tone}",
            role="alert" if tone == "bad" else "status",
            data_key=f"toast-{key}",
        )
        for key, (text, tone) in said.items()
    )


def _mark() -> Markup:
    return Markup(
        '<svg class="mark" viewBox="0 0 24 24" width="24" height="24" aria-hidden="true">'
        '<path d="M7 18a5 5 0 0 1-.6-9.96A6 6 0 0 1 18 9.5 4.3 4.3 0 0 1 17.7 18z" '
        'fill="none" stroke="currentColor" stroke-width="1.8" stroke-linejoin="round"></path>'
        '<circle cx="9" cy="13.4" r="1.5" fill="currentColor"></circle>'
        '<circle cx="12.6" cy="13.4" r="1.5" fill="currentColor"></circle>'
        '<circle cx="16.2" cy="13.4" r="1.5" fill="currentColor" opacity=".4"></circle></svg>'
    )
