"""A systemd unit that serves what `modelcloud serve` serves.

Must never: put a secret into the unit, which every user may read, or claim a restriction that
numpy, a JIT compiler or a GPU does not work under.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from modelcloud.config import ServeConfig
from modelcloud.errors import UsageError
from modelcloud.node.gateway import START_S
from modelcloud.node.supervisor import longest_stop_s
from modelcloud.serve.console import url_of

#: From a model's longest load to the first answer, and from a switch to the end of an update.
START_GRACE_S = 60.0
#: Beyond the time in which a gateway that hangs is found and replaced.
WATCHDOG_SLACK_S = 20.0
#: systemd's own folders: it makes them for the unit's user and lets the unit write there.
_FOLDERS = {
    "/run": "RuntimeDirectory",
    "/var/cache": "CacheDirectory",
    "/var/lib": "StateDirectory",
    "/var/log": "LogsDirectory",
}
_HOMES = ("/home", "/root", "/run/user")
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 — compared
#: A file that only root reads stays so; the unit's user gets a copy that only it reads.
_TOKEN = "${CREDENTIALS_DIRECTORY}/admin-token"  # noqa: S105 — where it is
_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./%$-]+")


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What a unit says beside the settings.

    Attributes:
        program: absolute path of the `modelcloud` script.
        arguments: those of `modelcloud serve`, paths absolute, without the admin token.
        folder: working directory.
        user: whom the server runs as.
        group: its group; "" for the user's own.
        token_file: absolute path of the admin token's file; "" for none.
        paths: whatever the server must find, absolute.
    """

    program: str
    arguments: tuple[str, ...]
    folder: str
    user: str
    group: str = ""
    token_file: str = ""
    paths: tuple[str, ...] = ()


def unit(config: ServeConfig, around: Surroundings) -> str:
    """Return the text of the unit.

    Args:
        config: checked settings.
        around: what they do not say.

    Raises:
        UsageError: something that no unit can hold, or that cannot be served by one.
    """
    if not config.uds and config.port == 0:
        raise UsageError("port 0 is another one at each start; accepted here: a port, or --uds")
    command = _command([around.program, "serve", *around.arguments])
    if around.token_file:
        command += f" \\\n    --admin-token-file {_TOKEN}"
    service = config.service
    lines = [
        "# Written by `modelcloud generate systemd`.",
        "[Unit]",
        f"Description=Model {_raw(service)}, served by modelcloud",
        "Wants=network-online.target",
        "After=network-online.target",
        "# Whatever a model needs to load may come back: never give up starting it.",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"User={_name('user', around.user)}",
        *([f"Group={_name('group', around.group)}"] if around.group else []),
        f"WorkingDirectory={_raw(around.folder)}",
        f"ExecStart={command}",
        *_reload(config, around),
        *([f"LoadCredential=admin-token:{_raw(around.token_file)}"] if around.token_file else []),
        "",
        "Restart=on-failure",
        "RestartSec=5",
        "# 2 is wrong usage, which another start does not mend.",
        "RestartPreventExitStatus=2",
        f"WatchdogSec={_seconds(config.health_timeout_s + START_S + WATCHDOG_SLACK_S)}",
        f"TimeoutStartSec={_seconds(config.load_timeout_s + START_GRACE_S)}",
        "# The server is told to stop, answers what is under way (--drain) and ends its processes.",
        "KillMode=mixed",
        f"TimeoutStopSec={_seconds(longest_stop_s(config.drain_s))}",
        "# A worker that the kernel kills for memory is replaced; the others serve on.",
        "OOMPolicy=continue",
        "",
        *_places(config),
        "",
        *_hardening([around.program, around.folder, *around.paths]),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def _reload(config: ServeConfig, around: Surroundings) -> list[str]:
    if around.token_file:
        return [
            "# No ExecReload=: systemd hands credentials such as the token to ExecStart= alone."
        ]
    if config.tls_cert:
        return ["# No ExecReload=: the certificate is not for the address of this machine."]
    return [
        "# `systemctl reload` is a live update: the files load anew while the old ones serve.",
        f"ExecReload={_command([around.program, 'update', url_of(config)])}",
    ]


def _places(config: ServeConfig) -> list[str]:
    """Where it may write; the rest of the file system is read-only to it."""
    out = [f"CacheDirectory=modelcloud/{config.service}",
           f"Environment=XDG_CACHE_HOME=%C/modelcloud/{config.service}"]  # fmt: skip
    if config.uds:
        out += _writable(Path(config.uds).parent)
        if out[-1].startswith("RuntimeDirectory="):
            out.append("RuntimeDirectoryMode=0750")
    if config.log_dir:
        out += _writable(Path(os.path.abspath(config.log_dir)))  # noqa: PTH100 — a link stays one
    return out


def _writable(folder: Path) -> list[str]:
    for parent, directive in _FOLDERS.items():
        if folder.is_relative_to(parent) and folder != Path(parent):
            return [f"{directive}={_word(str(folder.relative_to(parent)), variables=False)}"]
    return [f"ReadWritePaths={_word(str(folder), variables=False)}"]


def _hardening(paths: Iterable[str]) -> list[str]:
    interpreter = (sys.prefix, sys.base_prefix)
    used = [Path(path) for path in (*paths, *interpreter)]
    home = any(path.is_relative_to(parent) for path in used for parent in _HOMES)
    temporary = next(
        (path for path in used if any(path.is_relative_to(parent) for parent in _TEMPORARY)), None
    )
    return [
        "UMask=0027",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        f"ProtectHome={'read-only' if home else 'yes'}",
        *_temporary(temporary),
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "LockPersonality=yes",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "# AF_NETLINK is how libraries list network interfaces.",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "SystemCallArchitectures=native",
        "# Not here, since models break under them: MemoryDenyWriteExecute= (compilers such as",
        "# numba and torch.compile write code and run it; so do callbacks of ctypes and cffi),",
        "# PrivateDevices=, DevicePolicy= and ProtectClock= (they hide GPUs).",
    ]


def _temporary(used: Path | None) -> list[str]:
    if used is None:
        return ["PrivateTmp=yes"]
    return [f"# PrivateTmp=yes would hide {used}.", "ReadWritePaths=/tmp"]


def _command(words: Sequence[str]) -> str:
    """A command line by systemd.service(5), `$` and `%` doubled so that they stand for themselves.

    Options begin lines of their own.
    """
    # No variable is put into the path of a program.
    text = _word(words[0], variables=False)
    for word in words[1:]:
        text += f" \\\n    {_word(word)}" if word.startswith("--") else f" {_word(word)}"
    return text


def _word(text: str, *, variables: bool = True) -> str:
    """One word of a line that is read as words; `variables`: of one in which `$` has a meaning."""
    raw = _raw(text)
    if variables:
        raw = raw.replace("$", "$$")
    if _PLAIN.fullmatch(raw):
        return raw
    return '"' + raw.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _raw(text: str) -> str:
    """A value that is taken as it is, but for specifiers."""
    if not text.isprintable():
        raise UsageError(f"{text!r} holds a control character, which cannot stand in a unit")
    return text.replace("%", "%%")


def _name(what: str, name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?", name):
        raise UsageError(f"{what}: {name!r} is no name of a {what}")
    return name


def _seconds(seconds: float) -> str:
    return str(math.ceil(seconds))
