"""Files and folders of this machine, as of a network share that is mounted.

Must never: read what does not lie below one of the given roots, wherever a link leads, even one
that is put there meanwhile: what was opened is what is checked.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from modelcloud.errors import Forbidden, NotFound, Overloaded, UsageError
from modelcloud.monitors.address import only_unguarded
from modelcloud.monitors.mark import Entry, Mark, folder_mark
from modelcloud.monitors.source import MAX_DEPTH, MAX_ENTRIES, SourceSpec

_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class Local:
    """See `Source`."""

    def __init__(self, spec: SourceSpec) -> None:
        if not spec.roots:
            only_unguarded(spec.addresses, "a folder of this machine")
        self._folder = Path(spec.path).absolute()
        self._roots = [Path(root).resolve() for root in spec.roots]

    def marks(self, *names: str) -> list[Mark | None]:
        """See `Source.marks`."""
        return [self._mark(self._folder / name) for name in names]

    def read(self, name: str, limit: int) -> bytes | None:
        """See `Source.read`."""
        try:
            with self._file(self._folder / name) as file:
                content = file.read(limit + 1)
        except NotFound:
            return None
        if len(content) > limit:
            raise UsageError(f"{name} holds more than {limit} bytes")
        return content

    def fetch(self, name: str, into: Path) -> None:
        """See `Source.fetch`."""
        path = self._folder / name
        if not path.is_dir():
            self._copy(path, into)
            return
        into.mkdir()
        for file in self._files(path):
            target = into / file
            target.parent.mkdir(parents=True, exist_ok=True)
            self._copy(path / file, target)

    def _copy(self, path: Path, into: Path) -> None:
        with self._file(path) as source, into.open("xb") as target:
            shutil.copyfileobj(source, target, 1024 * 1024)

    def _mark(self, path: Path) -> Mark | None:
        try:
            with self._opened(path) as descriptor:
                found = os.fstat(descriptor)
        except NotFound:
            return None
        if not stat.S_ISDIR(found.st_mode):
            return Mark(modified=found.st_mtime, size=found.st_size, tag=_state(found))
        entries = []
        for name in self._files(path):
            with self._opened(path / name) as descriptor:
                inner = os.fstat(descriptor)
            entries.append(Entry(name, inner.st_size, _state(inner)))
        return folder_mark(entries)

    def _files(self, path: Path) -> list[str]:
        """Every file below a folder, by its path in there."""
        found: list[str] = []
        for place, folders, files in os.walk(path):
            inner = Path(place).relative_to(path)
            links = [name for name in folders if (Path(place) / name).is_symlink()]
            if links:
                raise UsageError(f"{path} holds a link to a folder, {inner / links[0]}")
            found += [str(inner / name) for name in files]
            if len(found) > MAX_ENTRIES or len(inner.parts) >= MAX_DEPTH:
                raise UsageError(
                    f"{path} holds more than {MAX_ENTRIES} files, or folders nested deeper than "
                    f"{MAX_DEPTH}"
                )
        return found

    @contextlib.contextmanager
    def _file(self, path: Path) -> Iterator[BinaryIO]:
        with self._opened(path) as descriptor:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError(f"{path} is no file")
            with os.fdopen(os.dup(descriptor), "rb") as file:
                yield file

    @contextlib.contextmanager
    def _opened(self, path: Path) -> Iterator[int]:
        """A file or folder, which lies below a root whatever its name leads to."""
        try:
            descriptor = os.open(path, _OPEN)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"there is no {path}") from None
        except OSError as error:
            raise Overloaded(f"{path} cannot be read: {error.strerror}") from None
        try:
            real = Path(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115 — of an open file
            if self._roots and not any(real.is_relative_to(root) for root in self._roots):
                raise Forbidden(f"{path} leads out of {' and '.join(map(str, self._roots))}")
            yield descriptor
        finally:
            os.close(descriptor)


def _state(found: os.stat_result) -> str:
    return f"ino={found.st_ino} mtime={found.st_mtime_ns}"
