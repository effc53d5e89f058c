"""Puts the files of an archive, a folder or one file into a folder, exactly, and on the disk.

Must never: run in a process that serves or decides (see `stage_process`), or take over a mode,
owner, time or link of what it is given.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from modelcloud.artifacts.archive import unpack
from modelcloud.artifacts.decompress import CHUNK
from modelcloud.artifacts.snapshot import sync_tree
from modelcloud.artifacts.tree import Caps, Tree
from modelcloud.errors import UsageError


class UnpackRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to unpack.

    Attributes:
        source: an archive; or, where it is not packed, a folder or a file.
        into: an empty folder of one's own.
        caps: the most it may hold.
        packed: whether `source` is an archive.
    """

    source: str
    into: str
    caps: Caps
    packed: bool = True


class Unpacked(msgspec.Struct, frozen=True, kw_only=True):
    """What is there now: how many files, and their bytes."""

    files: int
    size: int


def unpack_request(request: UnpackRequest) -> Unpacked:
    """Do it. What is left in `into` after an error is for the caller to remove.

    Raises:
        UsageError: it is no whole archive, or holds what is not accepted.
        UnsupportedMedia: it is packed in a way that is not read here.
        TooLarge: it is over a cap.
        OSError: it could not be read or written.
    """
    source, into = Path(request.source), Path(request.into)
    if request.packed:
        tree = unpack(source, into, request.caps)
    else:
        tree = Tree(into, request.caps)
        _copy(source, tree)
    umask = os.umask(0)
    os.umask(umask)
    for folder, _, _ in os.walk(into):
        if Path(folder) != into:
            Path(folder).chmod(0o777 & ~umask)
    sync_tree(into)
    return Unpacked(files=len(tree.files), size=tree.size)


def _copy(source: Path, tree: Tree) -> None:
    files = [source] if source.is_file() else sorted(source.rglob("*"))
    for path in files:
        name = path.relative_to(source if path != source else source.parent).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise UsageError(f"{name!r} is no regular file; accepted: files and folders")
        if path.is_dir():
            tree.folder(name)
            continue
        with path.open("rb") as reader:
            tree.file(name, iter(lambda reader=reader: reader.read(CHUNK), b""))  # type: ignore[misc]
    if not tree.files:
        raise UsageError("the folder holds no files")
