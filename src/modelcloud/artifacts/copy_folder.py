"""Copies a folder of this machine to a `Tree`: what belongs to a model, and nothing from elsewhere.

Must never: follow a link out of the folder, even one that is put there while it copies.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from modelcloud.artifacts.decompress import CHUNK
from modelcloud.artifacts.target import is_skipped
from modelcloud.artifacts.tree import Tree
from modelcloud.errors import UsageError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_folder(
    source: Path,
    tree: Tree,
    under: str = "",
    *,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
) -> None:
    """Copy the regular files of `source` to `tree`, below its folder `under`.

    Hidden files and folders, caches and environments are left out. A link to a file inside of
    `source` gives that file.

    Args:
        source: an absolute path without links in it.
        tree: where the files go.
        under: folder of the tree; empty: its root.
        only: names at its top that are taken; None: all.
        without: names at its top that are left out.

    Raises:
        UsageError: it holds a link that leads out or to a folder, a device, or what may not be
            read.
        TooLarge: it is over a cap of the tree.
    """
    with _held(os.open("/", _FOLDER)) as top, _held(_open(top, source.parts[1:], _FOLDER)) as root:
        copy = _Copy(source, root, tree, under)
        copy.folder(root, (), lambda name: name not in without and (only is None or name in only))


class _Copy:
    def __init__(self, source: Path, root: int, tree: Tree, under: str) -> None:
        self._source, self._root = source, root
        self._tree, self._under = tree, under

    def folder(
        self, folder: int, parts: tuple[str, ...], wanted: Callable[[str], bool] = lambda _: True
    ) -> None:
        """Copy what is wanted of what an open folder holds; `parts` lead to it."""
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            path = (*parts, entry.name)
            if entry.name.startswith(".") or not wanted(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                if not is_skipped(self._source.joinpath(*path)):
                    self._tree.folder("/".join((self._under, *path)).lstrip("/"))
                    with _held(_open(folder, (entry.name,), _FOLDER)) as inner:
                        self.folder(inner, path)
            elif entry.is_symlink():
                with _held(_open(self._root, self._linked(path), _FILE)) as file:
                    self._file(file, path)
            else:
                with _held(_open(folder, (entry.name,), _FILE)) as file:
                    self._file(file, path)

    def _linked(self, path: tuple[str, ...]) -> tuple[str, ...]:
        """Where a link leads, below the source."""
        try:
            target = self._source.joinpath(*path).resolve(strict=True)
            return target.relative_to(self._source).parts
        except (OSError, RuntimeError, ValueError):
            raise UsageError(
                f"{'/'.join(path)!r} is a link that leads out of the folder, or nowhere; "
                "accepted: files, and links to files inside"
            ) from None

    def _file(self, file: int, path: tuple[str, ...]) -> None:
        name = "/".join(path)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise UsageError(f"{name!r} is no regular file; accepted: files and folders")
        chunks = iter(lambda: os.read(file, CHUNK), b"")
        self._tree.file(f"{self._under}/{name}" if self._under else name, chunks)


def _open(folder: int, parts: Sequence[str], flags: int) -> int:
    """Open what `parts` lead to from an open folder, if none of them is a link."""
    held = os.dup(folder)
    try:
        for number, part in enumerate(parts, 1):
            inner = os.open(part, flags if number == len(parts) else _FOLDER, dir_fd=held)
            os.close(held)
            held = inner
    except OSError as error:
        os.close(held)
        raise UsageError(f"{'/'.join(parts)!r} cannot be read: {error.strerror}") from None
    return held


@contextmanager
def _held(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
