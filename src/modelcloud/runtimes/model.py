"""What every runtime gives: a loaded model that turns named arrays into named arrays.

Must never: know of commands, requests or JSON; `sdk.model_file` makes a Backend of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from modelcloud.errors import ModelLoadError
from modelcloud.runtimes.detect import RUNTIMES
from modelcloud.runtimes.tensors import Tensors, Values


class Model(Protocol):
    """A loaded model. `inputs` and `outputs` are None where the model does not tell them.

    Attributes:
        library: name and version of what runs it.
    """

    inputs: Tensors
    outputs: Tensors
    library: str

    def run(self, values: Values) -> Values:
        """The outputs for these inputs. May be called by several threads at a time."""


@dataclass(frozen=True)
class Told:
    """What a file says of its tensors; None for what it does not say."""

    inputs: Tensors = None
    outputs: Tensors = None


class Runtime(Protocol):
    """A module of this package that loads one kind of files."""

    def peek(self, main: Path, options: Mapping[str, Any]) -> Told:
        """What the file says of its tensors without being loaded; cheap."""

    def load(self, main: Path, options: Mapping[str, Any]) -> Model:
        """Load it. May take minutes; may raise whatever the library does."""


def runtime(name: str) -> Runtime:
    """The runtime of a name of `detect.RUNTIMES`.

    Raises:
        ModelLoadError: it is none of them.
    """
    if name not in RUNTIMES:
        raise ModelLoadError(f"there is no runtime {name!r}; accepted: {', '.join(RUNTIMES)}")
    return cast("Runtime", import_module(f"modelcloud.runtimes.{name}"))


@contextmanager
def needed(extra: str) -> Iterator[None]:
    """Around the imports of a model's library.

    Raises:
        ModelLoadError: it is not there; the message says how to get it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModelLoadError(
            f"this model needs {error.name}, which is not in the environment that serves it; "
            f"pip install 'modelcloud[{extra}]' there, or name an interpreter that has it with "
            "--python"
        ) from None


def threads() -> int:
    """Threads that one call may use by the replica's instance type; 0 leaves it to the library."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() else 0
