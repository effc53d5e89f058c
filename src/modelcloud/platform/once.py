"""Begins something exactly once, though its answer may not come.

Must never: send again what was answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar
from uuid import uuid4

from modelcloud.client import Unreachable

T = TypeVar("T")

#: What begins something is sent so often until an answer comes, with so many seconds between.
TRIES, RETRY_S = 3, 1.0


def once(call: Callable[[str], T]) -> T:
    """The answer of `call`, which is made again with the same idempotency key while none comes.

    Raises:
        Unreachable: none came.
    """
    key = uuid4().hex
    for left in reversed(range(TRIES)):
        try:
            return call(key)
        except Unreachable:  # noqa: PERF203 — each try is a request of its own
            if not left:
                raise
            time.sleep(RETRY_S)
    raise AssertionError  # the last try returned or raised
