"""Imports a generation's code from its snapshot, while `__file__` stays where the user wrote it.

An artifact of the store was written nowhere else: its code runs where it is kept.

Must never: run bytes that do not match the manifest, or a cached `.pyc` of other bytes.
"""

from __future__ import annotations

import hashlib
import importlib
import linecache
import os
import sys
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
    SourcelessFileLoader,
)
from importlib.util import decode_source, find_spec, module_from_spec, spec_from_file_location
from pathlib import Path, PurePosixPath
from types import CodeType, ModuleType
from typing import Any

import msgspec

from modelcloud.errors import ModelLoadError
from modelcloud.types import MANIFEST, Manifest

_FILE_LOADERS: tuple[tuple[Any, list[str]], ...] = (
    (ExtensionFileLoader, EXTENSION_SUFFIXES),
    (SourceFileLoader, SOURCE_SUFFIXES),
    (SourcelessFileLoader, BYTECODE_SUFFIXES),
)


class StagedCode:
    """The files of a snapshot, as the modules they are.

    Args:
        folder: the snapshot.
        digest: what its manifest must hash to; "" takes any.
        port: fills `${port}` in the main file.

    Attributes:
        manifest: what it holds.
        root: where the files were taken from; of an artifact of the store, the snapshot itself.
        kept: whether it is an artifact of the store, with its files of every kind.
        folders: those that hold staged files, relative to `root`.

    Raises:
        ModelLoadError: the manifest is missing or does not match the digest.
    """

    def __init__(self, folder: Path, digest: str, port: int) -> None:
        try:
            text = (folder / MANIFEST).read_bytes()
            self.manifest = msgspec.json.decode(text, type=Manifest)
        except (OSError, msgspec.MsgspecError) as error:
            raise ModelLoadError("the staged code is not readable", detail=str(error)) from None
        if digest and hashlib.sha256(text).hexdigest() != digest:
            raise ModelLoadError("the staged code is not the one this generation was made of")
        self.kept = not self.manifest.root
        self.root = folder.resolve() if self.kept else Path(self.manifest.root)
        self._folder, self._port = folder, port
        self.folders = {
            str(parent) for name in self.manifest.files for parent in PurePosixPath(name).parents
        }

    @property
    def _in_package(self) -> bool:
        return "." in self.manifest.module or self.manifest.main.endswith("/__init__.py")

    def read(self, name: str) -> bytes:
        """The bytes of one file, `${port}` filled in if it is the main one.

        Raises:
            ModelLoadError: they are not those that were staged.
        """
        try:
            data = (self._folder / name).read_bytes()
        except OSError as error:
            raise ModelLoadError(f"the staged {name} is gone", detail=str(error)) from None
        if hashlib.sha256(data).hexdigest() != self.manifest.files[name]:
            raise ModelLoadError(f"the staged {name} was changed since it was staged")
        if name == self.manifest.main:
            data = data.replace(b"${port}", str(self._port).encode())
        return data

    def install(self) -> None:
        """Make imports find this code first; an earlier snapshot's in this process is forgotten."""
        _forget_installed()
        # As for a script, modules beside the main file come first. Beside one in a package they
        # come last: its `logging.py` is no top-level one.
        root, main = str(self.root), self.manifest.main
        beside_main = str((self.root / main).parent) if main else root
        first = [root] if self._in_package else list(dict.fromkeys((beside_main, root)))
        last = [beside_main] if self._in_package else []
        sys.path[:] = [*first, *sys.path, *last]
        sys.path_hooks.insert(0, _Hook(self, (*first, *last)))
        _forget_finders(self.root)

    def import_main(self) -> ModuleType:
        """Import the main module, never as `__main__`."""
        name, main = self.manifest.module, self.manifest.main
        if not main and find_spec(name.partition(".")[0]) is None:
            raise ModelLoadError(
                f"there is no module {name!r}; accepted: one in the current folder, or "
                "installed in the environment that serves it"
            )
        if "." in name or not main:
            return importlib.import_module(name)
        if name in sys.modules or name in sys.stdlib_module_names:
            name = f"modelcloud_{name}"  # `code.py` must not stand in for the standard library's
        spec = self.spec(name, main)
        module = module_from_spec(spec)
        sys.modules[name] = module
        try:
            assert spec.loader is not None
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    def spec(self, fullname: str, name: str) -> ModuleSpec:
        """The import spec of one file."""
        path = str(self.root / name)
        package = [os.path.dirname(path)] if name.endswith("__init__.py") else None  # noqa: PTH120 — a str
        spec = spec_from_file_location(
            fullname,
            path,
            loader=_StagedLoader(fullname, path, self, name),
            submodule_search_locations=package,
        )
        assert spec is not None
        return spec

    def folder_of(self, entry: str) -> str | None:
        """An entry of `sys.path` or of a package's path → the staged folder it is, if one."""
        path = Path(entry).resolve()
        if not path.is_relative_to(self.root):
            return None
        folder = path.relative_to(self.root).as_posix()
        return folder if folder in self.folders else None


class _StagedLoader(SourceFileLoader):
    """Reads from the snapshot what the import system believes to be at `path`."""

    def __init__(self, fullname: str, path: str, code: StagedCode, name: str) -> None:
        super().__init__(fullname, path)
        self._code, self._name = code, name

    def get_data(self, path: str) -> bytes:
        return self._code.read(self._name) if path == self.path else super().get_data(path)

    def get_code(self, fullname: str) -> CodeType:
        data = self.get_data(self.path)
        try:
            text = decode_source(data)
        except (SyntaxError, UnicodeDecodeError) as error:  # these do not say where it is
            before = getattr(error, "start", 0)
            place = (self.path, data.count(b"\n", 0, before) + 1, None, None)
            raise SyntaxError(str(error), place) from None
        code: CodeType = self.source_to_code(data, self.path)
        # Tracebacks are to show the lines that run, not those the user has since edited.
        linecache.cache[self.path] = (len(text), None, text.splitlines(keepends=True), self.path)
        return code


class _StagedFinder(FileFinder):
    """Finds the staged modules of one folder, then whatever else is there now.

    The rest is what no snapshot holds: extension modules, links that lead elsewhere.
    """

    def __init__(self, path: str, code: StagedCode, folder: str) -> None:
        super().__init__(path, *_FILE_LOADERS)
        self._code, self._folder = code, PurePosixPath(folder)

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        tail = fullname.rpartition(".")[2]
        for file in (f"{tail}/__init__.py", f"{tail}.py"):
            name = str(self._folder / file)
            if name in self._code.manifest.files:
                return self._code.spec(fullname, name)
        spec = super().find_spec(fullname, target)
        if spec is None and str(self._folder / tail) in self._code.folders:
            # a folder of modules without `__init__.py`, which is there no more
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(self._code.root / self._folder / tail)]
        return spec


class _Hook:
    """An entry of `sys.path_hooks` for the folders of one snapshot."""

    def __init__(self, code: StagedCode, entries: tuple[str, ...]) -> None:
        self.code, self.entries = code, entries

    def __call__(self, entry: str) -> FileFinder:
        folder = self.code.folder_of(entry)
        if folder is None:
            raise ImportError(f"{entry} is not staged")
        return _StagedFinder(entry, self.code, folder)


def _forget_installed() -> None:
    for name, module in list(sys.modules.items()):
        if isinstance(getattr(module, "__loader__", None), _StagedLoader):
            del sys.modules[name]
    for hook in [hook for hook in sys.path_hooks if isinstance(hook, _Hook)]:
        sys.path_hooks.remove(hook)
        for entry in hook.entries:
            if entry in sys.path:
                sys.path.remove(entry)
        _forget_finders(hook.code.root)


def _forget_finders(root: Path) -> None:
    for entry in list(sys.path_importer_cache):
        if Path(entry).resolve().is_relative_to(root):
            del sys.path_importer_cache[entry]
