"""A model's folder as one archive file, to be uploaded.

Must never: follow a link, or take what is no part of a model (caches, environments, hidden files).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from modelcloud.artifacts.pack import files_below, write_archive
from modelcloud.artifacts.target import locate, package_of
from modelcloud.errors import UsageError

ARCHIVES = (
    ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip",
)  # fmt: skip


class Packed(NamedTuple):
    """An archive, and the main file in it; empty: the platform looks for the obvious one."""

    archive: Path
    main: str


@contextmanager
def packed(path: Path, main: str = "") -> Iterator[Packed]:
    """An archive of what is at `path`, for as long as it is needed.

    A folder is taken with all that is a model's in it. Of a main file, `FILE.py` or `FILE.py:NAME`,
    the folder it stands in is taken; of what is in a package, the whole package; of a model file,
    it and what belongs to it.

    Args:
        path: a folder, a main file, a model file, or an archive, which stays as it is.
        main: the main file in a folder or an archive; empty for the obvious one.

    Raises:
        UsageError: there is nothing to take, it cannot be read, or the main file is named twice.
        ModelLoadError: a file that is no main file.
    """
    if path.is_file() and path.name.lower().endswith(ARCHIVES):
        yield Packed(path, main)
        return
    if path.is_dir():
        top = path.resolve()
        package = package_of(top)
        root = package.parent if package else top
        main = (top / main).relative_to(root).as_posix() if package else main
        files = files_below(package or top)
    else:
        if main:
            raise UsageError(f"--main goes with a folder or an archive; {path} is neither")
        location = locate(str(path), Path.cwd())
        if not location.main:
            raise UsageError(f"{path} is installed, and no file or folder to pack")
        root, alone = location.root, location.subtree.is_file()
        files = iter(location.files) if alone else files_below(location.subtree)
        main = location.main + (f":{location.name}" if location.name else "")
    with tempfile.TemporaryDirectory(prefix="modelcloud-") as folder:
        archive = Path(folder) / "model.tar.gz"
        try:
            write_archive(archive, ((file, file.relative_to(root).as_posix()) for file in files))
        except OSError as error:
            place = error.filename or path
            raise UsageError(f"{place} cannot be packed: {error.strerror}") from None
        yield Packed(archive, main)
