"""From the spec of a generation to the Backend its workers run.

Must never: run in the node, a gateway or the command line; it executes the user's code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from modelcloud.errors import ModelLoadError
from modelcloud.sdk import notebook
from modelcloud.sdk.algo_backend import AlgoBackend
from modelcloud.sdk.blame import place_of, refused, user_code
from modelcloud.sdk.contract import Backend
from modelcloud.sdk.decorators import DecoratedBackend, Registry, collecting
from modelcloud.sdk.function import FunctionBackend
from modelcloud.sdk.inference_service import CLASS_NAME, InferenceServiceBackend
from modelcloud.sdk.model_file import ModelFileBackend
from modelcloud.sdk.snapshot_import import StagedCode
from modelcloud.sdk.wsgi import WsgiBackend
from modelcloud.types import GenerationSpec

ACCEPTED = (
    "accepted: a function under @modelcloud.command, a class InferenceService, a class with "
    "_model_inference, a function named as file.py:function, or a WSGI application"
)

#: Parameters by which a web application is told from a function that answers with its inputs.
_WEB_INTERFACES = {("environ", "start_response"): "WSGI", ("scope", "receive", "send"): "ASGI"}


def load_backend(spec: GenerationSpec) -> Backend:
    """Execute a generation's staged code and wrap what it holds; the model is not loaded yet.

    Raises:
        ModelLoadError: the code does not run or holds nothing that can be served. `file` and
            `line` point into the user's own file, at its original place.
    """
    code = StagedCode(Path(spec.snapshot), spec.digest, spec.port)
    if code.manifest.runtime:
        return ModelFileBackend(code.manifest.runtime, code.root / code.manifest.main)
    if not code.manifest.module:
        return DecoratedBackend(notebook.unpack(code.read(code.manifest.main)))
    code.install()
    main = code.root / code.manifest.main if code.manifest.main else None
    try:
        with collecting() as registry, user_code("the model file"):
            module = code.import_main()
        return _backend_of(module, registry, code.manifest.name, _placed(spec, code), main)
    except ModelLoadError as error:
        if main is not None:
            error.fields = {"file": str(main), "line": 1, **error.fields}
        raise


def _placed(spec: GenerationSpec, code: StagedCode) -> GenerationSpec:
    """The spec with a model path inside an artifact of the store as an absolute one.

    Raises:
        ModelLoadError: it leads out of the artifact.
    """
    if not (code.kept and spec.model_path) or Path(spec.model_path).is_absolute():
        return spec
    path = code.root / spec.model_path
    if not path.resolve().is_relative_to(code.root):
        raise ModelLoadError(
            f"the model path {spec.model_path!r} leads out of the version's files; accepted: "
            "a path inside them"
        )
    return msgspec.structs.replace(spec, model_path=str(path))


def _backend_of(
    module: ModuleType, registry: Registry, name: str, spec: GenerationSpec, main: Path | None
) -> Backend:
    if name:
        found = getattr(module, name, None)
        if found is None:
            raise ModelLoadError(f"there is no {name!r}; accepted: one of {_listed(module)}")
    elif not registry.empty:
        return DecoratedBackend(registry)
    else:
        found = _obvious(module)
    if any(found is own.function for _, own in registry.commands.values()):
        return DecoratedBackend(registry)
    if isinstance(found, type):
        return _of_class(found, spec, main)
    if not callable(found):
        raise ModelLoadError(f"{name!r} is a {type(found).__name__}; {ACCEPTED}")
    interface = _web_interface(found)
    if interface == "WSGI":
        return WsgiBackend(found, spec.threads)
    if interface:
        raise refused(
            f"{name!r} is a web application of the {interface} kind; {ACCEPTED}",
            place_of(found),
        )
    return FunctionBackend(found, name or found.__name__)


def _of_class(found: type[Any], spec: GenerationSpec, main: Path | None) -> Backend:
    if hasattr(found, "_model_inference"):
        return AlgoBackend(found, spec.model_path, tracebacks=spec.runenv == "dev")
    if hasattr(found, "process_request") or found.__name__ == CLASS_NAME:
        # Without a path of its own, the model lies beside the class.
        beside = str(main.parent) if main is not None else ""
        return InferenceServiceBackend(found, spec.model_path or beside)
    raise refused(f"the class {found.__name__} is none of these; {ACCEPTED}", place_of(found))


def _obvious(module: ModuleType) -> Any:
    """The one thing of an undecorated file that can be served.

    Raises:
        ModelLoadError: there is none, or several that only the user can choose from.
    """
    service = getattr(module, CLASS_NAME, None)
    if isinstance(service, type):
        return service
    classes = [own for own in _own(module, inspect.isclass) if hasattr(own, "_model_inference")]
    # A template and the class that fills it in may stand in one file.
    classes = [own for own in classes if not any(own in other.__bases__ for other in classes)]
    candidates = classes or _own(module, inspect.isfunction)
    if len(candidates) == 1:
        return candidates[0]
    several = f" (it holds {_listed(module)})" if candidates else ""
    raise ModelLoadError(f"no command{several}; {ACCEPTED}")


def _own(module: ModuleType, kind: Callable[[Any], bool]) -> list[Any]:
    """The public functions or classes that a module defines itself."""
    return [
        value
        for name, value in vars(module).items()
        if kind(value)
        and getattr(value, "__module__", None) == module.__name__
        and not name.startswith("_")
    ]


def _listed(module: ModuleType) -> str:
    names = sorted(own.__name__ for own in _own(module, callable) if hasattr(own, "__name__"))
    return ", ".join(names[:20]) or "nothing that can be called"


def _web_interface(found: Callable[..., Any]) -> str | None:
    try:
        parameters = tuple(inspect.signature(found).parameters)
    except (TypeError, ValueError):
        return None
    return _WEB_INTERFACES.get(parameters)
