"""Reads what a user wants served: `model.py`, `file.py:function`, `module:function`, model files.

Must never: import or run any of it; targets are read in processes that hold no user code.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from modelcloud.errors import ModelLoadError
from modelcloud.runtimes import detect

ACCEPTED = (
    "accepted: path/model.py, path/file.py:function, module:function, a model file, "
    "or a folder with a model.py, a backend.py or a model file"
)
MAIN_FILES = ("model.py", "backend.py")
NOTEBOOK_SUFFIX = ".pkl"

#: Beside the main file, these are part of a version too: warm-up and golden requests …
GOLDEN = "golden.jsonl"
COMPANIONS = ("warmup.jsonl", GOLDEN)
#: … and what is told of it when it is registered.
BESIDE = (*COMPANIONS, "requirements.txt", "metrics.json", "history.csv")


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where a target's code is.

    Attributes:
        root: the folder imports start from.
        subtree: the folder below it (or itself) that holds the code; a file if that is all.
        main: the served file, relative to `root`; empty for an installed module.
        module: the name it is imported by; empty for a pickled notebook and a model file.
        name: what of it is served; empty to look for the obvious one.
        runtime: of a model file without code, what loads it; else empty.
    """

    root: Path
    subtree: Path
    main: str
    module: str
    name: str
    runtime: str = ""

    @property
    def files(self) -> list[Path]:
        """If `subtree` is a file: it, and of a model file what belongs to it and stands beside."""
        main = self.root / self.main
        if not self.runtime:
            return [main]
        beside = [main.parent / name for name in BESIDE]
        return [*detect.parts_of(main), *(path for path in beside if path.is_file())]


def locate(target: str, cwd: Path) -> Location:
    """Find the code a target names.

    Args:
        target: as on the command line.
        cwd: what relative paths are relative to, and where modules are looked for first.

    Raises:
        ModelLoadError: there is nothing of that name; the message says what is accepted.
    """
    place, colon, name = target.rpartition(":")
    if not colon or (cwd / target).exists():
        place, name = target, ""
    elif not name.isidentifier():
        raise ModelLoadError(f"{target!r}: {name!r} is no name of a function or class; {ACCEPTED}")
    path = cwd / place
    named = path
    if path.is_dir():
        path = _main_of(path, target)
    if path.is_file():
        found = None if name else detect.detect(path)
        return _of_file(path.resolve(), name) if found is None else _of_model(found, named)
    if place.endswith((".py", NOTEBOOK_SUFFIX)) or os.sep in place or not colon:
        raise ModelLoadError(f"{place!r}: no such file; {ACCEPTED}", file=str(path))
    if not all(part.isidentifier() for part in place.split(".")):
        raise ModelLoadError(f"{target!r}: {place!r} is no file and no module; {ACCEPTED}")
    return _of_module(place, name, cwd.resolve())


def _main_of(folder: Path, target: str) -> Path:
    found = [folder / name for name in MAIN_FILES if (folder / name).is_file()]
    if not found and (model := detect.detect(folder)) is not None:
        return model.main
    if len(found) != 1:
        what = "both a model.py and a backend.py, name one" if found else "no model"
        raise ModelLoadError(f"the folder {target!r} holds {what}; {ACCEPTED}", file=str(folder))
    return found[0]


def _of_model(found: detect.Found, named: Path) -> Location:
    """A model file; `named` is the folder or file that was asked for."""
    main = found.main.parent.resolve() / found.main.name  # a link keeps its name
    subtree = main if named.is_file() and not detect.names_folder(main) else main.parent
    return Location(
        root=main.parent,
        subtree=subtree,
        main=main.name,
        module="",
        name="",
        runtime=found.runtime,
    )


def _of_file(path: Path, name: str) -> Location:
    if path.suffix == NOTEBOOK_SUFFIX and not name:
        return Location(root=path.parent, subtree=path, main=path.name, module="", name="")
    if path.suffix != ".py":
        raise ModelLoadError(
            f"{path.name!r} is no Python file; {ACCEPTED}; {detect.ACCEPTED}", file=str(path)
        )
    package = package_of(path.parent)
    if package is None:
        module = re.sub(r"\W", "_", path.stem)
        return Location(
            root=path.parent, subtree=path.parent, main=path.name, module=module, name=name
        )
    root = package.parent
    parts = path.relative_to(root).with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    main, module = path.relative_to(root).as_posix(), ".".join(parts)
    return Location(root=root, subtree=package, main=main, module=module, name=name)


def package_of(folder: Path) -> Path | None:
    """The outermost package that `folder` is part of."""
    package = None
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        package, folder = folder, folder.parent
    return package


def _of_module(module: str, name: str, cwd: Path) -> Location:
    installed = Location(root=cwd, subtree=cwd, main="", module=module, name=name)
    top, *rest = module.split(".")
    spec = PathFinder.find_spec(top, [str(cwd), *(entry for entry in sys.path if entry)])
    found = _home_of(spec) if spec is not None else None
    if found is None or not _is_ours(found, cwd):
        return installed
    root = found.parent
    for candidate in (
        root.joinpath(top, *rest).with_suffix(".py"),
        root.joinpath(top, *rest, "__init__.py"),
    ):
        if candidate.is_file():
            main = candidate.relative_to(root).as_posix()
            return Location(root=root, subtree=root, main=main, module=module, name=name)
    raise ModelLoadError(f"there is no module {module!r} in {top!r}; {ACCEPTED}", file=str(found))


def _home_of(spec: ModuleSpec) -> Path | None:
    """The file, or for a package the folder, of a top-level module."""
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin).resolve() if spec.origin else None


def _is_ours(path: Path, cwd: Path) -> bool:
    """Whether it is the user's own code below `cwd`, and not a package installed there."""
    if not path.is_relative_to(cwd):
        return False
    return not any(
        folder.name == "site-packages" or is_skipped(folder)
        for folder in path.parents
        if folder != cwd and folder.is_relative_to(cwd)
    )


def is_skipped(folder: Path) -> bool:
    """Whether a folder below the root holds no code of the model: caches, environments, hidden."""
    return (
        folder.name.startswith(".")
        or folder.name in {"__pycache__", "node_modules"}
        or (folder / "pyvenv.cfg").exists()
        or (folder / "conda-meta").exists()
    )
