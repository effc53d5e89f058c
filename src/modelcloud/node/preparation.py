"""One generation made ready for its workers, by a process of its own.

Must never: hash or install anything here in the node; decide what a failure means.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from modelcloud.node import run_dir
from modelcloud.node.isolation import Isolation
from modelcloud.node.logs import LineCutter
from modelcloud.node.prepare import FromPreparer, Prepare, Prepared, PrepareFailed, Preparing
from modelcloud.node.processes import Child, command
from modelcloud.node.reaper import Reaper
from modelcloud.types import GenerationSpec, State

#: The check of an artifact alone; building has the time that the settings give it.
VERIFY_S = 600.0
#: For the process to end once it has told how it went.
GRACE_S = 5.0


class Workshop(NamedTuple):
    """What all preparations of a node share.

    Attributes:
        envs: folder of environments.
        timeout_s: for building one.
        run_dir: folder for what preparations leave lying about until they end.
        isolation: what they may reach; None: what their user may.
    """

    reaper: Reaper
    envs: str
    timeout_s: float
    run_dir: Path
    isolation: Isolation | None = None


def needed(spec: GenerationSpec) -> bool:
    """Whether anything is to be done before a worker of this generation can be started."""
    if spec.engine:
        return False  # it is done where they run
    return spec.verify or bool(spec.requirements) or (spec.probe and bool(spec.python))


class Preparation:
    """A preparation under way, or how it ended.

    Args:
        say: takes a line about what is done, and of what the process printed.
        on_change: called after `state`, `python` or `failure` changed.

    Attributes:
        state: `fetching` or `building_env`; None once its process is gone.
        python: the interpreter for the workers; "" means the node's own.
        failure: why it cannot be had; "" unless it failed.
    """

    def __init__(
        self,
        name: str,
        spec: GenerationSpec,
        workshop: Workshop,
        *,
        say: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        self.state: State | None = State.FETCHING if spec.verify else State.BUILDING_ENV
        self.python = spec.python
        self.failure = ""
        self._say = say
        self._on_change = on_change
        self._told: str | None = None  # the process's own word on how it ended
        self._child: Child | None = None
        self._folder: Path | None = None
        limit_s = VERIFY_S + (workshop.timeout_s if spec.requirements else 0)
        self._limit_s = limit_s
        try:
            folder = self._folder = Path(tempfile.mkdtemp(prefix="p", dir=workshop.run_dir))
            self._child = Child(
                name,
                command(sys.executable, "modelcloud.node.prepare"),
                reaper=workshop.reaper,
                union=FromPreparer,
                output=LineCutter(say),
                on_message=self._message,
                on_exit=self._ended,
                variables={"TMPDIR": str(folder)},
            )
        except OSError as error:
            self._clean()
            self._over(f"the preparation could not be started: {error}")
            return
        isolation = workshop.isolation
        self._child.send(
            Prepare(
                snapshot=spec.snapshot,
                verify=spec.verify,
                requirements=spec.requirements,
                python=spec.python,
                envs=workshop.envs,
                confinement=isolation.of_preparation(spec, folder) if isolation else None,
            )
        )
        self._child.end((limit_s, signal.SIGKILL))

    def _clean(self) -> None:
        if self._folder is not None:
            run_dir.clear(self._folder)

    def cancel(self) -> None:
        """Nobody wants it any more."""
        if self._child is not None:
            self._child.kill()

    def _message(self, message: FromPreparer) -> None:
        match message:
            case Preparing(state=state, line=line):
                if line:
                    self._say(line)
                elif state is not self.state:
                    self.state = state
                    self._on_change()
            case Prepared(python=python):
                self.python = python
                self._end("")
            case PrepareFailed(message=text):
                self._end(text)

    def _end(self, failure: str) -> None:
        self._told = failure
        if self._child is not None:
            self._child.end((GRACE_S, signal.SIGKILL))

    def _ended(self, how: str) -> None:
        self._child = None
        self._clean()
        if self._told is not None:
            self._over(self._told)
            return
        building = self.state is State.BUILDING_ENV
        doing = "building the environment" if building else "checking the artifact"
        self._over(f"{doing} {how} (it has {self._limit_s:g} s)")

    def _over(self, failure: str) -> None:
        self.state = None
        self.failure = failure
        self._on_change()
