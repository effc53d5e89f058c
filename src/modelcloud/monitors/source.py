"""The seam to remote places: what a source can do, and how one is described.

Must never: connect anywhere; `sources/` does, in a process of its own.
"""

from __future__ import annotations

import errno
import posixpath
import re
from pathlib import Path
from typing import Any, Protocol

import msgspec

from modelcloud.errors import UsageError
from modelcloud.monitors.address import Addresses
from modelcloud.monitors.mark import Mark

#: Of a connection, and of an answer of a few bytes.
TIMEOUT_S = 30.0
#: The most a remote folder may hold: files and folders, folders in folders.
MAX_ENTRIES, MAX_DEPTH = 20_000, 16

GENERAL, HDFS, AFS, FTP = "general", "hdfs", "afs", "ftp"
S3, SFTP, WEBHDFS, LOCAL, URL = "s3", "sftp", "webhdfs", "local", "url"
THROUGH_FSSPEC = (S3, SFTP, WEBHDFS, URL)
TYPES = (GENERAL, HDFS, AFS, FTP, LOCAL, *THROUGH_FSSPEC)
FTP_PORT = 21

#: Names of storage options whose values are secret.
_SECRET = re.compile(r"pass|secret|token|key|credential|sas|ugi", re.IGNORECASE)
_OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class SourceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A remote place.

    Attributes:
        type: one of `TYPES`.
        path: the folder there; of `s3`, `sftp`, `webhdfs` and `url` a URL.
        host: of `general` the URL that `path` is below, of `ftp` the machine.
        port: of `ftp`.
        username, password: of `ftp`; empty for anonymous.
        hadoop_bin: of `hdfs` and `afs`: the program.
        fs_name: of those: the file system, when it is not the program's own.
        fs_ugi: of those: `user,password`.
        options: of the types that go through fsspec: its storage options.
        addresses: what it may connect to.
        roots: of `local`: the folders below which it must lie; empty: anywhere, where `addresses`
            knows no rule.
    """

    type: str
    path: str
    host: str = ""
    port: int = FTP_PORT
    username: str = ""
    password: str = ""
    hadoop_bin: str = ""
    fs_name: str = ""
    fs_ugi: str = ""
    options: dict[str, Any] = {}
    addresses: Addresses = Addresses()
    roots: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Without anything secret."""
        return f"SourceSpec(type={self.type!r}, path={hide_password(self.path)!r})"

    def secrets(self) -> list[str]:
        """Texts that no log and no message may show."""
        found = [self.password, self.fs_ugi, *self.fs_ugi.split(",")[1:]]
        found += _passwords(self.path) + _passwords(self.host) + _secret_values(self.options)
        return sorted({text for text in found if text}, key=len, reverse=True)

    def identity(self) -> str:
        """What names the place, without what may be renewed while it stays the same."""
        return "\n".join(
            (self.type, hide_password(self.path), self.host, str(self.port), self.fs_name)
        )


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """Names in the remote folder: of the model, and of the file that says that it is done."""

    model: str
    done: str


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """What a fetch may take.

    Attributes:
        stall_s: without a new byte.
        whole_s: altogether.
        size: bytes.
    """

    stall_s: float = 30.0
    whole_s: float = 3600.0
    size: int = 64 * 1024**3


class Source(Protocol):
    """A remote place. Each call may block; who calls sees to its end."""

    def marks(self, *names: str) -> list[Mark | None]:
        """What there is of each name; None: nothing.

        Raises:
            ModelcloudError: the place cannot be asked.
        """
        ...

    def read(self, name: str, limit: int) -> bytes | None:
        """The content of a small file; None: there is none.

        Raises:
            ModelcloudError: it cannot be had, or is more than `limit` bytes.
        """
        ...

    def fetch(self, name: str, into: Path) -> None:
        """Write a file or folder to `into`, which is not there yet.

        Raises:
            NotFound: there is none.
            ModelcloudError: it cannot be had.
            OSError: it cannot be written.
        """
        ...


def is_local(error: BaseException) -> bool:
    """Whether an error is of a file or the disk of this machine, not of a connection."""
    return isinstance(error, OSError) and (error.filename is not None or error.errno in _OF_DISKS)


def join(folder: str, name: str) -> str:
    """The path of `name` in a remote folder."""
    return posixpath.join(folder, name) if folder else name


def check_name(name: str, what: str) -> None:
    """Raise unless it is the name of something in the remote folder, or below it.

    Raises:
        UsageError: it is not.
    """
    if not name or name.startswith(("/", "-")) or _CONTROL.search(name):
        raise UsageError(
            f"{what} {name!r}: accepted: a name in the remote folder", field=what.lstrip("-")
        )
    if ".." in name.split("/"):
        raise UsageError(f"{what} {name!r} leads out of the remote folder", field=what.lstrip("-"))


def check_path(path: str, what: str) -> None:
    """Raise if a remote path holds what no protocol may be given.

    Raises:
        UsageError: it does.
    """
    if _CONTROL.search(path) or path.startswith("-"):
        raise UsageError(f"{what} {path!r} begins with '-' or holds a control character")


def hide_password(url: str) -> str:
    """The URL with `***` for a password in it."""
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", url)


def _secret_values(options: dict[str, Any]) -> list[str]:
    found = []
    for name, value in options.items():
        if isinstance(value, dict):
            found += _secret_values(value)
        elif isinstance(value, str) and _SECRET.search(name):
            found.append(value)
    return found


def _passwords(url: str) -> list[str]:
    return [found[1] for found in re.finditer(r"://[^/@:]*:([^/@]*)@", url)]
