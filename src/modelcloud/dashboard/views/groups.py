"""Groups, and one group: who shares it at which level, and what it may use."""

from __future__ import annotations

from modelcloud.control.access.groups import GroupRecord
from modelcloud.control.access.permissions import Action, Level
from modelcloud.control.api import groups, node
from modelcloud.control.api.groups import GroupChanges, NewGroup, Sharing
from modelcloud.control.common.paging import MAX_LIMIT, Page
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import (
    button,
    chip,
    empty,
    facts,
    heading,
    link,
    link_button,
    meter,
    panel,
    row,
    size,
    table,
    when,
)
from modelcloud.dashboard.parts.forms import Field, Form
from modelcloud.dashboard.rights import Rights
from modelcloud.dashboard.view import Act, View
from modelcloud.dashboard.words import Words

#: What a member may hold, least first.
LEVELS = (Level.READ, Level.MODIFY, Level.MANAGE)


class Groups(View):
    """Those that one may read."""

    section = "groups"

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.t("Groups")

    async def read(self) -> None:
        """The groups."""
        self.groups = (await self.asks.call(groups.list_groups, page=Page(MAX_LIMIT))).items

    def draw(self) -> Markup:
        """The page."""
        t = self.t
        make = button(t("New group"), "new", symbol="plus", kind="primary")
        note = t("A group owns services. Its members may read, modify or manage what is in it.")
        rows = [
            row(
                link(element("strong", group.name), addresses.group(group.name)),
                element("span", group.description, class_="muted"),
                chip(t(group.level)),
                _access(t, group),
                link(t("Services"), addresses.services_of(group.name)),
                key=f"group-{group.name}",
            )
            for group in self.groups
        ]
        heads = [t("Name"), t("Description"), t("Your level"), t("Predictions"), ""]
        content: Child = element("section", table(self.title, heads, rows), class_="panel")
        if not rows:
            content = empty(
                t("No groups"), t("You are a member of no group. Make one of your own."), make
            )
        return join(heading(self.title, make, note=note), content)

    async def do_new(self, _: Act) -> None:
        """A form for a group."""
        t = self.t
        self.open(
            Form(
                "make",
                t("New group"),
                t("Make the group"),
                [
                    Field(
                        name="name", label=t("Name"), focus=True, help=t("Letters, digits, _ and -")
                    ),
                    Field(name="description", label=t("Description"), wide=True),
                ],
            )
        )

    async def do_make(self, act: Act) -> None:
        """Make it."""
        assert self.form is not None
        body = NewGroup(**self.form.values(act.fields))
        await self.asks.call(groups.create_group, body=body)
        self.done(self.t("Group {name} made", name=body.name))
        await self.tab.go(addresses.group(body.name))


class Group(View):
    """One of them."""

    section = "groups"

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.place["group"]

    async def read(self) -> None:
        """The group, its members, what it uses."""
        name = self.place["group"]
        self.group = await self.asks.call(groups.get_group, group=name)
        self.members = (
            await self.asks.call(groups.list_members, group=name, page=Page(MAX_LIMIT))
        ).items
        uses = await self.asks.call(node.get_node)
        self.uses = next(one.in_use for one in uses.groups if one.group == name)
        self.rights = Rights(self.tab.actor, self.group.level)

    def draw(self) -> Markup:
        """The page."""
        t, group = self.t, self.group
        actions: list[Child] = [
            link_button(t("Services"), addresses.services_of(group.name), symbol="services")
        ]
        if self.rights.may(Action.EDIT_GROUP):
            actions += [
                button(t("Edit"), "edit", symbol="edit"),
                button(t("Delete"), "drop", symbol="trash"),
            ]
        return join(
            heading(
                group.name, *actions, note=group.description, crumbs=[(t("Groups"), "/groups")]
            ),
            element(
                "div",
                self._members(),
                element("div", self._about(), self._quota(), class_="stack"),
                class_="grid thirds",
            ),
        )

    def _members(self) -> Markup:
        t = self.t
        shares = self.rights.may(Action.SHARE)
        rows = [
            row(
                element("strong", member.user),
                _level_choice(t, member.user, member.level)
                if shares and member.user != self.group.name
                else chip(t(member.level)),
                element(
                    "div",
                    button(t("Remove"), "unshare", kind="quiet", small=True, data_user=member.user)
                    if shares and member.user != self.group.name
                    else None,
                    class_="actions",
                ),
                key=f"member-{member.user}",
            )
            for member in self.members
        ]
        add = button(t("Add a member"), "add", symbol="plus", small=True) if shares else None
        return panel(
            t("Members"),
            table(
                t("Members"),
                [t("User"), t("Level"), ""],
                rows,
                empty_text=t("Nobody shares this group."),
            ),
            actions=add,
        )

    def _about(self) -> Markup:
        t, group = self.t, self.group
        return panel(
            t("About"),
            facts(
                [
                    (t("Your level"), chip(t(group.level), tone="accent")),
                    (t("Predictions"), _access(t, group)),
                    (t("Made"), when(group.created_at, as_="date")),
                ]
            ),
        )

    def _quota(self) -> Markup:
        t, quota, uses = self.t, self.group.quota, self.uses
        meters = []
        for label, used, limit in (
            (t("Processors"), uses.cpu, quota.cpu),
            ("GPU", uses.gpu, quota.gpu),
            (t("Replicas"), float(uses.replicas), quota.replicas),
        ):
            shown = f"{used:g}" if limit is None else f"{used:g} / {limit:g}"
            meters.append(meter(label, used, limit or 0.0, shown))
        memory = size(uses.memory) + ("" if quota.memory is None else f" / {size(quota.memory)}")
        meters.insert(1, meter(t("Memory"), uses.memory, quota.memory or 0.0, memory))
        return panel(t("In use"), *meters)

    async def do_add(self, _: Act) -> None:
        """A form for a member."""
        t = self.t
        choices = [(level.word, t(f"may {level.word}")) for level in LEVELS]
        self.open(
            Form(
                "share",
                t("Add a member"),
                t("Add"),
                [
                    Field(name="user", label=t("User"), focus=True),
                    Field(
                        name="level", label=t("Level"), kind="select", choices=choices, value="read"
                    ),
                ],
            )
        )

    async def do_share(self, act: Act) -> None:
        """Add somebody, or set their level."""
        user = str(act.fields.get("user") or act.get("user")).strip()
        level = str(act.fields.get("level") or act.get("value"))
        await self.asks.call(
            groups.share_group,
            group=self.group.name,
            user=user,
            body=Sharing.model_validate({"level": level}),
        )
        self.done(
            self.t(
                "{user} may {level} {group}", user=user, level=self.t(level), group=self.group.name
            )
        )

    async def do_unshare(self, act: Act) -> None:
        """Take somebody's level away."""
        user = act.get("user")
        await self.asks.call(groups.unshare_group, group=self.group.name, user=user)
        self.done(self.t("{user} is no member any more", user=user))

    async def do_edit(self, _: Act) -> None:
        """A form for the group."""
        t, group = self.t, self.group
        self.open(
            Form(
                "save",
                t("Edit {name}", name=group.name),
                t("Save"),
                [
                    Field(
                        name="description",
                        label=t("Description"),
                        value=group.description,
                        wide=True,
                        focus=True,
                    ),
                    Field(
                        name="public_predictions",
                        kind="check",
                        value=group.public_predictions,
                        wide=True,
                        label=t("Models answer without a token"),
                    ),
                ],
                args={"revision": str(group.revision)},
            )
        )

    async def do_save(self, act: Act) -> None:
        """Change it."""
        assert self.form is not None
        await self.asks.call(
            groups.edit_group,
            on=act.number("revision"),
            group=self.group.name,
            body=GroupChanges(**self.form.values(act.fields)),
        )
        self.done(self.t("Saved"))

    async def do_drop(self, _: Act) -> None:
        """Ask first."""
        t = self.t
        self.open(
            Form(
                "drop_now",
                t("Delete {name}?", name=self.group.name),
                t("Delete"),
                [],
                danger=True,
                above=element(
                    "p", t("Its tokens end. A group that has services cannot be deleted.")
                ),
            )
        )

    async def do_drop_now(self, _: Act) -> None:
        """Delete it."""
        await self.asks.call(groups.delete_group, group=self.group.name)
        self.done(self.t("Group {name} deleted", name=self.group.name))
        await self.tab.go("/groups")


def _access(t: Words, group: GroupRecord) -> Markup:
    return chip(t("for everybody") if group.public_predictions else t("with a token"))


def _level_choice(t: Words, user: str, level: str) -> Markup:
    return element(
        "select",
        *(
            element("option", t(f"may {one.word}"), value=one.word, selected=one.word == level)
            for one in LEVELS
        ),
        data_do="share",
        data_user=user,
        aria_label=t("Level of {user}", user=user),
        id=f"level-{user}",
    )
