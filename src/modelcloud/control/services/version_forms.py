"""What requests about services and versions may hold, and the rules of their names and ports.

Must never: ask the store; what depends on other rows is checked by the operations.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from modelcloud.artifacts.target import NOTEBOOK_SUFFIX
from modelcloud.control.common.names import check_name
from modelcloud.control.common.records import Body
from modelcloud.dataplane.paths import RESERVED_SERVICES
from modelcloud.errors import InvalidInput

MAX_VERSION = 1_000_000_000
MAX_REQUIREMENTS = 64 * 1024

Text = Annotated[str, Field(max_length=2_000)]
Port = Annotated[int, Field(ge=1, le=65_535)]
RoutePort = Annotated[int, Field(ge=0, le=65_535)]
RouteMethod = Literal["any", "GET", "POST"]
Source = Annotated[str, Field(max_length=500)]
Requirements = Annotated[str, Field(max_length=MAX_REQUIREMENTS)]


class NewService(Body):
    """A service to make.

    Attributes:
        port: of its own, beside the platform's address.
        route: a further address of its prediction, such as `extract` or `faces/extract`.
        method: the only one that the route answers; `any`: GET and POST.
        route_port: where the route is; 0: at the platform's own port. Services may share one.
        source: what keeps it as it is, such as a conf.ini; empty: people.
    """

    name: str
    group: str
    description: Text = ""
    port: Port | None = None
    route: str | None = None
    method: RouteMethod = "any"
    route_port: RoutePort = 0
    source: Source = ""


class ServiceChanges(Body):
    """What to change; what is left out stays. `port` null: none of its own; `route` likewise."""

    description: Text = ""
    port: Port | None = None
    route: str | None = None
    method: RouteMethod = "any"
    route_port: RoutePort = 0
    source: Source = ""


class RegisterBody(Body):
    """A version to register, from an upload, a path on the server or a workspace: one of them.

    Attributes:
        group: of the service where that is new; the user's own when left out. It never moves a
            service that is there.
        upload: of an earlier `POST /uploads`.
        path: of an archive, a folder or a main file, also as `FILE.py:NAME`, below one of the
            server's roots.
        folder: path of a folder in the workspace folder of the service's group.
        main: `path/file.py` or `path/file.py:function`, below the root of the files; the one
            model.py or backend.py when left out.
        version: its number; the next one when left out.
        enabled: whether it may be deployed.
        options: values for `setup`, over the defaults that the code declares.
        options_text: further ones as text, to be read by the type of each option.
        metrics: numbers and texts by name; those of `metrics.json` when left out.
        curves: series by name; those of `metrics.json` and `history.csv` when left out.
        requirements: text of a requirements file, from which it gets an environment of its own;
            that of `requirements.txt` when left out, "" for none.
        python: interpreter on the server that it runs in, or that its environment is made with.
        model_path: handed to `InferenceService(model_path)` and the like: a path below the root of
            the files, or a folder and names in it, `folder,file,file…`.
        port: of its own for the service, where the service is new.
    """

    group: str | None = None
    upload: str | None = None
    path: str | None = None
    folder: Annotated[str, Field(max_length=1_000)] | None = None
    main: Annotated[str, Field(max_length=1_000)] = ""
    version: Annotated[int, Field(ge=1, le=MAX_VERSION)] | None = None
    enabled: bool = True
    options: Annotated[dict[str, Any], Field(default_factory=dict)]
    options_text: Annotated[dict[str, str], Field(default_factory=dict)]
    metrics: dict[str, Any] | None = None
    curves: dict[str, Any] | None = None
    description: Text = ""
    requirements: Requirements | None = None
    python: Annotated[str, Field(max_length=1_000)] = ""
    model_path: Annotated[str, Field(max_length=4_000)] = ""
    port: Port | None = None


class VersionChanges(Body):
    """What to change; what is left out stays. A disabled version cannot be deployed."""

    enabled: bool = True
    description: Text = ""
    metrics: Annotated[dict[str, Any], Field(default_factory=dict)]


def check_service_name(name: str) -> None:
    """Return if a service may have this name.

    Raises:
        InvalidInput: it is no name, or an address of the platform's own.
    """
    check_name(name)
    if name.lower() in RESERVED_SERVICES:
        raise InvalidInput(
            "name",
            f"{name!r}, an address of the platform's own",
            "any name but " + ", ".join(sorted(RESERVED_SERVICES)),
        )


def check_python(python: str) -> None:
    """Return if there is such an interpreter on this machine, or none is named.

    Raises:
        InvalidInput: there is not.
    """
    path = Path(python)
    if python and not (path.is_absolute() and path.is_file() and os.access(path, os.X_OK)):
        raise InvalidInput(
            "python", repr(python[:200]), "the absolute path of an interpreter on the server"
        )


def check_model_path(model_path: str) -> None:
    """Return if it names nothing but what is below the root of the files.

    Raises:
        InvalidInput: it leads out of it.
    """
    for name in model_path.split(","):
        path = PurePosixPath(name.strip())
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            raise InvalidInput(
                "model_path",
                repr(model_path[:200]),
                "a path below the root of the files, or a folder and names in it, with commas",
            )


def with_main_split_off(asked: RegisterBody) -> RegisterBody:
    """The same, where `path` is `FILE.py:NAME` with the function as its main.

    Raises:
        InvalidInput: there is a `main` beside it.
    """
    place, _, name = (asked.path or "").rpartition(":")
    if Path(place).suffix not in {".py", NOTEBOOK_SUFFIX}:
        return asked
    if asked.main:
        accepted = "a path without it, or FILE.py:NAME and no main"
        raise InvalidInput("path", f"a function, {name[:100]!r}, beside main", accepted)
    return asked.model_copy(update={"path": place, "main": f"{Path(place).name}:{name}"})


def source_below(path: str, roots: tuple[str, ...], data: str) -> tuple[Path, Path]:
    """A source on the server, and the root it lies below, both without links.

    Raises:
        InvalidInput: it lies below none of them; whether it is there is not told. Or it holds, or
            lies in, the platform's own folder `data`, which no model is to read.
    """
    if roots and Path(path).is_absolute() and "\0" not in path:
        real, own = Path(path).resolve(), Path(data).resolve()
        for root in (Path(root).resolve() for root in roots):
            if not real.is_relative_to(root):
                continue
            taken = real.parent if real.suffix in {".py", NOTEBOOK_SUFFIX} else real
            if own.is_relative_to(taken) or taken.is_relative_to(own):
                accepted = "a path outside of the platform's own data, in a folder without it"
                raise InvalidInput("path", repr(path[:200]), accepted)
            return real, root
    allowed = " or ".join(roots) or "none; the server was started without --root"
    raise InvalidInput("path", repr(path[:200]), f"an absolute path below {allowed}")
