"""The unix socket that a server listens on: had alone, shared by its gateways, gone with it.

Must never: take a path from a server that lives, or remove what is not this server's own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

from modelcloud.errors import Conflict, UsageError

#: `sun_path` of unix(7), less the byte that ends it.
LONGEST = 107
#: Owner and group may connect; a proxy does so as a member of the group.
MODE = 0o660


class UnixAddress:
    """A bound socket at `path`; nobody can connect before `sockets.listen`.

    A lock on `path` + ".lock" is held as long: a server that still loads its model does not
    listen, and could not be told from one that has died otherwise.

    Raises:
        Conflict: another server has the path.
        UsageError: it cannot be had: too long, no socket, no such folder, no permission.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        size = len(os.fsencode(path))
        if size > LONGEST:
            raise UsageError(
                f"uds: {path} is {size} bytes long; accepted: up to {LONGEST}, which is all that "
                "the address of a unix socket holds"
            )
        try:
            self._lock = _lock(self._path)
            try:
                self._sock = _bind(self._path)
            except BaseException:
                self._unlock()
                raise
        except OSError as error:
            raise UsageError(f"uds: {path}: {error.strerror}") from error
        found = self._path.lstat()
        self._identity = found.st_dev, found.st_ino

    def listeners(self, count: int) -> list[socket.socket]:
        """So many handles of the one socket; all who hold one accept from the same queue."""
        return [self._sock, *(self._sock.dup() for _ in range(count - 1))]

    def release(self) -> None:
        """Let another server have the path; harmless the second time."""
        if self._lock < 0:
            return
        try:
            found = self._path.lstat()
            if (found.st_dev, found.st_ino) == self._identity:
                self._path.unlink()
        except OSError:
            pass  # someone else took it away, or its whole folder
        self._unlock()

    def _unlock(self) -> None:
        _lock_path(self._path).unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = -1


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _lock(path: Path) -> int:
    place = _lock_path(path)
    while True:
        lock = os.open(place, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if place.lstat().st_ino == os.fstat(lock).st_ino:
                return lock
        except BlockingIOError:
            os.close(lock)
            raise _in_use(path) from None
        except FileNotFoundError:
            pass
        os.close(lock)  # its owner removed it just before letting go: it locks nobody out


def _bind(path: Path) -> socket.socket:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISSOCK(mode):
            raise UsageError(f"uds: {path} is there and is no socket; accepted: a path to make")
        if _answers(path):
            raise _in_use(path)
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        path.chmod(MODE)
    except OSError:
        sock.close()
        raise
    return sock


def _answers(path: Path) -> bool:
    """Whether a process listens there; a path that may not be tried counts as one that does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) != errno.ECONNREFUSED


def _in_use(path: Path) -> Conflict:
    return Conflict(
        f"{path} is already in use; stop what listens there or choose another path", uds=str(path)
    )
