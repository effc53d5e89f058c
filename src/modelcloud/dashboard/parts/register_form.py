"""The fields of the form that registers a version.

Must never: ask for anything; groups and roots are handed in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from modelcloud.dashboard.parts.forms import OPTION, Field
from modelcloud.dashboard.parts.signature import fields_of
from modelcloud.dashboard.words import Words


def version_fields(
    t: Words,
    given: Mapping[str, Any],
    groups: Sequence[str],
    own: str,
    existing: str,
    roots: Sequence[str] = (),
) -> list[Field]:
    """What a version needs beside its files.

    Args:
        t: the words.
        given: what was filled in so far.
        groups: in which one may register.
        own: the one to begin with.
        existing: the service that one came from; empty for a new one.
        roots: folders of the server to register from; none: it is an upload.
    """
    fields = [
        Field(
            name="service",
            label=t("Service name"),
            value=given.get("service"),
            focus=not existing,
            help=t("Letters, digits, _ and -; it is part of the address"),
        ),
        Field(
            name="group",
            label=t("Group"),
            kind="select",
            optional=True,
            value=given.get("group") or ("" if existing else own),
            choices=[
                *([("", t("that of the service"))] if existing else []),
                *((name, name) for name in groups),
            ],
        ),
        Field(
            name="version",
            label=t("Version"),
            kind="integer",
            optional=True,
            help=t("Left empty: the next number"),
        ),
        Field(
            name="main",
            label=t("Main file"),
            optional=True,
            placeholder="model.py",
            help=t("Left empty: the one model.py or backend.py; file.py:NAME for one thing of it"),
        ),
    ]
    if roots:
        fields.append(
            Field(
                name="path",
                label=t("Model folder on the server"),
                wide=True,
                placeholder=roots[0],
                help=t("Below {roots}", roots=", ".join(roots)),
            )
        )
    return fields


def option_fields(
    t: Words, declared: Sequence[Mapping[str, Any]] | None, given: Mapping[str, Any]
) -> list[Field]:
    """A field for each option that the code declares, or one for all where they are not known."""
    if declared is None:
        return [
            Field(
                name="options",
                label=t("Options"),
                kind="json",
                optional=True,
                wide=True,
                placeholder='{"model": "big"}',
                help=t("Over the defaults of the code; once checked, each has a field"),
            )
        ]
    return fields_of(t, declared, given, prefix=OPTION)


def changed_options(
    declared: Sequence[Mapping[str, Any]], values: Mapping[str, Any]
) -> dict[str, Any]:
    """The options whose values are not the defaults."""
    usual = {one["name"]: one["default"] for one in declared if "default" in one}
    return {
        name: value
        for name, value in values.items()
        if name not in usual or json.dumps(value) != json.dumps(usual[name])
    }


def more_fields(t: Words) -> list[Field]:
    """What it may have."""
    return [
        Field(name="description", label=t("Description"), kind="area", optional=True, wide=True),
        Field(
            name="metrics",
            label=t("Metrics"),
            kind="json",
            optional=True,
            placeholder='{"auc": 0.98}',
            help=t("Left empty: those of metrics.json"),
        ),
        Field(
            name="curves",
            label=t("Training curves"),
            kind="json",
            optional=True,
            placeholder='{"loss": [0.9, 0.5, 0.3]}',
            help=t("Values by step, or pairs of step and value. Left empty: those of the files"),
        ),
        Field(
            name="requirements",
            label=t("Requirements"),
            kind="area",
            optional=True,
            placeholder="numpy==2.2.6",
            help=t("Left empty: those of requirements.txt. It gets an environment of its own"),
        ),
        Field(
            name="port",
            label=t("Port of the service"),
            kind="integer",
            optional=True,
            help=t("Fills ${port} in the main file. Left empty: the platform's"),
        ),
        Field(name="enabled", label=t("It may be deployed"), kind="check", value=True, wide=True),
    ]
