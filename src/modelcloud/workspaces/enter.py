"""Becomes a JupyterLab: confines this process, writes the lab's settings, and runs it in its place.

Must never: put the token where other users of the machine can read it, which a command line is.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from modelcloud.dataplane.confinement import Confinement, confine

_PR_SET_PDEATHSIG = 1
#: Bytes in one message of a browser to its lab, which the proxy holds to as well.
MAX_MESSAGE = 32 * 1024 * 1024
#: What asks whether to bring news from elsewhere.
_DISABLED = {"@jupyterlab/apputils-extension:announcements": True}


class Lab(msgspec.Struct, frozen=True, kw_only=True):
    """What a lab is started with.

    Attributes:
        files: the folder that it shows, which is kept.
        own: a folder of its own, which goes with it: settings, home.
        socket: where it listens; only this server's user may connect, and only with the token.
        base: the path that its addresses begin with, `/w/…/`.
        token: what it is asked with.
        confinement: of it and of all that runs in it.
        environment: of it, beside what follows from `own` and `files`.
    """

    files: str
    own: str
    socket: str
    base: str
    token: str
    confinement: Confinement
    environment: dict[str, str]


def settings(lab: Lab, *, root: bool) -> dict[str, Any]:
    """Of Jupyter, as `jupyter_server_config.json` holds them. `root`: the server runs as root."""
    return {
        "ServerApp": {
            "allow_remote_access": True,  # who asks is known before; Host is not what it goes by
            "allow_root": root,
            "base_url": lab.base,
            "open_browser": False,
            "quit_button": False,
            "root_dir": lab.files,
            "sock": lab.socket,
            "sock_mode": "0600",
            "max_body_size": MAX_MESSAGE,
            "max_buffer_size": 2 * MAX_MESSAGE,
            "websocket_ping_interval": 30_000,
            "jpserver_extensions": {"jupyter_lsp": False, "notebook_shim": False},
        },
        "IdentityProvider": {"token": lab.token},
        "PasswordIdentityProvider": {"allow_password_change": False},
        "FileContentsManager": {"delete_to_trash": False},
        "LabApp": {
            "check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate",
            "extension_manager": "readonly",
        },
    }


def environment(lab: Lab) -> dict[str, str]:
    """Of the lab: its folders are its own, and packages that are installed go to the group's."""
    packages = f"{lab.files}/.packages"
    return {
        **lab.environment,
        "HOME": lab.own,
        "TMPDIR": f"{lab.own}/tmp",  # noqa: S108 — a private folder
        "JUPYTER_CONFIG_DIR": f"{lab.own}/config",
        "JUPYTER_DATA_DIR": f"{lab.own}/data",
        "JUPYTER_RUNTIME_DIR": f"{lab.own}/run",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "IPYTHONDIR": f"{lab.own}/ipython",
        "PATH": f"{Path(sys.executable).parent}:{lab.environment.get('PATH', os.defpath)}",
        "PIP_TARGET": packages,
        "PYTHONPATH": ":".join(filter(None, [packages, lab.environment.get("PYTHONPATH")])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SHELL": lab.environment.get("SHELL", "/bin/sh"),
    }


def main() -> None:
    """Read what to be from standard input, and be it."""
    keeper = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(1)
    lab = msgspec.json.decode(sys.stdin.buffer.readline(), type=Lab)
    os.umask(0o077)
    own = Path(lab.own)
    for name in ("tmp", "config", "data", "run", "ipython"):
        (own / name).mkdir(mode=0o700, exist_ok=True)
    config = own / "config"
    (config / "labconfig").mkdir(mode=0o700, exist_ok=True)
    for name, held in (
        ("jupyter_server_config.json", settings(lab, root=os.geteuid() == 0)),
        ("labconfig/page_config.json", {"disabledExtensions": _DISABLED}),
    ):
        (config / name).write_bytes(msgspec.json.encode(held))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.chdir(lab.files)
    if lab.confinement != Confinement():
        confine(lab.confinement)
    # Isolated: what lies in the group's folder is for kernels; by a lab that it broke, nobody could
    # mend it.
    command = [sys.executable, "-I", "-B", "-m", "jupyterlab"]
    os.execve(sys.executable, command, environment(lab))  # noqa: S606 — its own command line


if __name__ == "__main__":
    main()
