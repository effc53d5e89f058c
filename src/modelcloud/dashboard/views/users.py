"""Users, for administrators: made, disabled, given another password."""

from __future__ import annotations

from typing import Any

from modelcloud.control.access import passwords
from modelcloud.control.access.users import UserRecord
from modelcloud.control.api import users
from modelcloud.control.api.users import NewUser, UserChanges
from modelcloud.control.common.paging import MAX_LIMIT, Page
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import (
    badge,
    button,
    chip,
    code,
    dialog,
    heading,
    row,
    table,
    when,
)
from modelcloud.dashboard.parts.forms import Field, Form
from modelcloud.dashboard.view import Act, View


class Users(View):
    """All of them."""

    section = "users"
    given: tuple[str, str] | None = None

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.t("Users")

    async def read(self) -> None:
        """The users."""
        self.users = (await self.asks.call(users.list_users, page=Page(MAX_LIMIT))).items

    def draw(self) -> Markup:
        """The page."""
        t = self.t
        make = button(t("New user"), "new", symbol="plus", kind="primary")
        heads = [t("Name"), t("State"), t("Made"), ""]
        rows = [self._row(one) for one in self.users]
        return join(
            heading(self.title, make),
            element("section", table(self.title, heads, rows), class_="panel"),
        )

    def _row(self, one: UserRecord) -> Markup:
        t = self.t
        marks: list[Child] = []
        if one.is_admin:
            marks.append(chip(t("administrator"), tone="accent"))
        if one.must_change_password:
            marks.append(chip(t("must change the password")))
        me = one.name == self.tab.actor.name
        actions: list[Child] = [
            button(
                t("Edit"),
                "edit",
                kind="quiet",
                small=True,
                data_user=one.name,
                aria_label=f"{t('Edit')}: {one.name}",
            )
        ]
        if not me:
            actions.append(
                button(
                    t("New password"),
                    "reset",
                    kind="quiet",
                    small=True,
                    data_user=one.name,
                    aria_label=f"{t('New password')}: {one.name}",
                )
            )
            actions.append(
                button(
                    t("Delete"),
                    "drop",
                    kind="quiet bad",
                    small=True,
                    data_user=one.name,
                    aria_label=f"{t('Delete')}: {one.name}",
                )
            )
        return row(
            join(element("strong", one.name), " ", *marks),
            chip(t("disabled")) if one.disabled else badge(t, "ok"),
            when(one.created_at, as_="date"),
            element("div", *actions, class_="actions"),
            key=f"user-{one.name}",
        )

    def draw_dialog(self) -> Markup:
        """The form, or the password that was given."""
        if self.given is None:
            return super().draw_dialog()
        t = self.t
        name, password = self.given
        return dialog(
            t("Password of {user}", user=name),
            t,
            element("p", t("It is shown this once. It has to be changed at the first sign-in.")),
            code(password, "new-password", t, label=t("The password")),
            element("div", button(t("Done"), kind="primary", data_shut=True), class_="form-end"),
        )

    async def do_shut(self, act: Act) -> None:
        """Close the window; the password is forgotten here."""
        self.given = None
        await super().do_shut(act)

    async def do_new(self, _: Act) -> None:
        """A form for a user."""
        t = self.t
        self.open(
            Form(
                "make",
                t("New user"),
                t("Make the user"),
                [
                    Field(
                        name="name",
                        label=t("Name"),
                        focus=True,
                        wide=True,
                        help=t("A group of the same name is made for them"),
                    ),
                    Field(
                        name="is_admin",
                        label=t("Administrator of the instance"),
                        kind="check",
                        wide=True,
                    ),
                ],
                above=element(
                    "p",
                    t("A password is made up and shown to you; they change it first."),
                ),
            )
        )

    async def do_make(self, act: Act) -> None:
        """Make them."""
        assert self.form is not None
        values = self.form.values(act.fields)
        password = passwords.new_password()
        body = NewUser(password=password, must_change_password=True, **values)
        await self.asks.call(users.create_user, body=body)
        self.form, self.given = None, (body.name, password)

    async def do_edit(self, act: Act) -> None:
        """A form for what may be changed."""
        t, one = self.t, self._user(act)
        self.open(
            Form(
                "save",
                t("Edit {name}", name=one.name),
                t("Save"),
                [
                    Field(
                        name="is_admin",
                        label=t("Administrator of the instance"),
                        kind="check",
                        value=one.is_admin,
                        wide=True,
                    ),
                    Field(
                        name="disabled",
                        label=t("Disabled: may not sign in, and tokens open nothing"),
                        kind="check",
                        value=one.disabled,
                        wide=True,
                    ),
                    Field(
                        name="must_change_password",
                        label=t("Has to change the password at the next sign-in"),
                        kind="check",
                        value=one.must_change_password,
                        wide=True,
                    ),
                ],
                args={"user": one.name, "revision": str(one.revision)},
            )
        )

    async def do_save(self, act: Act) -> None:
        """Change them."""
        assert self.form is not None
        body = UserChanges(**self.form.values(act.fields))
        await self._edit(act, body, on=act.number("revision"))
        self.done(self.t("Saved"))

    async def do_reset(self, act: Act) -> None:
        """Ask first."""
        t = self.t
        self.open(
            Form(
                "reset_now",
                t("New password for {user}?", user=act.get("user")),
                t("Make up a password"),
                [],
                args={"user": act.get("user")},
                above=element("p", t("Their sessions end at once.")),
            )
        )

    async def do_reset_now(self, act: Act) -> None:
        """Give them another password."""
        password = passwords.new_password()
        await self._edit(act, UserChanges(password=password, must_change_password=True))
        self.form, self.given = None, (act.get("user"), password)

    async def do_drop(self, act: Act) -> None:
        """Ask first."""
        t = self.t
        self.open(
            Form(
                "drop_now",
                t("Delete {name}?", name=act.get("user")),
                t("Delete"),
                [],
                danger=True,
                args={"user": act.get("user")},
                above=element(
                    "p",
                    t("Their tokens end, and so does their group if it has no services."),
                ),
            )
        )

    async def do_drop_now(self, act: Act) -> None:
        """Delete them."""
        await self.asks.call(users.delete_user, name=act.get("user"))
        self.done(self.t("{name} deleted", name=act.get("user")))

    async def _edit(self, act: Act, body: UserChanges, **more: Any) -> None:
        await self.asks.call(users.edit_user, name=act.get("user"), body=body, **more)

    def _user(self, act: Act) -> UserRecord:
        return next(one for one in self.users if one.name == act.get("user"))
