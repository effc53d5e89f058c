"""Gives a loaded model other options between two of its requests, or leaves it as it was.

Must never: have a request answered by a model that is half changed.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from typing import TYPE_CHECKING, Any

from modelcloud.dataplane.messages import Reconfigured
from modelcloud.errors import InvalidInput, ModelcloudError
from modelcloud.sdk.options import complete_options, given_options

if TYPE_CHECKING:
    from modelcloud.dataplane.executor import Executor
    from modelcloud.sdk.contract import Backend, Signature
    from modelcloud.types import GenerationSpec

#: For the calls that run to end; those that come meanwhile wait.
HOLD_S = 10.0


class Reconfiguring:
    """The options that a loaded model has.

    Args:
        spec: what it was loaded with.
    """

    def __init__(self, backend: Backend, executor: Executor, spec: GenerationSpec) -> None:
        self._backend = backend
        self._executor = executor
        self._given = given_options(backend.signature, spec)
        self._turn = asyncio.Lock()

    async def take(self, spec: GenerationSpec) -> Reconfigured:
        """Take the options of this spec; what came of it."""
        signature = self._backend.signature
        async with self._turn:
            try:
                given = given_options(signature, spec)
                new = complete_options(signature, given)
            except InvalidInput as error:
                return self._answer(spec, f"option {error.message}")
            before = self._given
            changed = [name for name in new if before.get(name, ...) != given.get(name, ...)]
            if changed:
                if not await self._executor.hold(HOLD_S):
                    return self._answer(spec, f"requests were still running after {HOLD_S:g} s")
                wrong = self._call({name: new[name] for name in changed})
                if wrong:
                    old = complete_options(signature, before)
                    worse = self._call({name: old[name] for name in changed})
                    if worse:
                        wrong += f"; and as its options were to be put back, {worse}"
                        return self._answer(spec, wrong, restored=False)
                self._executor.release()
                if wrong:
                    return self._answer(spec, wrong)
            self._given = given
            return self._answer(spec)

    def _call(self, config: dict[str, Any]) -> str:
        """What the model has against it, in words."""
        try:
            self._backend.reconfigure(config)
        except NotImplementedError:
            return f"the model cannot take {', '.join(config)} like this while it serves"
        except ModelcloudError as error:
            return error.message
        except BaseException as error:  # SystemExit too: the model it leaves is as unsure
            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            print(f"in reconfigure:\n{text}", file=sys.stderr, end="", flush=True)  # noqa: T201 — the worker's log
            return f"reconfigure raised {type(error).__name__}: {error}"
        return ""

    def _answer(
        self, spec: GenerationSpec, error: str = "", *, restored: bool = True
    ) -> Reconfigured:
        options = option_values(self._backend.signature, self._given)
        return Reconfigured(revision=spec.revision, options=options, error=error, restored=restored)


def option_values(signature: Signature, given: dict[str, Any]) -> dict[str, Any]:
    """All options in JSON form: those given, and the defaults of the others."""
    defaults = {n: kind.default for n, kind in signature.options.items() if not kind.required}
    return {**defaults, **given}
