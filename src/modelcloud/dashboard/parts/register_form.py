"""The fields of the form that registers a version.

Must never: ask for anything; groups and roots are handed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelcloud.dashboard.parts.forms import Field
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


def more_fields(t: Words) -> list[Field]:
    """What it may have."""
    return [
        Field(name="description", label=t("Description"), kind="area", optional=True, wide=True),
        Field(
            name="options",
            label=t("Options"),
            kind="json",
            optional=True,
            placeholder='{"model": "big"}',
            help=t("Values for setup, over the defaults of the code"),
        ),
        Field(
            name="metrics",
            label=t("Metrics"),
            kind="json",
            optional=True,
            placeholder='{"auc": 0.98}',
            help=t("Left empty: those of metrics.json"),
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
