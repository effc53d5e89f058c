"""Turns what a user's code raised while it was loaded into an error that names their file and line.

Must never: swallow anything but what the user's code raised, or let its text stand without a place.
"""

from __future__ import annotations

import importlib
import inspect
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from modelcloud.errors import ModelcloudError, ModelLoadError
from modelcloud.sdk.data_types.base import TYPES

_PACKAGE = f"{Path(__file__).parent.parent}/"
#: What stands between this package and the first line of a user's code.
_MACHINERY = (_PACKAGE, "<frozen", f"{Path(importlib.__file__).parent}/")


class Place(NamedTuple):
    """Where something stands in a user's code."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"


def place_of(function: Any) -> Place | None:
    """Where a function or class is defined, if it is written in Python."""
    if isinstance(function, type):
        function = next((own for own in vars(function).values() if inspect.isfunction(own)), None)
    while isinstance(function, partial):
        function = function.func
    function = inspect.unwrap(function) if callable(function) else function
    code = getattr(function, "__code__", None)
    return Place(code.co_filename, code.co_firstlineno) if code is not None else None


def refused(message: str, place: Place | None) -> ModelLoadError:
    """The error of something that cannot be served, at its place."""
    if place is None:
        return ModelLoadError(message)
    return ModelLoadError(message, file=place.file, line=place.line)


@contextmanager
def user_code(doing: str) -> Iterator[None]:
    """Run user code; whatever it raises becomes a ModelLoadError that points into it.

    Args:
        doing: what is running, as the subject of a sentence: `setup`, `the model file`.

    Raises:
        ModelLoadError: with `file` and `line` of the innermost frame that is the user's own, and
            the traceback, from the user's first frame on, in `detail`.
    """
    try:
        yield
    except ModelLoadError as error:
        if "file" not in error.fields and (place := _innermost(error.__traceback__)):
            error.fields.update(file=place.file, line=place.line)
        raise
    except (Exception, SystemExit) as error:
        place = _innermost(error.__traceback__)
        if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_absolute():
            place = Place(error.filename, error.lineno or 0)
        raised = refused(_message(doing, error), place)
        raised.detail = _shown(error)
        raise raised from error


def _message(doing: str, error: BaseException) -> str:
    if isinstance(error, ModelcloudError):
        return f"{doing}: {error.message}"
    if isinstance(error, SyntaxError):
        line = (error.text or "").strip()
        where = f": {line}" if line else ""
        return f"syntax error: {error.msg}{where}; accepted: valid Python, in UTF-8"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"{doing} imports {error.name!r}, which is not there; accepted: modules beside the "
            "model and those installed in the environment that serves it"
        )
    if isinstance(error, (ImportError, AttributeError)) and (name := _unknown_type(error)):
        return f"there is no data type {name!r}; accepted: {', '.join(sorted(TYPES))}"
    if isinstance(error, SystemExit):
        return f"{doing} called sys.exit({error.code!r}); accepted: code that returns"
    text = str(error)
    return f"{doing} raised {type(error).__name__}{f': {text}' if text else ''}"


def _unknown_type(error: ImportError | AttributeError) -> str:
    """The name that was looked for in `modelcloud.data_types` in vain; "" for any other error."""
    module = getattr(error.obj, "__name__", "") if isinstance(error, AttributeError) else error.name
    if module != "modelcloud.data_types":
        return ""
    if isinstance(error, AttributeError):
        return str(error.name)
    found = re.search("'(.+?)'", str(error))  # Python 3.12 has it as `name_from`
    return found[1] if found else ""


def _innermost(trace: TracebackType | None) -> Place | None:
    """The last frame that is neither ours nor a library's; failing that, the last not ours."""
    places = [
        Place(frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(trace)
        if not _is_below(frame.f_code.co_filename, _MACHINERY)
    ]
    libraries = _libraries()
    own = [place for place in places if not _is_below(place.file, libraries)]
    return own[-1] if own else places[-1] if places else None


def _shown(error: BaseException) -> str:
    """Its traceback without the frames that only led to the user's code."""
    trace = error.__traceback__
    while trace is not None and _is_below(trace.tb_frame.f_code.co_filename, _MACHINERY):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


def _is_below(file: str, folders: tuple[str, ...]) -> bool:
    return file.startswith(folders)


def _libraries() -> tuple[str, ...]:
    import sysconfig  # only a failing load pays for it

    paths = sysconfig.get_paths()
    return tuple({f"{paths[key]}/" for key in ("stdlib", "platstdlib", "purelib", "platlib")})
