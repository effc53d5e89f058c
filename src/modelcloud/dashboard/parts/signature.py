"""What a model offers, as tables; and fields for its options and inputs.

Must never: judge a value beyond its form; the model's own types do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import chip, row, table
from modelcloud.dashboard.parts.forms import Field
from modelcloud.dashboard.words import Words

#: Of a type, what is no limit.
_NO_LIMIT = frozenset({"name", "type", "description", "default"})
#: Types whose values a browser sends as the content of a file.
_FILES = {"file": "", "image": "image/*", "segmentation": "image/png"}


def options_table(t: Words, signature: Mapping[str, Any]) -> Markup:
    """The setup options: type, description, default."""
    rows = [_row(t, one) for one in signature.get("options", [])]
    heads = [t("Option"), t("Type"), t("Description"), t("Default")]
    return table(t("Options"), heads, rows, empty_text=t("It takes no options."))


def commands_list(t: Words, signature: Mapping[str, Any]) -> Markup:
    """The commands, each with its inputs, outputs and schemas."""
    return join(_command(t, one) for one in signature.get("commands", []))


def _command(t: Words, command: Mapping[str, Any]) -> Markup:
    marks = [
        chip(text)
        for text, holds in (
            (t("streams"), command.get("streams")),
            (t("takes the whole body"), command.get("wholeBody")),
            (t("web application"), command.get("wholeSite")),
            (
                t("batches up to {count}", count=command.get("maxBatchSize", 1)),
                command.get("maxBatchSize", 1) > 1,
            ),
        )
        if holds
    ]
    heads = [t("Name"), t("Type"), t("Description"), t("Default")]
    parts: list[Child] = []
    for title, key, schema in (
        (t("Inputs"), "inputs", "inputSchema"),
        (t("Outputs"), "outputs", "outputSchema"),
    ):
        rows = [_row(t, one) for one in command.get(key, [])]
        if rows:
            parts += [element("h3", title), table(f"{command['name']}: {title}", heads, rows)]
        if command.get(schema):
            text = json.dumps(command[schema], ensure_ascii=False, indent=2)
            label = t("{title} as JSON schema", title=title)
            parts.append(
                element(
                    "details",
                    element("summary", label),
                    element("pre", text, class_="lines low", tabindex="0", aria_label=label),
                )
            )
    return element(
        "section",
        element("div", element("h3", element("code", command["name"])), *marks, class_="actions"),
        element("p", command.get("description"), class_="note")
        if command.get("description")
        else None,
        *parts,
        class_="command",
        data_key=f"command-{command['name']}",
    )


def _row(t: Words, one: Mapping[str, Any]) -> Markup:
    limits = [
        f"{name} {value}"
        for name, value in one.items()
        if name not in _NO_LIMIT and _is_plain(value)
    ]
    default: Child = element("span", t("needed"), class_="muted")
    if "default" in one:
        default = element("code", json.dumps(one["default"], ensure_ascii=False))
    return row(
        element("code", one["name"]),
        join(
            one["type"], element("div", ", ".join(limits), class_="muted small") if limits else None
        ),
        one.get("description") or "",
        default,
        key=f"of-{one['name']}",
    )


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return 0 < len(value) <= 12 and all(isinstance(one, str | int | float) for one in value)
    return value is not None and not isinstance(value, dict)


def fields_of(
    t: Words,
    declared: Sequence[Mapping[str, Any]],
    given: Mapping[str, Any],
    *,
    prefix: str = "",
    files: bool = False,
) -> list[Field]:
    """A field for each option or input; `given` are the values to begin with.

    `files`: what is an image or a file is chosen from the browser's machine.
    """
    return [_field(t, one, given, prefix, files=files) for one in declared]


def _field(
    t: Words, one: Mapping[str, Any], given: Mapping[str, Any], prefix: str, *, files: bool
) -> Field:
    name, kind = one["name"], one["type"]
    value = given.get(name, one.get("default"))
    common: dict[str, Any] = {
        "name": prefix + name,
        "label": name,
        "value": value,
        "help": one.get("description") or "",
        "optional": "default" in one,
    }
    if kind == "boolean":
        return Field(kind="check", **common)
    if kind == "category":
        choices = [(json.dumps(choice), str(choice)) for choice in one["oneOf"]]
        return Field(kind="choice", choices=choices, **common)
    if kind == "number":
        step = one.get("step")
        whole = isinstance(step, int) or (isinstance(step, float) and step.is_integer())
        limits = (one.get("min"), one.get("max"))
        if whole and None not in limits:
            common["help"] = f"{common['help']} ({limits[0]} – {limits[1]})".strip()  # noqa: RUF001
        return Field(kind="integer" if whole else "number", **common)
    if kind in _FILES and files:
        return Field(kind="file", accept=_FILES[kind], wide=True, **{**common, "value": None})
    if kind == "text":
        return Field(kind="area" if (one.get("maxLength") or 0) > 200 else "text", **common)
    return Field(kind="json", wide=True, **common)


def values_of(
    fields: Sequence[Field], values: Mapping[str, Any], prefix: str = ""
) -> dict[str, Any]:
    """What was filled in, without the prefix of the fields' names."""
    names = {field.name for field in fields}
    return {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name in names and name.startswith(prefix)
    }


def command_of(signature: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """The command of this name, or the first one."""
    commands = signature.get("commands", [])
    return next((one for one in commands if one["name"] == name), commands[0] if commands else None)
