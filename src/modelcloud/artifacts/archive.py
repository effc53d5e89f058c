"""Unpacks an archive (tar, tar.gz, tar.bz2, tar.xz, tar.zst, zip) that nobody vouches for.

Must never: run in the control plane (see `stage`), make anything but regular files and folders,
or keep a mode, owner or time that the archive names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from modelcloud.artifacts.decompress import CHUNK, MAGIC, bounded, expand
from modelcloud.artifacts.tar_reader import BLOCK, looks_like_tar, read_tar
from modelcloud.artifacts.tree import Caps, Tree
from modelcloud.artifacts.zip_reader import read_zip
from modelcloud.errors import UsageError

ACCEPTED = "accepted: tar, tar.gz, tar.bz2, tar.xz, tar.zst, zip"
#: What a tar may hold beside its files' bytes: headers and filling of each member, the end.
_OVERHEAD, _END = 4 * BLOCK, 32 * 1024 * 1024


def unpack(archive: Path, into: Path, caps: Caps) -> Tree:
    """Write an archive's files below `into`, an empty folder.

    What is left there after an error is for the caller to remove.

    Raises:
        UsageError: it is no archive, damaged, cut short, or holds what is not accepted: links,
            devices, names that lead out or come twice.
        UnsupportedMedia: it is packed in a way that is not read here.
        TooLarge: it is over a cap.
        OSError: it could not be read, or its files not be written.
    """
    tree = Tree(into, caps)
    with archive.open("rb") as source:
        start = source.read(BLOCK)
        source.seek(0)
        if start.startswith((b"PK\3\4", b"PK\5\6")):
            read_zip(source, tree, caps.entries)
        else:
            limit = caps.bytes + caps.entries * _OVERHEAD + _END
            read_tar(bounded(_tar_stream(source, start), limit), tree)
    if not tree.files:
        raise UsageError("the archive holds no files")
    return tree


def _tar_stream(source: BinaryIO, start: bytes) -> Iterator[bytes]:
    kind = next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), "")
    chunks = expand(source, kind) if kind else iter(lambda: source.read(CHUNK), b"")
    first = b""
    while len(first) < BLOCK and (chunk := next(chunks, b"")):
        first += chunk
    if not looks_like_tar(first):
        what = f"{kind} data that is no tar" if kind else "no archive"
        raise UsageError(f"this is {what}; {ACCEPTED}")
    yield first
    yield from chunks
