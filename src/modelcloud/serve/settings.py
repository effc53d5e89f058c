"""Checks a `ServeConfig` before anything is started, so that a mistake is one clear line.

Must never: start, bind or import the model; only look.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from msgspec.structs import replace

from modelcloud.config import ServeConfig
from modelcloud.errors import UsageError
from modelcloud.rollout.snapshot import check_strategy
from modelcloud.sdk.declare import RESERVED

_SERVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
#: Names of files that say less than that of their folder.
_GENERIC = {
    "MLmodel", "__init__", "__main__", "__model__", "app", "backend", "inference", "main", "model",
    "saved_model",
}  # fmt: skip
_TOKEN = re.compile(r"[!-~]+")


def checked(config: ServeConfig) -> ServeConfig:
    """Return the settings with service name and artifact root filled in, folders absolute.

    Raises:
        UsageError: one does not fit; the message says which, what came and what is accepted.
    """
    for name in ("replicas", "threads", "gateways"):
        if getattr(config, name) < 1:
            raise UsageError(f"{name}: got {getattr(config, name)}; accepted: 1 or more")
    if not 0 <= config.port <= 65535:
        raise UsageError(f"port: got {config.port}; accepted: 0 to 65535")
    if config.admin_token and not _TOKEN.fullmatch(config.admin_token):
        raise UsageError("the admin token holds a space or a character beyond ASCII")
    check_strategy(config.strategy)
    if config.python and shutil.which(config.python) is None:
        raise UsageError(f"python: {config.python!r} is no program that can be run")
    if config.uds and config.tls_cert:
        raise UsageError("uds and tls_cert do not go together; a proxy in front ends TLS")
    _check_tls(config)
    root = Path(config.artifact_root) if config.artifact_root else _folder_of(config.target)
    if not root.is_dir():
        raise UsageError(f"artifact_root: {str(root)!r} is no folder")
    if config.upload_dir and not Path(config.upload_dir).is_dir():
        raise UsageError(f"upload_dir: {config.upload_dir!r} is no folder")
    return replace(
        config,
        service=_checked_name(config.service) if config.service else service_name(config.target),
        uds=os.path.abspath(config.uds) if config.uds else "",  # noqa: PTH100 — a link stays one
        artifact_root=str(root.resolve()),
        upload_dir=str(Path(config.upload_dir).resolve()) if config.upload_dir else "",
        timestamp_file=_beside(config.target, config.timestamp_file),
    )


def service_name(target: str) -> str:
    """A name for what is served: of its file or module, or of the folder if that says more."""
    place, _ = split_target(target)
    path = Path(place)
    if path.suffix in {".py", ".pkl"} or path.is_file():
        name = path.resolve().parent.name if path.stem in _GENERIC else path.stem
    elif path.is_dir():
        name = path.resolve().name
    else:
        name = place.rpartition(".")[2]
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "model"
    return f"{name}_model" if name in RESERVED else name


def split_target(target: str) -> tuple[str, str]:
    """`path/file.py:name` → the place and the name; the name is empty where there is none."""
    place, colon, name = target.rpartition(":")
    if not colon or os.path.exists(target):  # noqa: PTH110 — Path's raises on a name too long
        return target, ""
    return place, name


def _checked_name(name: str) -> str:
    if not _SERVICE.fullmatch(name):
        raise UsageError(
            f"the service name {name!r} cannot stand in an address; accepted: letters, digits, "
            "_, - and ."
        )
    if name in RESERVED:
        raise UsageError(f"the service name {name!r} is an address of the server itself")
    return name


def _folder_of(target: str) -> Path:
    path = Path(split_target(target)[0])
    if path.is_dir():
        return path
    return path.parent if path.is_file() else Path.cwd()


def _beside(target: str, file: str) -> str:
    """A file named below the target's folder, links kept: what they lead to may be exchanged."""
    folder = _folder_of(target)
    return os.path.abspath(folder / file) if file else ""  # noqa: PTH100 — a link stays one


def _check_tls(config: ServeConfig) -> None:
    if bool(config.tls_cert) != bool(config.tls_key):
        raise UsageError("tls_cert and tls_key go together")
    if not config.tls_cert:
        return
    for path in (config.tls_cert, config.tls_key):
        if not os.access(path, os.R_OK):
            raise UsageError(f"TLS: {path} is not there or cannot be read; accepted: a PEM file")
    import ssl  # only who serves https pays for it

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            config.tls_cert, config.tls_key, password=_refuse_password
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"TLS: {config.tls_cert} and {config.tls_key}: {reason}; accepted: a certificate chain "
            "and its unencrypted private key, in PEM"
        ) from None


def _refuse_password() -> str:
    raise ValueError("the key needs a password")
