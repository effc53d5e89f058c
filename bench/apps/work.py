"""The three pieces of work that every server in the bench does, with nothing of a server in it.

Must never: depend on any of the servers; each imports this file into its own environment.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

FEATURES = 13

#: A request body for each piece of work, and what must come back under which key.
BODIES: dict[str, dict[str, Any]] = {
    "pisqrt": {"a": 25.0},
    "linear": {"x": [0.5] * FEATURES},
    "batch": {"a": 3.0},
}


def pisqrt(a: float) -> float:
    """Next to nothing: what remains is the server."""
    return math.sqrt(a * math.pi)


class Linear:
    """A linear model of 13 features, in numpy."""

    def __init__(self) -> None:
        import numpy as np

        self._np = np
        self._weights = np.linspace(-1.0, 1.0, FEATURES)

    def __call__(self, x: Any) -> float:
        return float(self._np.asarray(x, dtype=self._np.float64) @ self._weights + 22.5)


def batch(rows: Sequence[float]) -> list[float]:
    """Stands for a network on an accelerator: 5 ms a call and 0.1 ms a row."""
    time.sleep(0.005 + 0.0001 * len(rows))
    return [2.0 * row for row in rows]
