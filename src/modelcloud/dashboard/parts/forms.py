"""Forms: fields with labels, help and what is wrong beside each; what was filled in, as values.

Must never: judge a value beyond reading it; the operation that takes it does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import alert, button
from modelcloud.dashboard.words import Words
from modelcloud.errors import InvalidInput

#: Before the names of fields that are options of a model, which may be called as other fields are.
OPTION = "option."
#: What `static/live.js` says of a file that is too large to travel with a form: `large:SIZE:TYPE`
#: while it is filled in, then `sent:UPLOAD:TYPE`, or `lost:WHY`.
LARGE, SENT, LOST = "large:", "sent:", "lost:"


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field.

    Attributes:
        kind: text, password, number, integer, check, select, choice (a select of JSON values),
            area, json, file, time (a moment, as ISO 8601), hidden or range.
        choices: value and label of each, of a select.
        wide: over both columns.
        optional: left empty, it is not given.
    """

    name: str
    label: str
    kind: str = "text"
    value: Any = None
    help: str = ""
    choices: Sequence[tuple[str, str]] = ()
    optional: bool = False
    wide: bool = False
    autocomplete: str = "off"
    placeholder: str = ""
    minimum: float | None = None
    maximum: float | None = None
    step: float | str | None = None
    focus: bool = False
    accept: str = ""


@dataclass
class Form:
    """A form that is open, and what was wrong with it.

    Attributes:
        do: the act that it is handed to; `args` go with it.
        errors: name of a field → what is wrong; those of no field stand above.
        change: an act that hears of every change.
    """

    do: str
    title: str
    submit: str
    fields: list[Field]
    args: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    danger: bool = False
    change: str = ""
    above: Child = None
    below: Child = None

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What was filled in, each by its kind; what is optional and empty is left out.

        Raises:
            InvalidInput: a value cannot be read.
        """
        found = {}
        for one in self.fields:
            if one.name in given:
                value = read(one, given[one.name])
                if value is not None:
                    found[one.name] = value
        return found

    def draw(self, t: Words) -> Markup:
        """The form."""
        known = {one.name for one in self.fields}
        loose = [text for name, text in self.errors.items() if name not in known]
        return element(
            "form",
            alert([element("p", text) for text in loose]) if loose else None,
            self.above,
            element(
                "div",
                *(control(one, self.errors.get(one.name, "")) for one in self.fields),
                class_="fields",
            ),
            self.below,
            element(
                "div",
                button(t("Cancel"), kind="quiet", data_shut=True),
                button(self.submit, kind="danger" if self.danger else "primary"),
                class_="form-end",
            ),
            data_do=self.do,
            data_change=self.change or None,
            novalidate=True,
            **{f"data_{name}": value for name, value in self.args.items()},
        )


def control(one: Field, error: str = "") -> Markup:
    """A field with its label."""
    place = f"field-{one.name.replace('.', '-')}"
    if one.kind == "hidden":
        return element("input", type="hidden", name=one.name, value=_text(one))
    notes = " ".join([f"{place}-help"] * bool(one.help) + [f"{place}-error"] * bool(error))
    common: dict[str, Any] = {
        "id": place,
        "name": one.name,
        "aria_describedby": notes or None,
        "aria_invalid": "true" if error else None,
        "autofocus": one.focus,
    }
    made = _control(one, common)
    help_ = element("small", one.help, id=f"{place}-help", class_="help") if one.help else None
    wrong = (
        element("small", error, id=f"{place}-error", class_="error", role="alert")
        if error
        else None
    )
    classes = "field" + (" wide" if one.wide else "") + (" check" if one.kind == "check" else "")
    label = element("label", one.label, for_=place)
    parts = [made, label, help_, wrong] if one.kind == "check" else [label, made, help_, wrong]
    return element("div", *parts, class_=classes, data_key=place)


def _control(one: Field, common: dict[str, Any]) -> Markup:
    if one.kind in {"select", "choice"}:
        return element(
            "select",
            *(
                element("option", label, value=value, selected=value == _text(one))
                for value, label in one.choices
            ),
            **common,
        )
    if one.kind in {"area", "json"}:
        return element(
            "textarea",
            _text(one),
            rows="5",
            spellcheck="false",
            placeholder=one.placeholder or None,
            class_="mono" if one.kind == "json" else None,
            **common,
        )
    if one.kind == "check":
        return element("input", type="checkbox", checked=bool(one.value), **common)
    if one.kind == "file":
        place = f"{common['id']}-progress"
        return join(
            element("input", type="file", accept=one.accept or None, data_progress=place, **common),
            element(
                "div",
                element("progress", max="100", aria_label=one.label),
                element("small", role="status"),
                class_="upload",
                id=place,
                hidden=True,
                data_keep=True,
            ),
        )
    if one.kind == "time":
        return element("input", type="datetime-local", data_at=_text(one) or None, **common)
    if one.kind == "range":
        shown = f"{common['id']}-value"
        return element(
            "span",
            element(
                "input",
                type="range",
                value=_text(one),
                min=one.minimum,
                max=one.maximum,
                step=one.step,
                data_out=shown,
                **common,
            ),
            element("output", _text(one), id=shown, for_=common["id"]),
            class_="range",
        )
    numeric = one.kind in {"number", "integer"}
    return element(
        "input",
        type="password" if one.kind == "password" else "text",
        inputmode={"number": "decimal", "integer": "numeric"}.get(one.kind),
        value=None if one.kind == "password" else _text(one),
        placeholder=one.placeholder or None,
        autocomplete=one.autocomplete,
        class_="numeric" if numeric else None,
        spellcheck="false",
        **common,
    )


def _text(one: Field) -> str:
    if one.value is None:
        return ""
    if one.kind == "choice":
        return json.dumps(one.value)
    if one.kind == "json":
        return json.dumps(one.value, ensure_ascii=False, indent=1)
    if isinstance(one.value, bool):
        return str(one.value).lower()
    return f"{one.value:g}" if isinstance(one.value, float) else str(one.value)


def read(one: Field, given: Any) -> Any:
    """What was filled into a field; None where it is optional and empty.

    Raises:
        InvalidInput: it is not of the field's kind.
    """
    if one.kind == "check":
        return bool(given)
    text = str(given)
    if not text.strip() and one.kind != "password":
        if one.optional:
            return None
        if one.kind not in {"text", "area", "select", "hidden"}:
            raise InvalidInput(one.name, "nothing", _KINDS[one.kind])
    if one.kind in {"number", "integer", "range"}:
        try:
            return int(text) if one.kind == "integer" else float(text)
        except ValueError:
            raise InvalidInput(one.name, repr(text[:40]), _KINDS[one.kind]) from None
    if one.kind in {"json", "choice"}:
        try:
            return json.loads(text)
        except ValueError as error:
            raise InvalidInput(one.name, str(error), "JSON") from None
    if one.kind == "file" and text.startswith(LOST):
        raise InvalidInput(one.name, text.removeprefix(LOST)[:200], "a file that arrives whole")
    return text if one.kind in {"area", "password", "file"} else text.strip()


_KINDS = {
    "number": "a number",
    "integer": "a whole number",
    "range": "a number",
    "json": "JSON",
    "file": "a file",
    "password": "a password",
}
