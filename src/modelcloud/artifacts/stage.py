"""Makes the folder of a new artifact from an archive or a folder: unpack, lay out, digest, fsync.

Must never: run in the control plane; user data is unpacked in a process of its own (see
`stage_process`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from functools import lru_cache
from pathlib import Path

import msgspec

from modelcloud.artifacts.archive import unpack
from modelcloud.artifacts.copy_folder import copy_folder
from modelcloud.artifacts.layout import Layout, lay_out
from modelcloud.artifacts.snapshot import sync_tree
from modelcloud.artifacts.target import GOLDEN, NOTEBOOK_SUFFIX, is_skipped, locate
from modelcloud.artifacts.tree import Caps, Tree
from modelcloud.errors import NotFound, UsageError
from modelcloud.runtimes import detect
from modelcloud.types import MANIFEST, Manifest

#: Where files are unpacked. No name that Python could import: files that happen to be a package
#: at the top of an archive are then served as plain files.
UNPACKED = "unpacked-files"


class StageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to make an artifact from.

    Attributes:
        source: an archive, a folder, the main file in its folder, or a model file; absolute,
            without links.
        work: an empty folder of one's own.
        caps: the most it may hold.
        main: the main file; empty to look for the obvious one.
        root: a folder above `source` that nothing is taken from beyond; empty: `source` itself.
        golden: further golden requests, a line each, beside those that the source holds.
    """

    source: str
    work: str
    caps: Caps
    main: str = ""
    root: str = ""
    golden: str = ""


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact in the making, complete and on the disk.

    Attributes:
        folder: its files and manifest, below the request's `work`.
        digest: sha256 of the manifest.
        main, name, runtime: as in the manifest.
        pickled: whether it is a model file whose loading runs code that it holds.
        size: bytes of the files.
        files: how many.
    """

    folder: str
    digest: str
    main: str
    name: str
    runtime: str = ""
    pickled: bool = False
    size: int
    files: int


def stage(request: StageRequest) -> Staged:
    """Make it. What is left in `work` after an error is for the caller to remove.

    Raises:
        UsageError: the source is not accepted; the message says why.
        TooLarge: it is over a cap.
        NotFound: there is no such source.
        OSError: it could not be read or written.
    """
    source, files = Path(request.source), Path(request.work, UNPACKED)
    files.mkdir(mode=0o700)
    main = request.main
    if source.is_file() and (model := detect.detect(source)) is not None:
        tree = Tree(files, request.caps)
        parts = {path.name for path in locate(str(source), source.parent).files}
        copy_folder(source.parent, tree, only=parts)
        return _finish(tree, lay_out(files, model.main.name), request.golden)
    if source.suffix in {".py", NOTEBOOK_SUFFIX} and source.is_file():
        main = main or source.name
        source = source.parent
    if source.is_dir():
        tree = Tree(files, request.caps)
        package = _package_of(source, Path(request.root or source))
        if package is None:
            copy_folder(source, tree)
        else:
            main = (source / main).relative_to(package.parent).as_posix()
            copy_folder(package, tree, under=package.name)
    elif source.is_file():
        tree = unpack(source, files, request.caps)
    else:
        raise NotFound("there is no such file or folder")
    return _finish(tree, lay_out(files, main), request.golden)


def _package_of(folder: Path, root: Path) -> Path | None:
    """The outermost package that `folder` is part of, none above `root`."""
    package = None
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        package = folder
        if folder == root:
            break
        folder = folder.parent
    return package


def _add_golden(tree: Tree, layout: Layout, golden: str) -> None:
    """Have the golden requests stand where a worker finds them, after those that are there."""
    path = (layout.root / layout.main).parent / GOLDEN
    name = path.relative_to(tree.root).as_posix()
    content = golden.encode()
    if name in tree.files:
        content = path.read_bytes().rstrip(b"\n") + b"\n" + content
        path.unlink()
        del tree.files[name]
    tree.file(name, [content])


def _finish(tree: Tree, layout: Layout, golden: str) -> Staged:
    """Drop what is no part of the model, write the manifest, make all of it last."""
    root = layout.root
    if golden:
        _add_golden(tree, layout, golden)
    skipped = lru_cache(maxsize=None)(is_skipped)
    digests: dict[str, str] = {}
    left_out = []
    for name, digest in sorted(tree.files.items()):
        path = tree.root / name
        if not path.is_relative_to(root):
            continue
        relative = path.relative_to(root)
        folders = (root / parent for parent in relative.parents if parent.name)
        if relative.name.startswith(".") or any(map(skipped, folders)):
            left_out.append(path)
        else:
            digests[relative.as_posix()] = digest
    for path in left_out:
        path.unlink()
    if layout.main not in digests:
        raise UsageError(f"{layout.main!r} is hidden, or in an environment or a cache")
    if MANIFEST in digests:
        raise UsageError(
            f"there is a {MANIFEST} at the top, a name that is the server's own there; "
            "accepted: any other name, or a folder for it"
        )
    manifest = Manifest(
        root="",
        main=layout.main,
        module=layout.module,
        name=layout.name,
        runtime=layout.runtime,
        files=digests,
    )
    text = msgspec.json.encode(manifest, order="sorted")
    (root / MANIFEST).write_bytes(text)
    _settle(root)
    return Staged(
        folder=str(root),
        digest=hashlib.sha256(text).hexdigest(),
        main=layout.main,
        name=layout.name,
        runtime=layout.runtime,
        pickled=bool(layout.runtime) and detect.is_pickle_based(root / layout.main),
        size=sum((root / name).stat().st_size for name in digests),
        files=len(digests),
    )


def _settle(root: Path) -> None:
    """Make everything read-only and lasting, but for `root` itself, which is still to be moved."""
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            Path(folder, name).chmod(0o440)
        if Path(folder) != root:
            with contextlib.suppress(OSError):  # not empty
                Path(folder).rmdir()
                continue
            Path(folder).chmod(0o550)
    sync_tree(root)
