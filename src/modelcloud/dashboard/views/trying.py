"""Try a service out: a form made from what the model says of itself, and what it answers."""

from __future__ import annotations

import contextlib
import json
from typing import Any
from urllib.parse import quote

from modelcloud.control.access.permissions import Action
from modelcloud.control.api import versions
from modelcloud.control.deployments.deployment_states import Status
from modelcloud.control.services.registration import Registration
from modelcloud.dashboard import trying
from modelcloud.dashboard.markup import Child, Markup, element, image
from modelcloud.dashboard.parts.basic import alert, button, chip, code, empty, panel
from modelcloud.dashboard.parts.forms import LARGE, SENT, Field, Form, control
from modelcloud.dashboard.parts.signature import command_of, fields_of, values_of
from modelcloud.dashboard.trying import Answer, Sent
from modelcloud.dashboard.view import Act
from modelcloud.dashboard.views.service import ServicePage
from modelcloud.errors import InvalidInput, NotFound

_IN = "in."


class TryIt(ServicePage):
    """A request, and its answer."""

    tab_name = "try"
    target = ""
    command = ""
    raw = False
    answer: Answer | None = None
    wrong: dict[str, str]
    body: Any = None
    sent: dict[str, tuple[str, str]]

    async def read_part(self) -> None:
        """The version that the form is made from."""
        if not hasattr(self, "wrong"):
            self.wrong, self.sent = {}, {}
        online = [one for one in self.deployments if one.status is Status.SERVING]
        self.targets = {"": self.t("By weight")}
        for one in online:
            self.targets[str(one.version)] = self.t("version {version}", version=one.version)
            self.targets.update(
                {label: self.t("Label {label}", label=label) for label in one.labels}
            )
        speaker = next(
            (one for one in online if self.target in {str(one.version), *one.labels}),
            max(online, key=lambda one: one.weight, default=None),
        )
        self.version = None
        if speaker is not None:
            self.version = await self.asks.call(
                versions.get_version, service=self.name, version=speaker.version
            )

    @property
    def _chosen(self) -> Any:
        assert self.version is not None
        return command_of(self.version.signature, self.command)

    def _fields(self) -> list[Field]:
        command = self._chosen
        inputs = command.get("inputs", [])
        if self.raw or not inputs or command.get("wholeBody"):
            body = self.body if self.body is not None else command.get("example") or {}
            return [
                Field(
                    name="body", label=self.t("Body, as JSON"), kind="json", value=body, wide=True
                )
            ]
        example = command.get("example") or {}
        return fields_of(
            self.t, inputs, example if isinstance(example, dict) else {}, prefix=_IN, files=True
        )

    @property
    def _url(self) -> str:
        """Where it is asked: the whole body goes to the prediction address, which wraps nothing."""
        commands = self.version.signature.get("commands", []) if self.version else []
        base = f"{self.gateway}/{quote(self.name)}"
        target = f"/{quote(self.target)}" if self.target else ""
        if len(commands) == 1 and self._chosen.get("wholeBody"):
            return f"{self.gateway}/predict/{quote(self.name)}{target}"
        return f"{base}{target}/{quote(self._chosen['name'])}"

    def draw_part(self) -> Markup:
        """This part."""
        t = self.t
        if self.version is None or self._chosen is None:
            return empty(t("Nothing is online"), t("Deploy a version to try it out."))
        if not self.rights.may(Action.PREDICT):
            return empty(
                t("Not for you"),
                t(
                    "Your level in group {group} does not let you predict.",
                    group=self.service.group,
                ),
            )
        return element(
            "div",
            self._request(),
            element("div", self._answer(), self._elsewhere(), class_="stack"),
            class_="grid halves",
        )

    def _request(self) -> Markup:
        t, command = self.t, self._chosen
        commands = (
            [one["name"] for one in self.version.signature.get("commands", [])]
            if self.version
            else []
        )
        fields = self._fields()
        plain = bool(command.get("inputs")) and not command.get("wholeBody")
        return panel(
            t("Request"),
            element(
                "div",
                _select("target", t("Ask"), list(self.targets.items()), self.target),
                _select(
                    "command", t("Command"), [(name, name) for name in commands], command["name"]
                )
                if len(commands) > 1
                else chip(command["name"]),
                class_="bar",
            ),
            element("p", command.get("description"), class_="note")
            if command.get("description")
            else None,
            element(
                "form",
                element(
                    "div", *(control(one, self._wrong_with(one)) for one in fields), class_="fields"
                ),
                *(
                    alert(text)
                    for name, text in self.wrong.items()
                    if name not in {one.name for one in fields}
                ),
                element("div", button(t("Ask"), symbol="play", kind="primary"), class_="form-end"),
                data_do="ask",
                data_draft="draft",
                novalidate=True,
                data_key=f"ask-{command['name']}-{self.raw}-{self.target}",
            ),
            actions=button(
                t("Form") if self.raw else t("Raw JSON"), "raw", kind="quiet", small=True
            )
            if plain
            else None,
        )

    def _wrong_with(self, one: Field) -> str:
        return self.wrong.get(one.name, "")

    def _answer(self) -> Markup:
        t, answer = self.t, self.answer
        if answer is None:
            return panel(
                t("Answer"),
                element("p", t("It shows here, with the version that gave it."), class_="none"),
            )
        good = answer.status < 400
        marks: list[Child] = [chip(f"{answer.status}", tone="tone-ok" if good else "tone-bad")]
        if answer.version:
            marks.append(chip(t("version {version}", version=answer.version)))
            marks.append(chip(t("generation {generation}", generation=answer.generation)))
        marks.append(chip(f"{answer.took_ms:.1f} ms"))
        return panel(
            t("Answer"),
            element("div", *marks, class_="actions", role="status"),
            element("br"),
            _picture(t("A picture in the answer"), answer.body),
            code(_pretty(answer), "answer", t, label=t("Answer")),
            element("p", t("Only its beginning is shown."), class_="muted") if answer.cut else None,
        )

    def _elsewhere(self) -> Markup:
        t = self.t
        body = self.body if self.body is not None else self._chosen.get("example") or {}
        shown = _shortened(body)
        public = self.group.public_predictions
        return panel(
            t("The same elsewhere"),
            element("h3", "curl"),
            code(trying.curl(self._url, shown, public=public), "as-curl", t),
            element("br"),
            element("h3", "Python"),
            code(trying.python(self._url, shown, public=public), "as-python", t),
        )

    def _body_of(self, fields: Any) -> Any:
        form = Form("ask", "", "", self._fields())
        given, self.sent = dict(fields), {}
        for one in form.fields:  # before any of it is refused: what was sent is to be dropped then
            text = str(given.get(one.name, "")) if one.kind == "file" else ""
            if text.startswith((SENT, LARGE)):
                what, name, media_type = [*text.split(":", 2), "", ""][:3]
                if what == SENT.rstrip(":"):
                    self.sent[one.name.removeprefix(_IN)] = (name, media_type)
                given[one.name] = f"data:{media_type};base64,…"
        values = form.values(given)
        return values["body"] if "body" in values else values_of(form.fields, values, _IN)

    async def do_draft(self, act: Act) -> None:
        """What is being typed, for curl and Python beside it."""
        self.wrong = {}
        try:
            self.body = self._body_of(act.fields)
        except InvalidInput as error:
            self.wrong = {str(error.fields.get("field", "")): error.message}

    async def do_ask(self, act: Act) -> None:
        """Ask."""
        uploads = self.asks.state.part(Registration).uploads
        actor = await self.asks.actor()
        await self.do_draft(act)
        try:
            if self.wrong:
                return
            self.answer = await trying.ask(
                self.asks,
                self._url,
                self.body,
                {
                    name: Sent(uploads.path(actor, upload), media_type)
                    for name, (upload, media_type) in self.sent.items()
                },
                group=self.service.group,
                public=self.group.public_predictions,
            )
        except InvalidInput as error:
            self.wrong = {f"{_IN}{error.fields.get('field', '')}": error.message}
        finally:
            for upload, _ in self.sent.values():
                with contextlib.suppress(NotFound):
                    uploads.drop(actor, upload)
            self.sent = {}

    async def do_raw(self, _: Act) -> None:
        """The form, or JSON."""
        self.raw = not self.raw
        self.wrong = {}

    async def do_target(self, act: Act) -> None:
        """Another version."""
        if act.get("value") in self.targets:
            self.target = act.get("value")

    async def do_command(self, act: Act) -> None:
        """Another command."""
        self.command, self.body, self.answer, self.wrong = act.get("value"), None, None, {}


def _pretty(answer: Answer) -> str:
    if "json" in answer.content_type and not answer.cut:
        try:
            return json.dumps(_shortened(json.loads(answer.body)), ensure_ascii=False, indent=2)
        except ValueError:
            pass
    return answer.body


def _picture(label: str, body: str) -> Child:
    """The first picture in an answer, if there is one."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    values = found.values() if isinstance(found, dict) else []
    for value in values:
        if isinstance(value, str) and value.startswith("data:image/"):
            with contextlib.suppress(ValueError):  # a picture of another kind stands in the text
                return image(label, value)
    return None


def _shortened(value: Any) -> Any:
    """The same without what is too long to read, such as pictures."""
    if isinstance(value, str):
        return value if len(value) <= 2000 else f"{value[:80]}… ({len(value)})"
    if isinstance(value, list):
        return [_shortened(one) for one in value]
    if isinstance(value, dict):
        return {name: _shortened(one) for name, one in value.items()}
    return value


def _select(do: str, label: str, choices: list[tuple[str, str]], chosen: str) -> Markup:
    return element(
        "select",
        *(
            element("option", text, value=value, selected=value == chosen)
            for value, text in choices
        ),
        data_do=do,
        aria_label=label,
        id=f"choose-{do}",
    )
