"""The deployment log: every step of every rollout, in words, a line at a time.

Must never: hold more of a candidate's output than is shown when it fails.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from modelcloud.control.deployments.deploying import Accepted
from modelcloud.node.orders import WorkerLine
from modelcloud.rollout.records import Rollout, RolloutState

#: The last lines of a candidate's own output that are shown when it fails.
OUTPUT_LINES = 50


class RolloutLog:
    """Words the lines and hands them on.

    Args:
        write: appends a line to the deployment log of a service.
    """

    def __init__(self, write: Callable[[str, str], None]) -> None:
        self._write = write
        self._output: dict[str, deque[str]] = {}  # by rollout

    def say(self, service: str, deployment_id: int, rollout: Rollout | None, line: str) -> None:
        """A line of a rollout, or of the deployment itself; why one failed stands last."""
        if rollout is not None and rollout.state is RolloutState.FAILED:
            self.finished(service, rollout)
        whose = f"deployment {deployment_id}" if rollout is None else f"rollout {rollout.id}"
        self._write(service, f"{whose}: {line}")

    def accepted(self, accepted: Accepted) -> None:
        """Who asked for a rollout; and the sums of one that exceeds a quota."""
        rollout = accepted.rollout
        if rollout is None:
            return
        self._write(rollout.service, f"rollout {rollout.id}: asked for by {rollout.actor}")
        if rollout.state is RolloutState.FAILED:
            what = f"{rollout.kind.value} to version {rollout.target.version}"
            self._write(rollout.service, f"rollout {rollout.id}: {what} failed: {rollout.reason}")

    def take(self, service: str, running: Rollout | None, line: WorkerLine) -> None:
        """A worker's output is kept in case the rollout on its way fails; a preparation's is shown.

        `running` is that rollout, if there is one.
        """
        mine = running is not None and running.target.generation == line.generation
        whose = f"rollout {running.id}" if mine and running else f"generation {line.generation}"
        if line.worker == 0:
            self._write(service, f"{whose}: {line.text}")
        elif mine and running:
            output = self._output.setdefault(running.id, deque(maxlen=OUTPUT_LINES))
            output.append(f"w{line.worker} | {line.text}")

    def finished(self, service: str, rollout: Rollout) -> None:
        """Show what a candidate that failed wrote itself; harmless the second time."""
        output = self._output.pop(rollout.id, ())
        if rollout.state is RolloutState.FAILED:
            for line in output:
                self._write(service, f"rollout {rollout.id}: {line}")
