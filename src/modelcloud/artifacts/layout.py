"""Finds the root and the main file in a folder of unpacked files, by the rules of `target`.

Must never: import or run any of it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from modelcloud.artifacts.target import MAIN_FILES, NOTEBOOK_SUFFIX, locate
from modelcloud.artifacts.tree import parts_of
from modelcloud.errors import ModelLoadError, UsageError
from modelcloud.runtimes import detect

ACCEPTED = (
    "accepted: a model.py, a backend.py or a model file at the top (or in the one folder that is "
    "there), or a main file named as path/file.py, path/file.py:function or as the model file"
)


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """`root` is the artifact's; the others are as in `types.Manifest`."""

    root: Path
    main: str
    module: str
    name: str
    runtime: str


def lay_out(files: Path, main: str) -> Layout:
    """Say what of `files` is the artifact and what of it is served.

    `tar czf m.tgz mymodel/` puts one folder around everything: the root is the first folder, from
    the top on, that holds the main file or anything beside one folder. A package keeps its folder,
    so that its modules can import each other by its name.

    Args:
        files: where everything is; its own name must be none that Python could import.
        main: as the user named it, below the root; empty to look for the obvious one.

    Raises:
        UsageError: there is no such file, or no obvious one.
    """
    place, colon, name = main.rpartition(":") if ":" in main else (main, "", "")
    if colon and not name.isidentifier():
        raise UsageError(f"{main!r}: {name!r} is no name of a function or class; {ACCEPTED}")
    place = "/".join(parts_of(place, depth=64))
    top = _top(files, place)
    path = top / place
    if path.is_dir():
        path = _main_of(path, "/".join(path.relative_to(files).parts))
    if path.suffix not in {".py", NOTEBOOK_SUFFIX} and _model_in(path) is None:
        raise UsageError(f"{place!r} is no Python file; {ACCEPTED}")
    try:
        found = locate(f"{path}:{name}" if name else str(path), top)
    except ModelLoadError as error:  # not expected: its text may name a folder of the server
        raise UsageError(f"{place!r} cannot be served; {ACCEPTED}", detail=error.message) from None
    in_package = found.root != path.parent
    root = found.root if in_package else top
    relative = path.relative_to(root).as_posix()
    return Layout(
        root=root, main=relative, module=found.module, name=found.name, runtime=found.runtime
    )


def _model_in(path: Path) -> detect.Found | None:
    try:
        return detect.detect(path)
    except ModelLoadError as error:
        raise UsageError(error.message) from None


def _top(files: Path, place: str) -> Path:
    top = files
    while True:
        if (top / place).exists() if place else _main_at(top):
            return top
        entries = sorted(entry.name for entry in top.iterdir() if not entry.name.startswith("."))
        if len(entries) != 1 or not (top / entries[0]).is_dir():
            listed = ", ".join(map(repr, entries[:10])) + (" …" if len(entries) > 10 else "")
            missing = f"there is no {place!r}" if place else "there is no main file"
            raise UsageError(f"{missing}; at the top are: {listed or 'no files'}; {ACCEPTED}")
        top /= entries[0]


def _main_at(folder: Path) -> bool:
    named = any((folder / main).is_file() for main in MAIN_FILES)
    return named or _model_in(folder) is not None


def _main_of(folder: Path, shown: str) -> Path:
    found = [folder / name for name in MAIN_FILES if (folder / name).is_file()]
    if not found and (model := _model_in(folder)) is not None:
        return model.main
    if len(found) != 1:
        what = "both a model.py and a backend.py" if found else "no model"
        raise UsageError(f"the folder {shown or '.'!r} holds {what}; {ACCEPTED}")
    return found[0]
