"""The fields of the form that makes or changes a monitor, and what comes of them for the API.

Must never: hold a credential; what was typed as one is sent on and not drawn again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelcloud.control.deployments.deployments import DeploymentRecord
from modelcloud.control.monitors.monitor_forms import OPTIONS, MonitorChanges, place_of
from modelcloud.control.monitors.monitors import MonitorRecord
from modelcloud.control.resources.instance_types import InstanceTypeRecord
from modelcloud.dashboard.parts.deploy_form import resources
from modelcloud.dashboard.parts.forms import Field
from modelcloud.dashboard.parts.strategy_fields import number_fields, strategies, strategy_from
from modelcloud.dashboard.words import Words
from modelcloud.errors import InvalidInput, ModelcloudError
from modelcloud.monitors.source import (
    AFS,
    FTP,
    FTP_PORT,
    GENERAL,
    HDFS,
    LOCAL,
    S3,
    SFTP,
    TYPES,
    URL,
)
from modelcloud.monitors.source import WEBHDFS as WEB_HDFS

PLAIN, SECRET, DEPLOY = "storage_options.", "secret_options.", "deploy."
#: In place of a version that is replaced: as it is now; as a new deployment.
KEEP, NEW = "keep", "new"
FORGET = "forget"
_BOOLEANS = frozenset({"use_ssl", "requester_pays", "use_https"})
#: Fields of one type, as they are where another one is chosen.
_OF_TYPES: dict[str, tuple[tuple[str, ...], Any]] = {
    "general_host": ((GENERAL,), ""),
    "fs_name": ((HDFS, AFS), ""),
    "ftp_host": ((FTP,), ""),
    "ftp_port": ((FTP,), FTP_PORT),
    "ftp_username": ((FTP,), ""),
    "known_hosts": ((SFTP,), ""),
}
_SECRETS_OF = {HDFS: ("fs_ugi",), AFS: ("fs_ugi",), FTP: ("ftp_password",)}


def type_names(t: Words) -> dict[str, str]:
    """The types, each as a person calls it."""
    names = {
        GENERAL: t("HTTP, a host and a folder (general)"),
        HDFS: "HDFS (hdfs)",
        AFS: "AFS (afs)",
        FTP: "FTP (ftp)",
        LOCAL: t("A folder of the server (local)"),
        S3: "S3 (s3)",
        SFTP: "SFTP (sftp)",
        WEB_HDFS: t("HDFS over HTTP (webhdfs)"),
        URL: t("Any HTTP address (url)"),
    }
    return {kind: names[kind] for kind in TYPES}


def source_fields(
    t: Words, kind: str, settings: Mapping[str, Any], kept: Sequence[str], roots: Sequence[str]
) -> list[Field]:
    """Where it looks.

    Args:
        t: the words.
        kind: the type that is chosen.
        settings: to begin with.
        kept: the names of credentials that are kept.
        roots: folders of the server below which a local one may be.
    """
    paths = {
        GENERAL: ("/models/daily", t("Below the host")),
        LOCAL: (f"{roots[0]}/daily" if roots else "", t("Below {roots}", roots=", ".join(roots))),
        S3: ("bucket/models/daily", t("BUCKET/FOLDER")),
        SFTP: ("sftp://files.example.com/models", ""),
        WEB_HDFS: ("webhdfs://namenode:9870/models", ""),
        URL: ("https://files.example.com/models", ""),
    }
    placeholder, help_ = paths.get(kind, ("/models/daily", ""))
    fields = [
        Field(
            name="type", label=t("Kind of place"), kind="select", value=kind, wide=True,
            choices=[*type_names(t).items()],
        ),
        *_of_type(t, kind, settings),
        Field(
            name="remote_path", label=t("Folder there"), value=settings.get("remote_path"),
            wide=True, placeholder=placeholder, help=help_,
        ),
        Field(
            name="remote_model_name", label=t("Model"), placeholder="model.tar.gz",
            value=settings.get("remote_model_name"), help=t("An archive or a folder in it"),
        ),
        Field(
            name="remote_donefile_name", label=t("Done-file"), placeholder="donefile",
            value=settings.get("remote_donefile_name"),
            help=t("What the producer writes when the model is complete"),
        ),
        *_credentials(t, kind, kept),
    ]  # fmt: skip
    if kept:
        fields.append(
            Field(
                name=FORGET, label=t("Forget the credentials that are kept"), kind="check",
                wide=True,
            )
        )  # fmt: skip
    return fields


def _of_type(t: Words, kind: str, settings: Mapping[str, Any]) -> list[Field]:
    def text(name: str, label: str, placeholder: str, *, needed: bool = False) -> Field:
        return Field(
            name=name, label=label, value=settings.get(name), optional=not needed,
            placeholder=placeholder, wide=kind != FTP,
        )  # fmt: skip

    if kind == GENERAL:
        return [text("general_host", t("Host"), "https://files.example.com", needed=True)]
    if kind in {HDFS, AFS}:
        return [text("fs_name", t("File system"), f"{kind}://namenode:9000")]
    if kind == FTP:
        port = settings.get("ftp_port", FTP_PORT)
        return [
            text("ftp_host", t("Host"), "ftp.example.com", needed=True),
            Field(name="ftp_port", label=t("Port"), kind="integer", value=port),
            text("ftp_username", t("User"), "anonymous"),
        ]
    plain, _ = OPTIONS.get(kind, (frozenset(), frozenset()))
    options = settings.get("storage_options", {})
    yes_no = [("", t("as usual")), ("true", t("yes")), ("false", t("no"))]
    fields = [
        Field(
            name=PLAIN + name, label=name, optional=True, value=options.get(name),
            kind="choice" if name in _BOOLEANS else "integer" if name == "port" else "text",
            choices=yes_no,
        )
        for name in sorted(plain)
    ]  # fmt: skip
    if kind == SFTP:
        fields.append(
            Field(
                name="known_hosts", label=t("Key of the host"), kind="area", wide=True,
                value=settings.get("known_hosts"), placeholder="files.example.com ssh-ed25519 …",
                help=t("As a line of OpenSSH's known_hosts; ssh-keyscan prints it"),
            )
        )  # fmt: skip
    return fields


def _credentials(t: Words, kind: str, kept: Sequence[str]) -> list[Field]:
    _, hidden = OPTIONS.get(kind, (frozenset(), frozenset()))
    labels = {
        "fs_ugi": t("User and password, with a comma between them"),
        "ftp_password": t("Password"),
    }
    names = [*_SECRETS_OF.get(kind, ()), *(SECRET + name for name in sorted(hidden))]
    help_ = t("Kept encrypted, and shown to nobody again")
    there = t("One is kept; left empty it stays, unless another place is asked")
    return [
        Field(
            name=name, label=labels.get(name, name.removeprefix(SECRET)), kind="password",
            help=there if name in kept else help_, autocomplete="new-password",
        )
        for name in names
    ]  # fmt: skip


def rule_fields(t: Words, settings: Mapping[str, Any], place: str) -> list[Field]:
    """When it looks, and what it may bring."""
    help_ = t("Python code and pickles run when they are loaded. Left empty, they are refused.")
    if place:
        help_ = f"{help_} {t('To accept them, write: {place}', place=place)}"
    return [
        Field(
            name="interval", label=t("Seconds between two looks"), kind="number",
            value=settings.get("interval", 10.0),
        ),
        Field(
            name="keep", label=t("Newest versions that stay"), kind="integer",
            value=settings.get("keep", 10),
            help=t("Of those that it brought; what is online stays too"),
        ),
        Field(
            name="trust", label=t("Trusted place"), value=settings.get("trust"), wide=True,
            optional=True, placeholder=place, help=help_,
        ),
    ]  # fmt: skip


def online_fields(
    t: Words,
    settings: Mapping[str, Any],
    given: Mapping[str, Any],
    types: Iterable[InstanceTypeRecord],
    deployments: Iterable[DeploymentRecord],
    monitor: MonitorRecord | None,
) -> list[Field]:
    """Where its versions go online. `monitor`: the one that is changed."""
    deploy = settings.get("deploy", {})
    targets = [
        (NEW, t("The first as a new deployment, later ones in its place")),
        *(
            (str(version), t("In place of version {version}", version=version))
            for version in sorted({one.version for one in deployments})
        ),
    ]
    if monitor is not None:
        targets.insert(0, (KEEP, t("as before")))
    before = settings.get("strategy") or ""
    before = before if isinstance(before, dict) else {"name": before}
    name = str(given.get("strategy", before["name"]))
    return [
        Field(
            name="replaces", label=t("Its versions go online"), kind="select", wide=True,
            choices=targets, value=given.get("replaces") or targets[0][0],
        ),
        Field(
            name="deploy.instance_type", label=t("Instance type"), kind="select",
            value=given.get("deploy.instance_type") or deploy.get("instance_type"),
            choices=[
                (one.name, f"{one.name} · {one.description or resources(one)}") for one in types
            ],
            help=t("Of a new deployment"),
        ),
        Field(
            name="deploy.replicas", label=t("Replicas"), kind="integer",
            value=deploy.get("replicas") or 1, help=t("Of a new deployment"),
        ),
        Field(
            name="strategy", label=t("Strategy"), kind="select", value=name, wide=True,
            optional=True, choices=[("", t("that of the deployment")), *strategies(t)],
        ),
        *number_fields(t, name, before),
    ]  # fmt: skip


def version_fields(t: Words, settings: Mapping[str, Any]) -> list[Field]:
    """What each version gets."""
    help_ = t("As when one is registered by hand")
    return [
        Field(
            name="description", label=t("Description"), value=settings.get("description"),
            optional=True, wide=True,
        ),
        Field(
            name="main", label=t("Main file"), value=settings.get("main"), optional=True,
            placeholder="model.py", help=help_,
        ),
        Field(
            name="python", label="Python", value=settings.get("python"), optional=True,
            placeholder="3.12", help=t("Of an environment of its own"),
        ),
        Field(
            name="options", label=t("Options"), kind="json", optional=True,
            value=settings.get("options") or None, placeholder='{"model": "big"}',
        ),
        Field(
            name="requirements", label=t("Requirements"), kind="area", optional=True,
            value=settings.get("requirements"), placeholder="numpy==2.2.6",
        ),
        Field(
            name="golden", label=t("Golden requests"), kind="json", optional=True, wide=True,
            value=settings.get("golden") or None,
            placeholder='[{"inputs": {"x": 1.0}, "expected": {"result": 2.0}, "tolerance": 0.01}]',
            help=t("A version that answers them otherwise does not go online"),
        ),
    ]  # fmt: skip


def place_so_far(typed: Mapping[str, Any]) -> str:
    """The place that these values name, as it is shown and trusted; "" without a folder."""
    names = ("type", "remote_path", "general_host", "ftp_host", "fs_name")
    found: dict[str, Any] = {name: str(typed.get(name) or "") for name in names}
    if not found["remote_path"]:
        return ""
    port = str(typed.get("ftp_port", ""))
    if port.isascii() and port.isdecimal() and len(port) < 6:
        found["ftp_port"] = int(port)
    endpoint = typed.get(f"{PLAIN}endpoint_url")
    found["storage_options"] = {"endpoint_url": endpoint} if endpoint else {}
    try:
        return place_of(MonitorChanges.model_validate(found))
    except (ModelcloudError, ValueError):
        return ""  # what is wrong is said once it is sent


def body_of(
    values: Mapping[str, Any], settings: Mapping[str, Any], kept: Sequence[str]
) -> dict[str, Any]:
    """What was filled in as `MonitorBody` and `MonitorChanges` take it.

    Args:
        values: by the names of the fields.
        settings: of the monitor that is changed; empty for a new one.
        kept: the names of credentials that are kept.

    Raises:
        InvalidInput: a value cannot be read, or one of several credentials is missing.
    """
    given = dict(values)
    kind = str(given["type"])
    forget = bool(given.pop(FORGET, False))
    body: dict[str, Any] = {"deploy": dict(settings.get("deploy", {}))}
    strategy = strategy_from(given.pop("strategy", None), given)
    if strategy is not None or settings.get("strategy") is not None:
        body["strategy"] = strategy
    match given.pop("replaces", KEEP):
        case "keep":
            pass
        case "new":
            body["replaces"] = None
        case number:
            body["replaces"] = int(number)
    secret = {name: given.pop(name) for name in [*given] if is_secret(name)}
    body |= _secrets(kind, {k: v for k, v in secret.items() if v}, kept, forget=forget)
    body["storage_options"] = {}
    for name, value in given.items():
        if name.startswith(PLAIN):
            body["storage_options"][name.removeprefix(PLAIN)] = value
        elif name.startswith(DEPLOY):
            body["deploy"][name.removeprefix(DEPLOY)] = value
        else:
            body[name] = value
    for name, (types, usual) in _OF_TYPES.items():
        if kind not in types and name in settings:
            body[name] = usual
        elif kind in types and name in settings:
            body.setdefault(name, usual)
    for name, empty in (("main", ""), ("python", ""), ("description", ""), ("trust", ""),
                        ("options", {}), ("requirements", None), ("golden", [])):  # fmt: skip
        if name in settings:  # which was emptied
            body.setdefault(name, empty)
    return body


def is_secret(name: str) -> bool:
    """Whether a field is a credential."""
    return name.startswith(SECRET) or name in {"fs_ugi", "ftp_password"}


def _secrets(
    kind: str, given: Mapping[str, str], kept: Sequence[str], *, forget: bool
) -> dict[str, Any]:
    if forget:
        cleared: dict[str, Any] = {}
        for name in kept:
            cleared[name if not name.startswith(SECRET) else "secret_options"] = (
                {} if name.startswith(SECRET) else ""
            )
        return cleared | _secrets(kind, given, (), forget=False)
    options = {
        name.removeprefix(SECRET): value for name, value in given.items() if name.startswith(SECRET)
    }
    found: dict[str, Any] = {
        name: value for name, value in given.items() if not name.startswith(SECRET)
    }
    if options:
        for name in kept:
            if name.startswith(SECRET) and name not in given:
                raise InvalidInput(name, "nothing", "it anew, as credentials change all together")
        found["secret_options"] = options
    return found
