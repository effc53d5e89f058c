"""A plain function as a model: its parameters are the inputs, what it returns is `result`.

Must never: change what the function gets or returns; the annotations say it all.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from modelcloud.sdk.annotations import inputs_of, output_of
from modelcloud.sdk.blame import place_of
from modelcloud.sdk.contract import CallKind, Command, Signature
from modelcloud.sdk.declare import call_kind, command_name, summary

OUTPUT = "result"


class FunctionBackend:
    """One function, which is all of the model, as a Backend.

    Args:
        function: anything callable that tells its parameters.
        name: the command's name.

    Raises:
        ModelLoadError: the name or an annotation does not fit.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function = function
        self._command = Command(
            name=command_name(name, place_of(function)),
            inputs=inputs_of(function),
            outputs={OUTPUT: output_of(function)},
            description=summary(function) if inspect.isroutine(function) else "",
            kind=call_kind(function),
        )

    @property
    def signature(self) -> Signature:
        """The one command; no options."""
        return Signature(runtime="function", commands=(self._command,))

    def load(self, options: dict[str, Any]) -> None:
        """Nothing to do: the function's module is loaded."""

    def handler(self, command: str) -> Callable[[Any], Any]:
        """Call the function with the inputs as its arguments; answer `{"result": …}`."""
        return _HANDLERS[self._command.kind](_spread(self._function))

    def reconfigure(self, config: dict[str, Any]) -> None:
        """Not possible: a function has no options.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is held."""


def _spread(function: Callable[..., Any]) -> Callable[[dict[str, Any]], Any]:
    """Take a dict of arguments; those that have no name to the outside go by position."""
    parameters = inspect.signature(function).parameters.values()
    by_position = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
    if not by_position:
        return lambda inputs: function(**inputs)

    def call(inputs: dict[str, Any]) -> Any:
        rest = {name: value for name, value in inputs.items() if name not in by_position}
        return function(*(inputs[name] for name in by_position), **rest)

    return call


# The answer is always wrapped: a bare dict could be taken for one that names its outputs.


def _value(call: Callable[[dict[str, Any]], Any]) -> Callable[[Any], Any]:
    return lambda inputs: {OUTPUT: call(inputs)}


def _coroutine(call: Callable[[dict[str, Any]], Any]) -> Callable[[Any], Any]:
    async def handle(inputs: dict[str, Any]) -> dict[str, Any]:
        return {OUTPUT: await call(inputs)}

    return handle


def _generator(call: Callable[[dict[str, Any]], Any]) -> Callable[[Any], Any]:
    def handle(inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for item in call(inputs):
            yield {OUTPUT: item}

    return handle


def _async_generator(call: Callable[[dict[str, Any]], Any]) -> Callable[[Any], Any]:
    async def handle(inputs: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        async for item in call(inputs):
            yield {OUTPUT: item}

    return handle


_HANDLERS = {
    CallKind.VALUE: _value,
    CallKind.COROUTINE: _coroutine,
    CallKind.GENERATOR: _generator,
    CallKind.ASYNC_GENERATOR: _async_generator,
}
