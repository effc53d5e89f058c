"""Who is told when something has changed: once for many changes, and never of what they know.

Must never: look by itself; it is handed what there is now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from modelcloud.types import Observed

T = TypeVar("T")
C = TypeVar("C")


class _Callbacks(Generic[C]):
    def __init__(self) -> None:
        self._callbacks: list[C] = []

    def add(self, callback: C) -> Callable[[], None]:
        """Call `callback` from now on; the result ends that."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)


class Observers(_Callbacks[Callable[[str], None]]):
    """They are told the keys of deployments of which something new can be observed.

    Args:
        observe: what there is of a deployment now.
    """

    def __init__(self, observe: Callable[[str], Observed]) -> None:
        super().__init__()
        self._observe = observe
        self._told: dict[str, Observed] = {}

    def tell(self, keys: Iterable[str]) -> None:
        """Something of these deployments may have changed."""
        for key in sorted(keys):
            seen = self._observe(key)
            if seen == self._told.get(key, Observed()):
                continue
            self._told[key] = seen
            if seen == Observed():
                del self._told[key]
            for callback in [*self._callbacks]:
                callback(key)


class Listeners(_Callbacks[Callable[[], None]], Generic[T]):
    """They are told that a value is another one.

    Args:
        value: what they know.
    """

    def __init__(self, value: T) -> None:
        super().__init__()
        self._told = value

    def tell(self, value: T) -> None:
        """It is this now."""
        if value != self._told:
            self._told = value
            for callback in [*self._callbacks]:
                callback()
