"""Registering a version: from an upload or a path on the server, checked before it is kept.

Must never: import a model here; a worker that is thrown away does.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from pydantic import ValidationError

from modelcloud.control.access.permissions import Action
from modelcloud.control.api import groups, versions
from modelcloud.control.common.paging import MAX_LIMIT, Page
from modelcloud.control.services.registration import Preview, Registration
from modelcloud.control.services.version_forms import RegisterBody
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import (
    alert,
    button,
    chip,
    empty,
    facts,
    heading,
    link_button,
    number,
    panel,
)
from modelcloud.dashboard.parts.forms import OPTION, Field, Form, control
from modelcloud.dashboard.parts.register_form import (
    changed_options,
    more_fields,
    option_fields,
    version_fields,
)
from modelcloud.dashboard.parts.signature import commands_list, options_table, values_of
from modelcloud.dashboard.rights import Rights
from modelcloud.dashboard.view import Act, View, problems_of
from modelcloud.errors import InvalidInput, ModelcloudError

_UPLOAD, _PATH = "upload", "path"


class Register(View):
    """The form, what was found, and the button that keeps it."""

    section = "register"
    source = _UPLOAD
    uploaded = ""
    upload_name = ""
    upload_wrong = ""
    checked: Preview | None = None
    declared: list[dict[str, Any]] | None = None
    under_way = ""
    _task: asyncio.Task[None] | None = None

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.t("Register a model")

    async def read(self) -> None:
        """The groups in which one may register."""
        listed = await self.asks.call(groups.list_groups, page=Page(MAX_LIMIT))
        self.groups = [
            group.name
            for group in listed.items
            if Rights(self.tab.actor, group.level).may(Action.REGISTER)
        ]
        self.roots = self.asks.state.config.roots
        if not hasattr(self, "errors"):
            self.errors: dict[str, str] = {}
            self.typed: dict[str, Any] = {}
            self.given: dict[str, Any] = {
                "service": self.query.get("service", ""),
                "group": self.query.get("group", ""),
            }

    def draw(self) -> Markup:
        """The page."""
        t = self.t
        if not self.groups:
            text = t(
                "To register a model you need the level modify in a group, or a group of your own."
            )
            return join(
                heading(self.title),
                empty(t("Not for you yet"), text, link_button(t("Groups"), "/groups")),
            )
        note = t(
            "The code is imported, to see what it offers. Nothing is kept before you register it."
        )
        return join(
            heading(self.title, note=note),
            element(
                "div",
                element("div", self._form(), class_="stack"),
                self._found(),
                class_="grid halves",
            ),
        )

    def _fields(self) -> list[Field]:
        own = self.tab.actor.name if self.tab.actor.name in self.groups else self.groups[0]
        roots = self.roots if self.source == _PATH else ()
        existing = self.query.get("service", "")
        return version_fields(self.t, self.given, self.groups, own, existing, roots)

    def _parts(self) -> list[tuple[str, list[Field]]]:
        options = option_fields(self.t, self.declared, self.typed)
        more = more_fields(self.t)
        if self.declared:
            return [(self.t("Setup options"), options), (self.t("More"), more)]
        return [(self.t("More"), [*options, *more])]

    def _more(self) -> list[Field]:
        return [field for _, fields in self._parts() for field in fields]

    def _names(self) -> list[str]:
        return [one.name for one in [*self._fields(), *self._more()]]

    def _form(self) -> Markup:
        t = self.t
        known = self._names()
        loose = [text for name, text in self.errors.items() if name not in known]
        sources = [(_UPLOAD, t("Upload an archive"))]
        if self.roots:
            sources.append((_PATH, t("A folder on the server")))
        return element(
            "form",
            panel(
                t("Model"),
                *(alert(text) for text in loose),
                element(
                    "div",
                    *(
                        element(
                            "button",
                            label,
                            type="button",
                            data_do="source",
                            data_to=name,
                            aria_pressed="true" if name == self.source else "false",
                        )
                        for name, label in sources
                    ),
                    class_="choices",
                )
                if len(sources) > 1
                else None,
                self._upload() if self.source == _UPLOAD else None,
                element(
                    "div",
                    *(control(one, self.errors.get(one.name, "")) for one in self._fields()),
                    class_="fields",
                ),
            ),
            *(
                panel(
                    title,
                    element(
                        "div",
                        *(control(one, self.errors.get(one.name, "")) for one in fields),
                        class_="fields",
                    ),
                    key=title,  # what was typed stays as another part comes before it
                )
                for title, fields in self._parts()
            ),
            element(
                "div",
                button(t("Check it"), name="then", value="check"),
                button(
                    t("Register"), symbol="register", kind="primary", name="then", value="register"
                ),
                class_="form-end",
            ),
            data_do="submit",
            data_draft="draft",
            novalidate=True,
        )

    def _upload(self) -> Markup:
        t = self.t
        wrong = self.upload_wrong or self.errors.get("upload", "")
        done: Child = None
        if self.uploaded:
            done = chip(t("{name} is here", name=self.upload_name), tone="tone-ok")
        return element(
            "div",
            element("label", t("Archive of the model folder"), for_="archive"),
            element(
                "input",
                type="file",
                id="archive",
                data_upload="upload-progress",
                accept=".zip,.tar,.gz,.tgz,.bz2,.xz,.zst",
                aria_describedby="archive-help",
            ),
            element(
                "small",
                t("zip, tar, tar.gz, tar.bz2, tar.xz or tar.zst"),
                id="archive-help",
                class_="help",
            ),
            element(
                "div",
                element("progress", max="100", aria_label=t("Progress of the upload")),
                element("small", role="status"),
                class_="upload",
                id="upload-progress",
                hidden=True,
                data_keep=True,
                data_lost=t("The connection broke; try again"),
            ),
            done,
            element("small", wrong, class_="error", role="alert") if wrong else None,
            class_="field wide sent",
        )

    def _found(self) -> Markup:
        t = self.t
        if self.under_way:
            return panel(
                t("What was found"),
                element("p", self.under_way, class_="muted", role="status", aria_busy="true"),
            )
        found = self.checked
        if found is None:
            return panel(
                t("What was found"),
                element(
                    "p",
                    t("Check it, and its commands, options and metrics show here."),
                    class_="none",
                ),
            )
        metrics = ", ".join(
            f"{name} {number(value) if isinstance(value, float) else value}"
            for name, value in found.metrics.items()
        )
        return element(
            "div",
            panel(
                t("What was found"),
                facts(
                    [
                        (t("Runtime"), str(found.signature.get("runtime", ""))),
                        (t("Main file"), element("code", found.main)),
                        (t("Metrics"), metrics or t("none")),
                        (t("Training curves"), ", ".join(found.curves) or t("none")),
                        (
                            t("Environment"),
                            element("code", found.requirements)
                            if found.requirements
                            else t("the platform's own"),
                        ),
                    ]
                ),
                alert([element("p", note) for note in found.notes], tone="warn")
                if found.notes
                else None,
            ),
            panel(t("Setup options"), options_table(t, found.signature)),
            panel(t("Commands"), commands_list(t, found.signature)),
            class_="stack",
        )

    def _body(self, fields: Any) -> tuple[str, RegisterBody]:
        form = Form("submit", "", "", [*self._fields(), *self._more()])
        values = form.values(fields)
        service = values.pop("service")
        for name in ("options", "metrics", "curves"):
            if name in values and not isinstance(values[name], dict):
                raise InvalidInput(name, json.dumps(values[name])[:40], "an object")
        if self.declared is not None:
            declared = option_fields(self.t, self.declared, {})
            given = values_of(declared, values, OPTION)
            values = {name: value for name, value in values.items() if not name.startswith(OPTION)}
            values["options"] = changed_options(self.declared, given)
        if self.source == _UPLOAD:
            if not self.uploaded:
                raise InvalidInput("upload", "nothing", self.t("an archive"))
            values["upload"] = self.uploaded
        return service, RegisterBody(**values)

    async def do_submit(self, act: Act) -> None:
        """Check or register, beside which the page goes on."""
        if self._task is not None and not self._task.done():
            return
        self.given = dict(act.fields)
        self.errors = {}
        self.checked = None
        try:
            service, body = self._body(act.fields)
        except (ModelcloudError, ValidationError) as error:
            self._show_wrong(error)
            return
        keeps = act.fields.get("then") == "register"
        self.under_way = self.t("Unpacking the files and importing the code …")
        self._task = asyncio.get_running_loop().create_task(self._work(service, body, keeps=keeps))

    async def _work(self, service: str, body: RegisterBody, *, keeps: bool) -> None:
        try:
            if keeps:
                record = await self.asks.call(versions.register_version, service=service, body=body)
                self.uploaded = ""
                self.tab.say(
                    self.t(
                        "{name} version {version} is registered",
                        name=service,
                        version=record.version,
                    ),
                    "ok",
                )
                if self.tab.shows(self):
                    await self.tab.go(addresses.version(service, record.version))
                return
            registration = self.asks.state.part(Registration)
            self.checked = await registration.preview(await self.asks.actor(), service, body)
            self.declared = self.checked.signature.get("options", [])
            self.typed = body.options
        except (ModelcloudError, ValidationError) as error:
            self._show_wrong(error)
        finally:
            self.under_way = ""
            if self.tab.shows(self):
                self.tab.show()

    def _show_wrong(self, error: ModelcloudError | ValidationError) -> None:
        self.errors = problems_of(error, self._names())
        if "name" in self.errors:  # as the operation calls the service's name
            self.errors["service"] = self.errors.pop("name")

    async def do_draft(self, act: Act) -> None:
        """What is being typed stays when the form is drawn anew."""
        files = ("path", "main")
        if [act.fields.get(name) for name in files] != [self.given.get(name) for name in files]:
            self._forget_options()
        self.given = dict(act.fields)

    def _forget_options(self) -> None:
        """Other files may declare others."""
        self.declared, self.checked = None, None

    async def do_source(self, act: Act) -> None:
        """An upload, or a path."""
        self._forget_options()
        self.source = _PATH if act.get("to") == _PATH else _UPLOAD

    async def do_uploaded(self, act: Act) -> None:
        """The browser has sent an archive."""
        self._forget_options()
        upload = act.get("upload")
        self.uploaded, self.upload_name, self.upload_wrong = upload, act.get("name")[:200], ""
        if act.get("status") != "201" or not upload:
            self.uploaded = ""
            self.upload_wrong = act.get("detail") or self.t("The connection broke; try again")
        self.errors = {}
