"""How the requests for a service are shared out: weights, labels, a sticky key, shadows."""

from __future__ import annotations

from typing import Any

from modelcloud.control.access.permissions import Action
from modelcloud.control.api import traffic
from modelcloud.control.deployments.deployment_forms import TrafficBody
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import button, chip, empty, facts, link, panel, row, table
from modelcloud.dashboard.parts.forms import Field, control
from modelcloud.dashboard.view import Act
from modelcloud.dashboard.views.service import ServicePage
from modelcloud.errors import InvalidInput

_KINDS = ("header", "cookie", "body")


class Traffic(ServicePage):
    """The shares."""

    tab_name = "traffic"

    async def read_part(self) -> None:
        """How it is now."""
        self.traffic = await self.asks.call(traffic.get_traffic, service=self.name)

    def draw_part(self) -> Markup:
        """This part."""
        t = self.t
        if not self.traffic.weights:
            return empty(t("Nothing is online"), t("Deploy a version to share requests out."))
        may = self.rights.may(Action.UPDATE)
        return element(
            "div",
            element("div", self._weights(may=may), class_="stack"),
            element("div", self._labels(may=may), self._sticky(may=may), class_="stack"),
            class_="grid thirds",
        )

    def _weights(self, *, may: bool) -> Markup:
        t, weights = self.t, self.traffic.weights
        total = sum(weights.values()) or 1
        numbers = sorted(weights, key=int, reverse=True)
        rows = [
            row(
                link(element("strong", number), addresses.version(self.name, int(number))),
                element(
                    "span",
                    element("i", style=f"width:{weights[number] / total * 100:.1f}%"),
                    class_="share",
                ),
                f"{weights[number] / total * 100:.3g}\u00a0%",
                t("{share} % copied", share=f"{self.traffic.shadow[number] * 100:g}")
                if number in self.traffic.shadow
                else None,
                key=f"share-{number}",
            )
            for number in numbers
        ]
        shares = table(t("Shares"), [t("Version"), t("Share"), "", t("Shadow")], rows)
        if not may:
            return panel(t("Shares"), shares)
        top = max(100.0, *weights.values())
        fields = [
            Field(
                name=f"weight.{number}",
                label=t("Weight of version {version}", version=number),
                kind="range",
                value=weights[number],
                minimum=0,
                maximum=top,
                step=1,
                wide=True,
            )
            for number in numbers
        ]
        shadows = (
            [
                Field(
                    name=f"shadow.{number}",
                    label=t("Copies to version {version}, %", version=number),
                    kind="range",
                    value=self.traffic.shadow.get(number, 0.0) * 100,
                    minimum=0,
                    maximum=100,
                    step=1,
                    wide=True,
                    help=t("Of the others' requests; its answers are thrown away"),
                )
                for number in numbers
            ]
            if len(numbers) > 1
            else []
        )
        form = element(
            "form",
            element("div", *(control(field) for field in fields), class_="fields"),
            element(
                "fieldset",
                element("legend", t("Shadow")),
                element("div", *(control(field) for field in shadows), class_="fields"),
            )
            if shadows
            else None,
            element("div", button(t("Share out like this"), kind="primary"), class_="form-end"),
            data_do="share_out",
            data_key=f"weights-{self.traffic.revision}-{'-'.join(numbers)}",
        )
        return join(panel(t("Shares"), shares), panel(t("Change"), form))

    def _labels(self, *, may: bool) -> Markup:
        t = self.t
        rows = [
            row(
                chip(name, tone="accent"),
                t("version {version}", version=number),
                element(
                    "div",
                    button(t("Remove"), "unlabel", kind="quiet", small=True, data_label=name),
                    class_="actions",
                )
                if may
                else None,
                key=f"label-{name}",
            )
            for name, number in self.traffic.labels.items()
        ]
        there = sorted({str(one.version) for one in self.deployments}, key=int, reverse=True)
        form: Child = None
        if may and there:
            form = element(
                "form",
                element(
                    "div",
                    control(Field(name="label", label=t("Label"), placeholder="stable")),
                    control(
                        Field(
                            name="version",
                            label=t("leads to version"),
                            kind="select",
                            choices=[(v, v) for v in there],
                        )
                    ),
                    class_="fields",
                ),
                element("div", button(t("Set the label")), class_="form-end"),
                data_do="label",
                data_key="label-form",
            )
        note = element(
            "p",
            t(
                "A label is an address of its own: {address}",
                address=f"{self.service.address}/stable",
            ),
            class_="note",
        )
        return panel(
            t("Labels"),
            note,
            table(t("Labels"), [t("Label"), t("Version"), ""], rows) if rows else None,
            form,
        )

    def _sticky(self, *, may: bool) -> Markup:
        t, sticky = self.t, self.traffic.sticky
        note = element(
            "p", t("The same value of this key always reaches the same version."), class_="note"
        )
        if not may:
            shown = t("nothing") if sticky is None else f"{sticky.kind} {sticky.name}"
            return panel(t("Sticky key"), note, facts([(t("Key"), shown)]))
        choices = [("", t("nothing")), *((kind, t(kind)) for kind in _KINDS)]
        form = element(
            "form",
            element(
                "div",
                control(
                    Field(
                        name="kind",
                        label=t("Where"),
                        kind="select",
                        choices=choices,
                        value=sticky.kind if sticky else "",
                    )
                ),
                control(Field(name="name", label=t("Name"), value=sticky.name if sticky else "")),
                class_="fields",
            ),
            element("div", button(t("Save")), class_="form-end"),
            data_do="stick",
            data_key=f"sticky-{self.traffic.revision}",
        )
        return panel(t("Sticky key"), note, form)

    async def do_share_out(self, act: Act) -> None:
        """Weights and shadows."""
        weights: dict[str, float] = {}
        shadow: dict[str, float] = {}
        for name, given in act.fields.items():
            kind, _, number = name.partition(".")
            try:
                value = float(given)
            except ValueError:
                raise InvalidInput(name, repr(str(given)[:40]), "a number") from None
            if kind == "weight":
                weights[number] = value
            elif kind == "shadow" and value:
                shadow[number] = value / 100
        await self._put(weights=weights, shadow=shadow)

    async def do_label(self, act: Act) -> None:
        """One more label."""
        name, number = str(act.fields.get("label", "")).strip(), str(act.fields.get("version", ""))
        if not number.isdecimal():
            raise InvalidInput("version", repr(number[:20]), "a version")
        await self._put(labels={**self.traffic.labels, name: int(number)})

    async def do_unlabel(self, act: Act) -> None:
        """One less."""
        gone = act.get("label")
        await self._put(labels={n: v for n, v in self.traffic.labels.items() if n != gone})

    async def do_stick(self, act: Act) -> None:
        """What keeps a client at one version."""
        kind = act.fields.get("kind")
        await self._put(
            sticky={"kind": kind, "name": str(act.fields.get("name", "")).strip()} if kind else None
        )

    async def _put(self, **changes: Any) -> None:
        await self.asks.call(
            traffic.put_traffic,
            on=self.traffic.revision,
            service=self.name,
            body=TrafficBody.model_validate(changes),
        )
        self.done(self.t("Shared out; every request that comes now follows"))
