"""Keeps the code of a generation as it was when staged, whatever is edited since.

Must never: import or run what it copies, follow a link out of the root, or change a snapshot.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from modelcloud.artifacts.copy_folder import copy_folder
from modelcloud.artifacts.target import (
    COMPANIONS,
    NOTEBOOK_SUFFIX,
    Location,
    is_skipped,
    locate,
)
from modelcloud.artifacts.tree import Caps, Tree
from modelcloud.errors import ModelLoadError, TooLarge, UsageError
from modelcloud.types import MANIFEST, Manifest

MAX_FILES = 5_000
MAX_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 16
MAX_ENTRIES = 100_000  # looked at, so that a huge folder is refused in about a second
MAX_NOTEBOOK_BYTES = 2 * 1024 * 1024 * 1024  # a notebook's functions may carry their weights
#: Of a model file with what belongs to it, and of a folder that is taken whole.
MODEL_CAPS = Caps(bytes=64 * 1024 * 1024 * 1024)

CHUNK = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One staged copy of a target's code, or of a model file.

    Attributes:
        digest: sha256 of the manifest, over every file's own.
        folder: where the copy is; `GenerationSpec.snapshot`.
        root: the folder it was taken from.
        main: the served file, relative to `root`; empty for an installed module.
        files: path relative to `root` → sha256.
    """

    digest: str
    folder: Path
    root: Path
    main: str
    files: Mapping[str, str]

    def companion(self, name: str) -> Path | None:
        """The staged copy of a file that stood beside the main file, such as `warmup.jsonl`."""
        relative = (Path(self.main).parent / name).as_posix()
        return self.folder / relative if relative in self.files else None


def take(
    target: str, into: Path, *, whole: bool = False, without: Collection[str] = ()
) -> Snapshot:
    """Copy a target's code to `into/<digest>/`; equal code gives the same folder.

    Taken are the `*.py` files below the target's root, and the companions beside its main file.
    A module of an installed package gives a snapshot without files: its environment holds it.
    Of a model file, and of a folder that is taken whole, everything is copied: a worker loads
    the copy, and never what was put in its place meanwhile.

    Args:
        target: what is served.
        into: where snapshots are kept.
        whole: take every file of the target's folder, not its code alone.
        without: names at the top of such a folder that are left out.

    Raises:
        ModelLoadError: there is no such target, it is over a limit, or an earlier snapshot of the
            same code is damaged.
        OSError: the copy could not be written; nothing is left of it.
    """
    location = locate(target, Path.cwd())
    whole = bool(location.main) and (whole or bool(location.runtime))
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".stage-", dir=into))
    try:
        manifest = Manifest(
            root="" if whole else str(location.root),
            main=location.main,
            module=location.module,
            name=location.name,
            runtime=location.runtime,
            files=(
                _copy_whole(location, stage, without)
                if whole
                else _copy(location, into.resolve(), stage)
            ),
        )
        text = msgspec.json.encode(manifest, order="sorted")
        folder = into / hashlib.sha256(text).hexdigest()
        if not folder.exists():
            (stage / MANIFEST).write_bytes(text)
            sync_tree(stage)
            _publish(stage, folder)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return replace(verify(folder), root=location.root)


def verify(folder: Path) -> Snapshot:
    """Check every file of a snapshot against its manifest, and the manifest against its digest.

    Raises:
        ModelLoadError: a file is missing, added or differs.
    """
    try:
        text = (folder / MANIFEST).read_bytes()
        manifest = msgspec.json.decode(text, type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise ModelLoadError(
            "the staged code has no readable manifest", detail=str(error)
        ) from None
    digest = hashlib.sha256(text).hexdigest()
    if digest != folder.name:
        raise ModelLoadError("the staged code's manifest does not match its digest")
    present = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    wrong = present ^ {MANIFEST, *manifest.files}
    wrong |= {
        name
        for name, expected in manifest.files.items()
        if name in present and _digest_of(folder / name) != expected
    }
    if wrong:
        raise ModelLoadError(
            f"the staged code is damaged: {', '.join(sorted(wrong)[:3])} differ from its manifest"
        )
    return Snapshot(
        digest=digest,
        folder=folder,
        root=Path(manifest.root),
        main=manifest.main,
        files=manifest.files,
    )


def _copy_whole(location: Location, stage: Path, without: Collection[str]) -> dict[str, str]:
    """Copy every file; path relative to the root → sha256, sorted.

    The folder is opened once, so that all files are of one folder even if another one is put in
    its place meanwhile.
    """
    tree, root = Tree(stage, MODEL_CAPS), location.root
    folder = location.subtree
    only = None
    if folder.is_file():
        folder, only = root, {path.name for path in location.files}
    try:
        under = folder.relative_to(root).as_posix()
        copy_folder(folder, tree, "" if under == "." else under, only=only, without=without)
    except (UsageError, TooLarge) as error:
        raise ModelLoadError(error.message, file=str(folder)) from None
    if location.main not in tree.files:
        raise ModelLoadError(f"{location.main!r} is gone, or hidden", file=str(root))
    if MANIFEST in tree.files:
        raise ModelLoadError(
            f"there is a {MANIFEST} at the top, a name that is the server's own there; accepted: "
            "any other name, or a folder for it",
            file=str(root),
        )
    return dict(sorted(tree.files.items()))


def _copy(location: Location, into: Path, stage: Path) -> dict[str, str]:
    """Copy the location's files to `stage`; path relative to the root → sha256, sorted."""
    if not location.main:
        return {}
    root, main = location.root, location.root / location.main
    if main.suffix == NOTEBOOK_SUFFIX:
        return {location.main: _copy_file(main, stage / main.name, MAX_NOTEBOOK_BYTES)[0]}
    wanted = [main, *(path for path in _python_files(location.subtree, root, into) if path != main)]
    wanted += [main.parent / name for name in COMPANIONS if (main.parent / name).is_file()]
    files: dict[str, str] = {}
    left = MAX_BYTES
    for path in wanted:
        relative = path.relative_to(root).as_posix()
        try:
            files[relative], size = _copy_file(path, stage / relative, left)
        except (FileNotFoundError, PermissionError):
            # Gone since it was listed, or nothing that this user's worker could import either.
            if path == main:
                raise
            continue
        left -= size
    return dict(sorted(files.items()))


def _python_files(subtree: Path, root: Path, exclude: Path) -> Iterator[Path]:
    """Every `*.py` file of a folder tree that a model there can import."""
    found = looked_at = 0
    pending = [(subtree, 1)]
    while pending:
        folder, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise _too_much(root, f"folders nested deeper than {MAX_DEPTH}")
        try:
            entries = sorted(folder.iterdir())
        except (FileNotFoundError, PermissionError):
            continue
        for path in entries:
            looked_at += 1
            if looked_at > MAX_ENTRIES:
                raise _too_much(root, f"more than {MAX_ENTRIES} files and folders")
            if path.is_symlink() and (path.is_dir() or _leads_out(path, root)):
                continue
            if path.is_dir():
                if path != exclude and not is_skipped(path):
                    pending.append((path, depth + 1))
            elif path.suffix == ".py" and path.is_file():
                found += 1
                if found > MAX_FILES:
                    raise _too_much(root, f"more than {MAX_FILES} Python files")
                yield path


def _leads_out(link: Path, root: Path) -> bool:
    try:
        return not link.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a loop of links leads nowhere
        return True


def _too_much(root: Path, what: str) -> ModelLoadError:
    return ModelLoadError(
        f"the folder of the model holds {what}; accepted: a folder of its own with its code only",
        file=str(root),
    )


def _copy_file(source: Path, target: Path, limit: int) -> tuple[str, int]:
    """Copy up to `limit` bytes; the digest is of the bytes that were written."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reader:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as writer:
            while chunk := reader.read(CHUNK):
                size += len(chunk)
                if size > limit:
                    raise _too_much(source.parent, f"more than {MAX_BYTES} bytes of code")
                digest.update(chunk)
                writer.write(chunk)
    return digest.hexdigest(), size


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as reader:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sync_tree(folder: Path) -> None:
    """Have the disk hold every file and folder of a tree."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(stage: Path, folder: Path) -> None:
    try:
        stage.rename(folder)
    except OSError:
        if not folder.exists():  # else another process has just put the same code there
            raise
    sync(folder.parent)
