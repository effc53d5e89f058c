"""What a section of `conf.ini` names on this machine's disk: code, model files, requirements.

Must never: import or run any of it; the class is looked for in the text.
"""

from __future__ import annotations

import ast
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from modelcloud.artifacts.environment import check_requirements
from modelcloud.artifacts.pack import files_below, write_archive
from modelcloud.errors import UsageError
from modelcloud.packages.conf import Conf, Section
from modelcloud.packages.ini import Problem, Refused
from modelcloud.types import MANIFEST, Manifest

PACKAGES, ZOO = "algopkg", "Model_ZOO"
INIT, BACKEND, REQUIREMENTS = "__init__.py", "backend.py", "requirements.txt"
#: The parent package, where there is no such file: an empty one.
_PARENT = f"{PACKAGES}/{INIT}"
_CHUNK = 1024 * 1024


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What a version is made of.

    Attributes:
        files: name in the artifact → file on this machine; the parent package may have none.
        manifest: as the platform will write it.
        digest: of the manifest; what the platform calls the artifact.
        requirements: text of a requirements file; "": no environment of its own.
        model_path: handed to the class: `folder,file,file…`, or "".
    """

    name: str
    files: dict[str, Path]
    manifest: Manifest
    digest: str
    requirements: str
    python: str
    model_path: str

    @property
    def main(self) -> str:
        """The served class, as registering takes it."""
        return f"{self.manifest.main}:{self.manifest.name}"


def read(conf: Conf, root: Path) -> tuple[dict[str, Source], list[Problem]]:
    """The source of every section, by name, and what of them is missing or does not fit.

    Args:
        conf: what is asked for.
        root: the folder of `conf.ini`.
    """
    sources: dict[str, Source] = {}
    problems: list[Problem] = []
    for section in conf.sections:
        try:
            sources[section.name] = source(section, root, conf.file)
        except Refused as refused:  # noqa: PERF203 — all of them are told at once
            problems += refused.problems
    return sources, problems


def source(section: Section, root: Path, file: str) -> Source:
    """What one section names below `root`; `file` is what its lines are lines of.

    Raises:
        Refused: something is missing or does not fit; all of it is told.
    """
    problems: list[Problem] = []

    def wrong(key: str, text: str) -> None:
        problems.append(Problem(file, section.line_of(key), text))

    folder = root / PACKAGES / section.name
    missing = [name for name in (INIT, BACKEND) if not (folder / name).is_file()]
    if missing:
        wrong("", f"{_shown(folder, root)} has no {' and no '.join(missing)}; accepted: a folder "
                  f"as `modelcloud new algopkg {section.name}` makes it")  # fmt: skip
    elif told := _class_problem(folder / BACKEND, section):
        wrong("user_config" if "user_config" in told else "backend", told)
    for name in section.model:
        if not (root / ZOO / name).exists():
            wrong("model", f"there is no {ZOO}/{name}; accepted: files in {root / ZOO}")
        elif any(part.startswith(".") for part in Path(name).parts):
            wrong("model", f"{name} is hidden; accepted: a name that begins with another letter")
    requirements = ""
    try:
        requirements = _requirements(section, root, folder)
        check_requirements(requirements)
    except UsageError as error:
        wrong("requirements", error.message)
    if problems:
        raise Refused(problems)
    try:
        files = dict(_files(section, root, folder))
        digests = {name: _digest(path) for name, path in files.items()}
    except OSError as error:
        raise Refused(
            [Problem(file, section.line, f"{error.filename} cannot be read: {error.strerror}")]
        ) from None
    digests.setdefault(_PARENT, hashlib.sha256().hexdigest())
    manifest = Manifest(
        root="",
        main=f"{PACKAGES}/{section.name}/{BACKEND}",
        module=f"{PACKAGES}.{section.name}.{Path(BACKEND).stem}",
        name=section.backend,
        files=dict(sorted(digests.items())),
    )
    return Source(
        name=section.name,
        files=files,
        manifest=manifest,
        digest=hashlib.sha256(_encoded(manifest)).hexdigest(),
        requirements=requirements,
        python=section.python,
        model_path=",".join([ZOO, *section.model]) if section.model else "",
    )


@contextmanager
def archive(of: Source) -> Iterator[Path]:
    """An archive of a source, for as long as it is needed.

    Raises:
        UsageError: a file can no longer be read.
    """
    with tempfile.TemporaryDirectory(prefix="modelcloud-") as folder:
        empty = Path(folder, "empty")
        empty.touch()
        made = Path(folder, f"{of.name}.tar.gz")
        files = {_PARENT: empty, **of.files}
        try:
            write_archive(made, ((files[name], name) for name in of.manifest.files))
        except OSError as error:
            raise UsageError(f"{error.filename} cannot be packed: {error.strerror}") from None
        yield made


def lay_down(of: Source, folder: Path) -> None:
    """Copy a source to a folder as the platform keeps it, with its manifest.

    Raises:
        OSError: a file cannot be read or written.
    """
    for name in of.manifest.files:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if name in of.files:
            shutil.copyfile(of.files[name], place)
        else:
            place.touch()
    (folder / MANIFEST).write_bytes(_encoded(of.manifest))


def watched(conf: Conf, root: Path) -> Iterator[Path]:
    """Every file whose change may change what is to run."""
    for section in conf.sections:
        yield from _there(root / PACKAGES / section.name)
        for name in section.model:
            yield from _there(root / ZOO / name)
        if section.requirements:
            yield root / section.requirements


def classes_of(backend: Path) -> dict[str, ast.ClassDef]:
    """The classes that a `backend.py` defines at its top, in order.

    Raises:
        SyntaxError, ValueError, OSError: it is no Python, or cannot be read.
    """
    return _classes(ast.parse(backend.read_bytes(), str(backend)))


def _classes(tree: ast.Module) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _class_problem(backend: Path, section: Section) -> str:
    """Why the class cannot be served, as far as the text tells; "" if it can."""
    name = section.backend
    try:
        tree = ast.parse(backend.read_bytes(), str(backend))
    except SyntaxError as error:
        return f"{backend.name}:{error.lineno}: {error.msg}; accepted: valid Python"
    except (OSError, ValueError) as error:
        return f"{backend.name} cannot be read: {error}"
    classes = _classes(tree)
    found = classes.get(name)
    if found is None:
        if {name, "*"} & _bound(tree):  # what was imported shows when it is loaded
            return ""
        known = ", ".join(classes) or "none is there"
        return f"{backend.name} has no class {name}; accepted: one of its classes: {known}"
    if section.user_config is not None and not found.bases and not _has(found, "reconfigure"):
        return (
            f"user_config is given, but {name} has no reconfigure(self, config); accepted: a class "
            "with one, or no user_config"
        )
    return ""


def _bound(tree: ast.Module) -> set[str]:
    """The names that a module's own statements bind, `*` for those that an import brings unnamed.

    Statements within `if` and `try` are its own; those of a function or a class are not.
    """
    found: set[str] = set()
    todo: list[ast.AST] = [*tree.body]
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
            continue
        if not isinstance(node, ast.Lambda):
            todo += ast.iter_child_nodes(node)
    return found


def _has(of: ast.ClassDef, method: str) -> bool:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return any(isinstance(node, functions) and node.name == method for node in of.body)


def _requirements(section: Section, root: Path, folder: Path) -> str:
    """The text of the file that counts, "" where nothing of it does.

    Raises:
        UsageError: it cannot be read.
    """
    if section.requirements is None:
        path = folder / REQUIREMENTS
        if section.python or not path.is_file():
            return ""
    elif section.requirements:
        path = root / section.requirements
    else:
        return ""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{_shown(path, root)}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{_shown(path, root)} is no text in UTF-8") from None
    return text if any(line.partition("#")[0].strip() for line in text.splitlines()) else ""


def _files(section: Section, root: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Name in the artifact, and the file; a model in the zoo may be a link to where it is."""
    parent = root / _PARENT
    if parent.is_file():
        yield _PARENT, parent
    for path in files_below(folder):
        yield f"{PACKAGES}/{section.name}/{path.relative_to(folder).as_posix()}", path
    for name in section.model:
        place = (root / ZOO / name).resolve()
        if place.is_dir():
            for path in files_below(place):
                yield f"{ZOO}/{name}/{path.relative_to(place).as_posix()}", path
        else:
            yield f"{ZOO}/{name}", place


def _there(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from files_below(place.resolve())
    else:
        yield place


def _shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _encoded(manifest: Any) -> bytes:
    return msgspec.json.encode(manifest, order="sorted")
