"""One's own tokens and sessions: made, shown once, revoked."""

from __future__ import annotations

from modelcloud.control.access.permissions import Level
from modelcloud.control.access.tokens import CreatedToken, TokenRecord
from modelcloud.control.api import groups, tokens
from modelcloud.control.api.tokens import NewToken
from modelcloud.control.common.paging import MAX_LIMIT, Page
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import (
    button,
    chip,
    code,
    dialog,
    heading,
    link,
    panel,
    row,
    table,
    when,
)
from modelcloud.dashboard.parts.forms import Field, Form
from modelcloud.dashboard.view import Act, View

#: Days after which a token expires; "": never.
_DAYS = ("1", "30", "90", "365", "")


class Tokens(View):
    """Those of who looks."""

    section = "tokens"
    created: CreatedToken | None = None

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.t("Tokens")

    async def read(self) -> None:
        """Tokens, sessions, and the groups that a token may be for."""
        found = await self.asks.call(tokens.list_tokens, page=Page(MAX_LIMIT))
        self.tokens = [one for one in found.items if one.kind == "token"]
        self.sessions = [one for one in found.items if one.kind != "token"]
        self.groups = (await self.asks.call(groups.list_groups, page=Page(MAX_LIMIT))).items

    def draw(self) -> Markup:
        """The page."""
        t = self.t
        note = t("A token lets a program do what you may do, in one group or all, up to a level.")
        make = button(t("New token"), "new", symbol="plus", kind="primary")
        rows = [self._token(one) for one in self.tokens]
        heads = [t("Name"), t("Level"), t("Group"), t("Made"), t("Expires"), t("Last used"), ""]
        return join(
            heading(self.title, make, note=note),
            panel(
                t("Tokens"),
                table(
                    t("Tokens"),
                    heads,
                    rows,
                    empty_text=t(
                        "You have none. Programs sign in with one, and so does the command line."
                    ),
                ),
            ),
            panel(
                t("Sessions"),
                table(
                    t("Sessions"),
                    [t("Began"), t("Expires"), t("Last used"), ""],
                    [self._session(one) for one in self.sessions],
                ),
            ),
        )

    def _token(self, one: TokenRecord) -> Markup:
        t = self.t
        group: Child = (
            t("all") if one.group is None else link(one.group, addresses.group(one.group))
        )
        return row(
            element("strong", one.name or f"#{one.id}"),
            chip(t(one.level)),
            group,
            when(one.created_at),
            t("never") if one.expires_at is None else when(one.expires_at, as_="date"),
            t("never") if one.last_used_at is None else when(one.last_used_at),
            self._revoke(one, t("Revoke")),
            key=f"token-{one.id}",
        )

    def _session(self, one: TokenRecord) -> Markup:
        t = self.t
        own = one.id == self.tab.actor.token_id
        return row(
            join(when(one.created_at), " ", chip(t("this one"), tone="accent") if own else None),
            when(one.expires_at, as_="date"),
            t("never") if one.last_used_at is None else when(one.last_used_at),
            None if own else self._revoke(one, t("End")),
            key=f"session-{one.id}",
        )

    def _revoke(self, one: TokenRecord, label: str) -> Markup:
        return element(
            "div",
            button(
                label,
                "revoke",
                kind="quiet",
                small=True,
                data_token=one.id,
                aria_label=f"{label}: {one.name or one.id}",
            ),
            class_="actions",
        )

    def draw_dialog(self) -> Markup:
        """The form, or the token that was made."""
        if self.created is None:
            return super().draw_dialog()
        t = self.t
        return dialog(
            t("Token {name}", name=self.created.name or f"#{self.created.id}"),
            t,
            element("p", t("It is shown this once. Keep it where nobody else reads.")),
            code(self.created.token, "new-token", t, label=t("The token")),
            element("div", button(t("Done"), kind="primary", data_shut=True), class_="form-end"),
        )

    async def do_new(self, _: Act) -> None:
        """A form for a token."""
        t = self.t
        levels = [
            (Level.PREDICT.word, t("may predict, nothing else")),
            *(
                (level.word, t(f"may {level.word}"))
                for level in (Level.READ, Level.MODIFY, Level.MANAGE)
            ),
        ]
        days = [(day, t("in {count} days", count=day) if day else t("never")) for day in _DAYS]
        self.open(
            Form(
                "make",
                t("New token"),
                t("Make the token"),
                [
                    Field(
                        name="name",
                        label=t("What for"),
                        focus=True,
                        help=t("A name by which you know it"),
                    ),
                    Field(
                        name="level",
                        label=t("Level"),
                        kind="select",
                        choices=levels,
                        value="predict",
                    ),
                    Field(
                        name="group",
                        label=t("Group"),
                        kind="select",
                        optional=True,
                        choices=[
                            ("", t("All my groups")),
                            *((g.name, g.name) for g in self.groups),
                        ],
                    ),
                    Field(
                        name="days",
                        label=t("Expires"),
                        kind="select",
                        choices=days,
                        value="90",
                        optional=True,
                    ),
                ],
            )
        )

    async def do_make(self, act: Act) -> None:
        """Make it."""
        assert self.form is not None
        values = self.form.values(act.fields)
        days = values.pop("days", None)
        body = NewToken(expires_in_s=None if days is None else float(days) * 86400, **values)
        self.created = await self.asks.call(tokens.create_token, body=body)
        self.form = None

    async def do_shut(self, act: Act) -> None:
        """Close the window; the token is forgotten here."""
        self.created = None
        await super().do_shut(act)

    async def do_revoke(self, act: Act) -> None:
        """End a token or a session."""
        await self.asks.call(tokens.revoke_token, token_id=act.number("token"))
        self.done(self.t("It opens nothing any more"))
