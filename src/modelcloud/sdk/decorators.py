"""`@modelcloud.setup` and `@modelcloud.command`: a model written as two decorated functions.

Must never: keep what one load declared where another finds it; a registry belongs to one load, or
to the namespace (notebook, prompt) in which the decorators ran.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, overload

from modelcloud.sdk.blame import Place, place_of, refused, user_code
from modelcloud.sdk.contract import Batch, CallKind, Command, Signature
from modelcloud.sdk.data_types import DataType
from modelcloud.sdk.declare import call_kind, command_name, summary, takes, types_of

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "__modelcloud_registry__"

ACCEPTED = (
    "accepted: @modelcloud.command('name', inputs={'x': number}, outputs={'result': number}) "
    "before a function of (model, inputs)"
)


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A function and where its decorator stands."""

    function: Callable[..., Any]
    place: Place


@dataclass(kw_only=True)
class Registry:
    """What the decorators of one load, or of one notebook, declared.

    Attributes:
        replace: a second declaration takes the first one's place, as when a cell is run again;
            in a file it is an error.
    """

    replace: bool
    setup: Declared | None = None
    options: dict[str, DataType] = field(default_factory=dict)
    commands: dict[str, tuple[Command, Declared]] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether no decorator has run."""
        return self.setup is None and not self.commands

    def add_setup(self, declared: Declared, options: dict[str, DataType]) -> None:
        """Take the setup function.

        Raises:
            ModelLoadError: there is one already.
        """
        if self.setup is not None and not self.replace:
            raise refused(
                f"a second setup; the first is at {self.setup.place}; accepted: one", declared.place
            )
        self.setup, self.options = declared, options

    def add_command(self, command: Command, declared: Declared) -> None:
        """Take a command.

        Raises:
            ModelLoadError: there is one of its name already.
        """
        if command.name in self.commands and not self.replace:
            first = self.commands[command.name][1].place
            raise refused(
                f"two commands of the name {command.name!r}; the first is at {first}; "
                "accepted: a name of its own for each",
                declared.place,
            )
        self.commands[command.name] = command, declared


_collecting: Registry | None = None


@contextmanager
def collecting() -> Iterator[Registry]:
    """Gather what the decorators declare while a model file and the modules beside it load."""
    global _collecting  # noqa: PLW0603 — decorators reach the load under way by no other road
    outer, _collecting = _collecting, Registry(replace=False)
    try:
        yield _collecting
    finally:
        _collecting = outer


def is_collecting() -> bool:
    """Whether a model file is being loaded now."""
    return _collecting is not None


def registry_in(namespace: Mapping[str, Any]) -> Registry | None:
    """What was declared in a namespace outside of any load, such as a notebook's."""
    return namespace.get(_ATTRIBUTE)


def _registry_for(namespace: dict[str, Any]) -> Registry:
    if _collecting is not None:
        return _collecting
    registry: Registry = namespace.setdefault(_ATTRIBUTE, Registry(replace=True))
    return registry


@overload
def setup(function: F, /) -> F: ...


@overload
def setup(*, options: Mapping[str, Any] | None = None) -> Callable[[F], F]: ...


def setup(function: F | None = None, /, *, options: Mapping[str, Any] | None = None) -> Any:
    """Declare the function that loads the model: it gets the options and returns the model.

    Used bare or with the options it takes, each a data type or an instance of one:
    `@modelcloud.setup(options={"size": category(choices=["small", "big"])})`. Without options the
    function may take no argument. It runs once in each worker, before the first request.

    Raises:
        ModelLoadError: an option has no data type, or the function cannot be called like this.
    """
    caller = sys._getframe(1)  # noqa: SLF001 — the user's line and namespace
    place, namespace = Place(caller.f_code.co_filename, caller.f_lineno), caller.f_globals
    if function is not None:
        place = place_of(function) or place  # Python 3.10 has no line of its own for the decorator
    types = types_of(options, "options of setup", place) if options is not None else {}

    def declare(function: F) -> F:
        if not callable(function):
            raise refused("setup was called; accepted: @modelcloud.setup before a function", place)
        if call_kind(function) is not CallKind.VALUE:
            raise refused(
                "setup returns no model; accepted: a plain function, no async, no yield", place
            )
        if not takes(function, 1) and (types or not takes(function, 0)):
            raise refused(
                "setup cannot be called with the options; accepted: a function of (options)", place
            )
        declared = Declared(function=function, place=place)
        _registry_for(namespace).add_setup(declared, types)
        return function

    return declare if function is None else declare(function)


def command(
    name: str,
    *,
    inputs: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
    description: str = "",
    idempotent: bool = True,
    batch: Batch | None = None,
) -> Callable[[F], F]:
    """Declare a function that answers requests: it gets `(model, inputs)` and returns the outputs.

    The function may be `async def`; it may be a generator, sync or async, whose values are
    streamed to a client that accepts `text/event-stream`, and of which others get the last.

    With `batch` it gets `(model, items)`, the inputs of many requests, and returns as many
    results in the same order; one that is an exception fails that request alone.

    Args:
        name: as it stands in the address: `POST /<name>`.
        inputs: name → data type, as class or instance; at least one.
        outputs: likewise. With a single one the function may return the bare value.
        description: for `/meta` and the docs page; else the docstring's first paragraph.
        idempotent: whether a request may be tried again when its worker died.
        batch: how many requests one call takes; for plain functions only.

    Raises:
        ModelLoadError: the name, a type or the function does not fit.
    """
    caller = sys._getframe(1)  # noqa: SLF001 — the user's line and namespace
    place, namespace = Place(caller.f_code.co_filename, caller.f_lineno), caller.f_globals
    if callable(name):
        raise refused(f"a command without a name; {ACCEPTED}", place_of(name) or place)
    name = command_name(name, place)
    for what, given in (("inputs", inputs), ("outputs", outputs)):
        if not given:
            raise refused(f"the command {name!r} has no {what}; {ACCEPTED}", place)
    input_types = types_of(inputs, f"inputs of {name!r}", place)
    output_types = types_of(outputs, f"outputs of {name!r}", place)

    def declare(function: F) -> F:
        if not callable(function) or not takes(function, 2):
            raise refused(f"the command {name!r} cannot be called like this; {ACCEPTED}", place)
        kind = call_kind(function)
        if batch is not None and (not isinstance(batch, Batch) or kind is not CallKind.VALUE):
            raise refused(
                f"the command {name!r} cannot batch; accepted: batch=modelcloud.Batch(max_size=32) "
                "before a plain function, no async, no yield",
                place,
            )
        declared = Command(
            name=name,
            inputs=input_types,
            outputs=output_types,
            description=description or summary(function),
            kind=kind,
            idempotent=idempotent,
            batch=batch,
        )
        registry = _registry_for(namespace)
        registry.add_command(declared, Declared(function=function, place=place))
        return function

    return declare


class DecoratedBackend:
    """A model of decorated functions, as a Backend.

    Raises:
        ModelLoadError: no command was declared.
    """

    def __init__(self, registry: Registry) -> None:
        if not registry.commands:
            place = registry.setup.place if registry.setup else None
            raise refused(f"no command; {ACCEPTED}", place)
        self._setup = registry.setup
        self._functions = {name: own.function for name, (_, own) in registry.commands.items()}
        self._model: Any = None
        self._signature = Signature(
            runtime="decorated",
            options=registry.options,
            commands=tuple(declared for declared, _ in registry.commands.values()),
        )

    @property
    def signature(self) -> Signature:
        """The declared options and commands."""
        return self._signature

    def load(self, options: dict[str, Any]) -> None:
        """Call setup, where there is one.

        Raises:
            ModelLoadError: it raised; `file` and `line` point into the user's code.
        """
        if self._setup is None:
            return
        function = self._setup.function
        with user_code("setup"):
            self._model = function(options) if takes(function, 1) else function()

    def handler(self, command: str) -> Callable[[Any], Any]:
        """The command's function, given the model."""
        return partial(self._functions[command], self._model)

    def reconfigure(self, config: dict[str, Any]) -> None:
        """Not possible: options go through setup.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the model."""
        self._model = None
