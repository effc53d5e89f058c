"""The folder that an archive is unpacked into: checks names, counts what is written, digests it.

Must never: write outside its root, over something that is there, or beyond its caps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from modelcloud.errors import TooLarge, UsageError

MAX_NAME_BYTES = 255  # of one component; what the usual file systems take
MAX_PATH_BYTES = 1024


class Caps(msgspec.Struct, frozen=True, kw_only=True):
    """The most an artifact may hold: bytes of its files, files and folders, folders in folders."""

    bytes: int
    entries: int = 20_000
    depth: int = 16


class Tree:
    """Writes regular files below `root`, an empty folder that nobody else writes to.

    Attributes:
        root: where it writes.
        files: path below `root`, with `/` → sha256 in hexadecimal.
        size: bytes of them together.
    """

    def __init__(self, root: Path, caps: Caps) -> None:
        self.files: dict[str, str] = {}
        self.size = 0
        self.root, self._caps = root, caps
        self._folders: set[tuple[str, ...]] = {()}

    def folder(self, name: str) -> None:
        """Make a folder, and those above it.

        Raises:
            UsageError: the name may not be written.
            TooLarge: it is over a cap.
        """
        self._enter(parts_of(name, self._caps.depth))

    def file(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write one file.

        Raises:
            UsageError: the name may not be written, or was before.
            TooLarge: it is over a cap.
        """
        parts = parts_of(name, self._caps.depth)
        path = "/".join(parts)
        if not parts or path in self.files or parts in self._folders:
            raise UsageError(f"{path or name!r} is there twice; accepted: every name once")
        self._enter(parts[:-1])
        self._count()
        digest = hashlib.sha256()
        with (self.root / path).open("xb") as writer:
            for chunk in chunks:
                self.size += len(chunk)
                if self.size > self._caps.bytes:
                    raise TooLarge(f"more than {self._caps.bytes} bytes in its files")
                digest.update(chunk)
                writer.write(chunk)
        self.files[path] = digest.hexdigest()

    def _enter(self, parts: tuple[str, ...]) -> None:
        if parts in self._folders:
            return
        self._enter(parts[:-1])
        path = "/".join(parts)
        if path in self.files:
            raise UsageError(f"{path} is there as a file and as a folder")
        self._count()
        (self.root / path).mkdir(mode=0o700)
        self._folders.add(parts)

    def _count(self) -> None:
        if len(self.files) + len(self._folders) > self._caps.entries:
            raise TooLarge(f"more than {self._caps.entries} files and folders")


def parts_of(name: str, depth: int) -> tuple[str, ...]:
    """The components of a relative name; none for `.`, the folder itself.

    Raises:
        UsageError: it is absolute, leads out, or holds what no name should.
        TooLarge: it is too long or too deep.
    """
    shown = repr(name[:200])
    if name.startswith("/"):
        raise UsageError(f"{shown} is an absolute name; accepted: names below the archive's root")
    if "\\" in name or any(ord(char) < 0x20 or ord(char) == 0x7F for char in name):
        raise UsageError(f"{shown} holds a backslash or a control character")
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    if ".." in parts:
        raise UsageError(f"{shown} leads out with '..'; accepted: names below the archive's root")
    try:
        longest = max((len(part.encode()) for part in parts), default=0)
        whole = len(name.encode())
    except UnicodeEncodeError:
        raise UsageError(f"{shown} is no UTF-8 text") from None
    if longest > MAX_NAME_BYTES or whole > MAX_PATH_BYTES:
        raise TooLarge(
            f"{shown} is too long; accepted: names up to {MAX_NAME_BYTES} bytes, paths up to "
            f"{MAX_PATH_BYTES}"
        )
    if len(parts) > depth:
        raise TooLarge(f"{shown}: folders nested deeper than {depth}")
    return parts
