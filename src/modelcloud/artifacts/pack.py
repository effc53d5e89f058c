"""Writes an archive of a model's files, the same one for the same files.

Must never: follow a link to a folder, or take what is no part of a model (caches, environments,
hidden files).
"""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from modelcloud.artifacts.target import is_skipped


def files_below(folder: Path) -> Iterator[Path]:
    """Every regular file of a model's folder, in the order of their names."""

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=refuse):
        here = Path(place)
        folders[:] = sorted(
            name
            for name in folders
            if not (here / name).is_symlink() and not is_skipped(here / name)
        )
        for name in sorted(files):
            file = here / name
            if not name.startswith(".") and file.is_file() and not file.is_symlink():
                yield file


def write_archive(archive: Path, files: Iterable[tuple[Path, str]]) -> None:
    """Write files, each under its name there, to a `.tar.gz`.

    Equal files make an equal archive, whoever packs them, when and from where.

    Raises:
        OSError: one cannot be read, or the archive not be written.
    """
    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as out,
        # A second name of a file is a file too, not a hard link, which no archive may hold.
        tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, dereference=True) as tar,
    ):
        for file, name in files:
            tar.add(file, name, recursive=False, filter=_plain)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    member.mode = 0o644
    return member
