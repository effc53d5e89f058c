"""What the policy decides, and the guards that all its phases share.

Must never: hold a rule of its own.
"""

from __future__ import annotations

import msgspec

from modelcloud.rollout.snapshot import Flight, Outcome
from modelcloud.types import Desired, State

#: Granted beyond what the engine itself allows a load or a drain, so that its reason comes first.
MARGIN_S = 30.0
#: Longest preparation of a generation. A guard: engines have shorter limits of their own.
PREPARE_S = 6 * 3600.0


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to want now.

    Attributes:
        flight: the rollout's facts to keep before `desired` is handed to the engine.
        step: where the target generation stands; None leaves it as it was.
        percent: how far the rollout came; a lower number than before is no news.
        outcome: set when the rollout is over; `snapshot.finish` then gives the next snapshot.
        note: one line for people.
        wake_at: monotonic time at which time alone may change the decision.
    """

    desired: Desired
    flight: Flight | None = None
    step: State | None = None
    percent: int = 0
    outcome: Outcome | None = None
    note: str = ""
    wake_at: float | None = None
