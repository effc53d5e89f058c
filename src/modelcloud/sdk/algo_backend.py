"""A `backend.py` class: `_model_init` loads, `_model_inference(param_dict)` answers.

Must never: serve a model whose `_model_init` failed, though the class itself swallowed the error,
as its usual template does.
"""

from __future__ import annotations

import inspect
import secrets
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from modelcloud.errors import UsageError
from modelcloud.sdk.blame import place_of, refused, user_code
from modelcloud.sdk.contract import CallKind, Command, Signature
from modelcloud.sdk.data_types import any as any_
from modelcloud.sdk.declare import call_kind, summary, takes

COMMAND = "predict"
CONFIG = "config"


class AlgoBackend:
    """A class of `_model_init` and `_model_inference`, as a Backend.

    Its answers are `{"status": 1, "result": …, "info": …}`, and `{"status": 0, "info": …}` when
    the inference raised; a class with its own `async __call__(request)` writes the former itself.
    One with `reconfigure(config)` has the option `config`, a change of which it takes while it
    serves.

    Args:
        algo: the class, made as `algo(model_path)`.
        model_path: `folder,file,file…`, or empty.
        tracebacks: put the traceback of a failed inference into its answer (`runenv="dev"`).

    Raises:
        ModelLoadError: a method is missing or cannot be called like this.
    """

    def __init__(self, algo: type[Any], model_path: str, *, tracebacks: bool) -> None:
        if not takes(algo, 1) or not takes(algo._model_inference, 2):  # noqa: SLF001 — the contract's own name
            raise refused(
                f"{algo.__name__} does not fit; accepted: a class with __init__(self, model_path) "
                "and _model_inference(self, param_dict)",
                place_of(algo),
            )
        self._class, self._model_path, self._tracebacks = algo, model_path, tracebacks
        self._reconfigures = hasattr(algo, "reconfigure")
        if self._reconfigures and (
            not takes(algo.reconfigure, 2) or inspect.iscoroutinefunction(algo.reconfigure)
        ):
            raise refused(
                f"{algo.__name__}.reconfigure does not fit; accepted: reconfigure(self, config), "
                "not async: it is called between two requests",
                place_of(algo.reconfigure),
            )
        self._algo: Any = None
        self._info = f"Result from {socket.gethostname()}"
        self._own_call = "__call__" in dir(algo)
        self._command = Command(
            name=COMMAND,
            description=summary(algo._model_inference),  # noqa: SLF001 — as above
            kind=call_kind(algo.__call__ if self._own_call else algo._model_inference),  # noqa: SLF001 — as above
            whole_body=True,
            with_request=self._own_call,
        )

    @property
    def signature(self) -> Signature:
        """The command `predict`, and the option `config` where it can be reconfigured."""
        options = {}
        if self._reconfigures:
            options[CONFIG] = any_(description="Handed to reconfigure(config).", default=None)
        return Signature(
            runtime="algo_backend",
            options=options,
            commands=(self._command,),
            light=frozenset(options),
        )

    def load(self, options: dict[str, Any]) -> None:
        """Make the object, which loads the model, and configure it.

        Raises:
            ModelLoadError: `__init__`, `_model_init` or `reconfigure` raised, swallowed or not, or
                `__init__` never came to call `_model_init`.
        """
        with user_code(f"{self._class.__name__}.__init__"), _observed(self._class) as calls:
            self._algo = self._class(self._model_path)
        if calls is not None:
            self._judge(calls)
        if options.get(CONFIG) is not None:
            with user_code("reconfigure"):
                self._algo.reconfigure(options[CONFIG])

    def _judge(self, calls: list[BaseException | None]) -> None:
        """Raise what the last `_model_init` raised; an earlier one may have been tried again."""
        if not calls:
            raise refused(
                f"{self._class.__name__}.__init__ ended without calling _model_init: something "
                "before it failed, which the worker's log may tell; accepted: an __init__ that "
                "loads the model, and model files that are there",
                place_of(self._class.__init__),
            )
        if calls[-1] is not None:
            with user_code("_model_init"):
                raise calls[-1]

    def handler(self, command: str) -> Callable[[Any], Any]:
        """The object's own `__call__`, else its `_model_inference` with the answer around it."""
        if self._own_call:
            return self._guarded(self._algo.__call__)
        if self._command.kind is CallKind.COROUTINE:
            return self._answer_async
        return self._answer

    def _answer(self, param_dict: Any) -> dict[str, Any]:
        try:
            result = self._algo._model_inference(param_dict)  # noqa: SLF001 — the contract's own name
        except Exception:
            return self._failed()
        return {"status": 1, "result": result, "info": self._info}

    async def _answer_async(self, param_dict: Any) -> dict[str, Any]:
        try:
            result = await self._algo._model_inference(param_dict)  # noqa: SLF001 — as above
        except Exception:
            return self._failed()
        return {"status": 1, "result": result, "info": self._info}

    def _guarded(self, own: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A class's own call, with an answer for what it lets escape but for a request's fault."""

        def call(request: Any) -> Any:
            try:
                return own(request)
            except UsageError:
                raise
            except Exception:
                return self._failed()

        async def call_async(request: Any) -> Any:
            try:
                return await own(request)
            except UsageError:
                raise
            except Exception:
                return self._failed()

        guarded = {CallKind.VALUE: call, CallKind.COROUTINE: call_async}
        return guarded.get(self._command.kind, own)

    def _failed(self) -> dict[str, Any]:
        trace, error_id = traceback.format_exc(), secrets.token_hex(6)
        where = "__call__" if self._own_call else "_model_inference"
        print(f"error {error_id} in {where}:\n{trace}", file=sys.stderr, flush=True)  # noqa: T201 — the worker's log
        told = trace if self._tracebacks else f"the model failed; the log has it under {error_id}"
        return {"status": 0, "info": f"{self._info}: {told}"}

    def reconfigure(self, config: dict[str, Any]) -> None:
        """Hand the changed `config` to the object.

        Raises:
            NotImplementedError: the class has no `reconfigure`, another option changed, or there is
                to be no `config` any more: no call leads back to how the object was made.
        """
        if not self._reconfigures or set(config) != {CONFIG} or config[CONFIG] is None:
            raise NotImplementedError
        self._algo.reconfigure(config[CONFIG])

    def close(self) -> None:
        """Let go of the object."""
        self._algo = None


@contextmanager
def _observed(algo: type[Any]) -> Iterator[list[BaseException | None] | None]:
    """What each call of `algo._model_init` raised (None: nothing), in order.

    None in place of the list for a class that has no such method.
    """
    original = inspect.getattr_static(algo, "_model_init", None)
    if not inspect.isfunction(original):
        yield None
        return
    calls: list[BaseException | None] = []

    def observed(self: Any, *given: Any, **named: Any) -> Any:
        try:
            result = original(self, *given, **named)
        except BaseException as error:
            calls.append(error)
            raise
        calls.append(None)
        return result

    inherited = "_model_init" not in vars(algo)
    algo._model_init = observed  # noqa: SLF001 — put back below
    try:
        yield calls
    finally:
        if inherited:
            del algo._model_init  # noqa: SLF001 — as above
        else:
            algo._model_init = original  # noqa: SLF001 — as above
