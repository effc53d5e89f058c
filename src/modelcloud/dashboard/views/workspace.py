"""Workspaces: one's own started, opened and stopped; what in the group's folder can be registered.

Must never: show what a notebook holds; a workspace has an origin of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from modelcloud.control.access.permissions import Action
from modelcloud.control.api import groups, versions, workspaces
from modelcloud.control.common.paging import MAX_LIMIT, Page
from modelcloud.control.services.group_folders import FolderRecord
from modelcloud.control.services.version_forms import RegisterBody
from modelcloud.control.workspaces.workspaces import WorkspaceRecord, Workspaces
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import Markup, element, join
from modelcloud.dashboard.parts.basic import (
    alert,
    badge,
    button,
    empty,
    facts,
    heading,
    link,
    link_button,
    panel,
    row,
    size,
    table,
    when,
)
from modelcloud.dashboard.parts.forms import Field, Form, control
from modelcloud.dashboard.parts.icons import icon
from modelcloud.dashboard.rights import Rights
from modelcloud.dashboard.view import Act, View
from modelcloud.errors import ModelcloudError

#: States of a workspace, as they are said.
_STATE_WORDS = ("running", "starting")


class WorkspacePage(View):
    """One's own, those of others that one may stop, and the folders of a group."""

    section = "workspace"
    every_s = 2.0
    group = ""
    error = ""
    under_way = ""
    _task: asyncio.Task[None] | None = None

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.t("Workspace")

    async def read(self) -> None:
        """The workspaces one may see, the groups in which one may have one, and its folders."""
        listed = await self.asks.call(groups.list_groups, page=Page(MAX_LIMIT))
        self.groups = [
            group.name
            for group in listed.items
            if Rights(self.tab.actor, group.level).may(Action.WORKSPACE)
        ]
        self.off = bool(self.asks.state.part(Workspaces).missing)
        found = (await self.asks.call(workspaces.list_workspaces)).items
        me = self.tab.actor.name
        self.own = next((one for one in found if one.user == me), None)
        self.others = [one for one in found if one.user != me]
        wanted = [self.own.group] if self.own else [self.group, self.query.get("group", ""), me]
        self.group = next((one for one in [*wanted, *self.groups] if one in self.groups), "")
        self.folders: list[FolderRecord] = []
        if self.group:
            asked = self.asks.call(workspaces.list_folders, group=self.group)
            self.folders = list((await asked).items)

    def draw(self) -> Markup:
        """The page."""
        t = self.t
        note = t("A JupyterLab of your own, in a folder that the members of a group share.")
        if self.off:
            return join(heading(self.title, note=note), self._how_to_get())
        if not self.groups:
            text = t(
                "For a workspace you need the level modify in a group, or a group of your own."
            )
            return join(
                heading(self.title, note=note),
                empty(t("Not for you yet"), text, link_button(t("Groups"), "/groups")),
            )
        return join(
            heading(self.title, note=note),
            alert(self.error) if self.error else None,
            self._own(),
            self._folders(),
            self._others() if self.others else None,
        )

    def _how_to_get(self) -> Markup:
        t = self.t
        steps = element(
            "ol",
            element(
                "li",
                t("Install them:"),
                " ",
                element("code", "pip install 'modelcloud[platform,dashboard,workspace]'"),
            ),
            element(
                "li",
                t("Start the platform with them, four at a time:"),
                " ",
                element("code", "modelcloud up --workspaces 4"),
            ),
        )
        return panel(t("There are no workspaces on this platform yet"), steps)

    def _own(self) -> Markup:
        t = self.t
        if self.under_way:
            return panel(
                t("Your workspace"),
                element("p", self.under_way, class_="muted", role="status", aria_busy="true"),
            )
        if self.own is None:
            choices = [(name, name) for name in self.groups]
            where = Field(
                name="group",
                label=t("Group"),
                kind="select",
                choices=choices,
                value=self.group,
                help=t("Its members may see and change what you save."),
            )
            return panel(
                t("Your workspace"),
                element(
                    "form",
                    element("div", control(where), class_="fields"),
                    element(
                        "div",
                        button(t("Start"), symbol="play", kind="primary"),
                        class_="form-end",
                    ),
                    data_do="start",
                    data_change="choose",
                ),
            )
        ready = self.own.state == "running"
        return panel(
            t("Your workspace"),
            facts(
                [
                    (t("State"), badge(t, self.own.state)),
                    (t("Group"), link(self.own.group, addresses.group(self.own.group))),
                    (t("Started"), when(self.own.started_at)),
                    (t("Memory"), size(self.own.memory)),
                ]
            ),
            element(
                "div",
                self._stop(self.own),
                element(
                    "a",
                    icon("play"),
                    element("span", t("Open JupyterLab")),
                    href=addresses.open_workspace(self.own.group),
                    target="_blank",
                    rel="noopener",
                    class_="button primary",
                    data_plain=True,
                )
                if ready
                else None,
                class_="form-end",
            ),
        )

    def _folders(self) -> Markup:
        t = self.t
        rows = [
            row(
                element("code", one.folder),
                element("code", one.main),
                element(
                    "div",
                    self._register(one, t("Under another name"), "rename", "quiet"),
                    self._register(one, t("Register"), "register", "primary"),
                    class_="actions",
                ),
                key=f"folder-{one.folder}",
            )
            for one in self.folders
        ]
        none = t("None yet. A folder with a model.py or a backend.py can be registered from here.")
        return panel(
            t("Folders of {group} that can be registered", group=self.group),
            table(t("Folders"), [t("Folder"), t("Main file"), ""], rows, empty_text=none),
        )

    def _register(self, one: FolderRecord, label: str, do: str, kind: str) -> Markup:
        return button(
            label,
            do,
            kind=kind,
            small=True,
            data_folder=one.folder,
            aria_label=f"{label}: {one.folder}",
            disabled=bool(self.under_way),
        )

    def _others(self) -> Markup:
        t = self.t
        rows = [
            row(
                one.user,
                link(one.group, addresses.group(one.group)),
                badge(t, one.state),
                when(one.started_at),
                size(one.memory),
                element("div", self._stop(one), class_="actions"),
                key=f"workspace-{one.group}-{one.user}",
            )
            for one in self.others
        ]
        heads = [t("User"), t("Group"), t("State"), t("Started"), t("Memory"), ""]
        return panel(t("Of others"), table(t("Of others"), heads, rows))

    def _stop(self, one: WorkspaceRecord) -> Markup:
        label = self.t("Stop")
        return button(
            label,
            "stop",
            symbol="stop",
            kind="quiet",
            data_group=one.group,
            data_user=one.user,
            aria_label=f"{label}: {one.user}",
        )

    # ---- acts

    async def do_choose(self, act: Act) -> None:
        """Another group's folders show."""
        self.group = str(act.fields.get("group", ""))

    async def do_start(self, act: Act) -> None:
        """Start one's own, beside which the page goes on."""
        group = str(act.fields.get("group", ""))
        self.group = group
        self._begin(self.t("Starting JupyterLab …"), partial(self._started, group))

    async def do_stop(self, act: Act) -> None:
        """Ask first: what runs in it ends."""
        t = self.t
        self.open(
            Form(
                "end",
                t("Stop the workspace of {user}?", user=act.get("user")),
                t("Stop"),
                [],
                args={"group": act.get("group"), "user": act.get("user")},
                danger=True,
                above=element(
                    "p", t("Its kernels end with all that runs in them. The files stay.")
                ),
            )
        )

    async def do_end(self, act: Act) -> None:
        """Stop it."""
        await self.asks.call(
            workspaces.stop_workspace, group=act.get("group"), user=act.get("user")
        )
        self.done(self.t("The workspace is stopped; the files stay"))

    async def do_register(self, act: Act) -> None:
        """A new version of the service of the folder's name."""
        folder = act.get("folder")
        self._register_as(PurePosixPath(folder).name, folder)

    async def do_rename(self, act: Act) -> None:
        """Ask for the service's name."""
        t, folder = self.t, act.get("folder")
        field = Field(
            name="service",
            label=t("Service name"),
            value=PurePosixPath(folder).name,
            focus=True,
            help=t("A service that is there gets its next version"),
        )
        self.open(Form("named", t("Register"), t("Register"), [field], args={"folder": folder}))

    async def do_named(self, act: Act) -> None:
        """Register under that name."""
        assert self.form is not None
        service = self.form.values(act.fields).get("service", "")
        self.form = None
        self._register_as(service, act.get("folder"))

    # ---- beside the page

    def _register_as(self, service: str, folder: str) -> None:
        body = RegisterBody.model_validate({"folder": folder, "group": self.group})
        self._begin(
            self.t("Registering {folder} …", folder=folder),
            partial(self._registered, service, body),
        )

    def _begin(self, what: str, work: Callable[[], Awaitable[Any]]) -> None:
        if self._task is not None and not self._task.done():
            return
        self.error, self.under_way = "", what
        self._task = asyncio.get_running_loop().create_task(self._work(work))

    async def _work(self, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            await work()
        except ModelcloudError as error:
            self.error = error.message
        finally:
            self.under_way = ""
            if self.tab.shows(self):
                await self.tab.refresh()

    async def _started(self, group: str) -> None:
        await self.asks.call(workspaces.start_workspace, group=group)

    async def _registered(self, service: str, body: RegisterBody) -> None:
        record = await self.asks.call(versions.register_version, service=service, body=body)
        self.tab.say(
            self.t("{name} version {version} is registered", name=service, version=record.version),
            "ok",
        )
        if self.tab.shows(self):
            await self.tab.go(addresses.version(service, record.version))
