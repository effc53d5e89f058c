"""Puts a new model in the place of the local one, in one step.

Must never: write into the folder that is being read, or show a new timestamp with an old model.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from modelcloud.artifacts.snapshot import sync
from modelcloud.artifacts.store import remove_tree
from modelcloud.errors import Conflict, UsageError

log = logging.getLogger(__name__)

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
#: What a kernel or file system answers that cannot exchange two names.
_CANNOT = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}


class LocalModel:
    """`<folder>/<name>`, and the hidden folder beside it, `.<name>.monitor`, where models wait.

    That folder is on the same file system, so that a model changes its place by its name alone. It
    also holds the model that was replaced last, until the next is pulled: who has it open still
    reads all of it.

    Args:
        folder: where the model is; made if it is not there.
        name: of the model's folder.
        timestamp_file: name of the file in it whose time tells a server that it is another model.

    Raises:
        UsageError: a name that is none, or a folder that cannot be written.
        Conflict: another monitor has this model.
    """

    def __init__(self, folder: Path, name: str, timestamp_file: str) -> None:
        for text, flag in (
            (name, "--local_model_name"),
            (timestamp_file, "--local_timestamp_file"),
        ):
            if not text or text in {".", ".."} or "/" in text or "\0" in text:
                raise UsageError(f"{flag} {text!r}: accepted: the name of a file or folder, alone")
        self.path = folder / name
        self.timestamp = self.path / timestamp_file
        self._beside = folder / f".{name}.monitor"
        self._previous = self._beside / "previous"
        make_folder(self._beside)
        self._lock = hold(self._beside / "lock", f"the model {self.path}")
        self._repair()

    def is_there(self) -> bool:
        """Whether there is a model that was published whole."""
        return self.timestamp.is_file()

    def waiting(self) -> Path:
        """A new, empty folder for the next model; the one that was replaced last goes."""
        remove_tree(self._previous)
        return Path(tempfile.mkdtemp(prefix="next-", dir=self._beside))

    def publish(self, model: Path) -> None:
        """Put a model, a folder below `waiting()` whose files are on the disk, in the place.

        Raises:
            UsageError: the place cannot be taken; the local model is as it was.
            OSError: likewise.
        """
        self._stamp(model)
        if not self.path.exists() and not self.path.is_symlink():
            model.rename(self.path)
        else:
            try:
                exchange(model, self.path)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    raise UsageError(
                        f"{self.path} is a mount point, which cannot be replaced in one step; "
                        "mount the folder above it"
                    ) from None
                if error.errno not in _CANNOT:
                    raise
                log.warning(
                    "this file system cannot exchange two folders in one step: for a moment %s is "
                    "not there",
                    self.path,
                )
                self.path.rename(self._previous)
                try:
                    model.rename(self.path)
                except OSError:
                    self._previous.rename(self.path)
                    raise
            else:
                with contextlib.suppress(OSError):  # another user's; it then goes with its folder
                    model.rename(self._previous)
        sync(self.path.parent)
        sync(self._beside)

    def _stamp(self, model: Path) -> None:
        """Touch the timestamp file of a model that is still to be seen.

        It comes into view together with the model, and is later than the old one also for who
        counts in whole seconds.
        """
        file = model / self.timestamp.name
        now = time.time_ns()
        with contextlib.suppress(OSError):  # there is none yet
            now = max(now, (self.timestamp.stat().st_mtime_ns // 10**9 + 1) * 10**9)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except IsADirectoryError:
            raise UsageError(f"the model holds a folder named {file.name}") from None
        try:
            os.utime(descriptor, ns=(now, now))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        model.chmod(self._mode())
        sync(model)

    def _mode(self) -> int:
        """Of the folder: as it was, else as a new one's."""
        try:
            return self.path.stat().st_mode & 0o7777
        except OSError:
            umask = os.umask(0)
            os.umask(umask)
            return 0o777 & ~umask

    def _repair(self) -> None:
        """Remove what a killed monitor left; bring back a model that it had put aside."""
        if self._previous.exists() and not self.path.exists() and not self.path.is_symlink():
            self._previous.rename(self.path)
        for left in self._beside.iterdir():
            if left.name.startswith("next-"):
                remove_tree(left)


def exchange(one: Path, other: Path) -> None:
    """Give two existing files or folders each other's name, in one step.

    Raises:
        OSError: it did not happen; ENOSYS, EINVAL or ENOTSUP: kernel or file system cannot.
    """
    call: Callable[..., int] | None = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:  # a C library from before 2018
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    done = call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be made: {error.strerror}") from None


def hold(file: Path, what: str) -> int:
    """Lock a file for as long as this process lives.

    Raises:
        Conflict: another process holds it.
        UsageError: it cannot be written.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        held_by = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise Conflict(
            f"{what} has another monitor already (process {held_by or 'unknown'}); end it first, "
            "or name another model or temporary folder"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor
