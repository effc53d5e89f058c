"""The process that makes a generation's files ready: checks the artifact, builds the environment.

Must never: load the model. It is a process of its own, because building an environment may run
the code of the packages in it.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import TypeAlias

from modelcloud.artifacts import environment
from modelcloud.artifacts.snapshot import verify
from modelcloud.dataplane.confinement import Confinement, confine
from modelcloud.dataplane.lifeline import tie_to_parent
from modelcloud.dataplane.messages import Message, MessageReader, encode
from modelcloud.errors import ModelcloudError
from modelcloud.types import State


class Prepare(Message):
    """First message: check `snapshot` if `verify`, build what `requirements` ask for in `envs`.

    `python`, where one is named, is checked to be one before that.

    With a confinement, reach no more than that.
    """

    snapshot: str
    verify: bool
    requirements: str
    python: str
    envs: str
    confinement: Confinement | None = None


class Preparing(Message):
    """It is at this step; or says a line about it."""

    state: State
    line: str = ""


class Prepared(Message):
    """All is ready; workers run in this interpreter ("" for the node's own)."""

    python: str


class PrepareFailed(Message):
    """It cannot be had; for the user."""

    message: str


ToPreparer: TypeAlias = Prepare
FromPreparer: TypeAlias = Preparing | Prepared | PrepareFailed


def main(control_fd: int) -> int:
    """Prepare what the node asks for, tell how it went, end."""
    tie_to_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=control_fd) as control:
        task = _first(control)
        doing = "the artifact cannot be checked"

        def say(state: State, line: str = "") -> None:
            control.sendall(encode(Preparing(state=state, line=line)))

        try:
            if task.confinement is not None:
                confine(task.confinement)
            python = task.python
            if python:
                doing = "the interpreter cannot be checked"
                environment.check_interpreter(python)
                doing = "the artifact cannot be checked"
            if task.verify:
                say(State.FETCHING)
                verify(Path(task.snapshot))
            if task.requirements:
                say(State.BUILDING_ENV)
                doing = "the environment cannot be built"
                python = environment.build(
                    task.requirements,
                    task.python,
                    Path(task.envs),
                    lambda line: say(State.BUILDING_ENV, line),
                )
        except ModelcloudError as error:
            answer: Message = PrepareFailed(message=error.message)
        except OSError as error:
            answer = PrepareFailed(message=f"{doing}: {error.strerror or error}")
        else:
            answer = Prepared(python=python)
        control.sendall(encode(answer))
    return 0


def _first(control: socket.socket) -> Prepare:
    reader = MessageReader(ToPreparer)
    while data := control.recv(65536):
        for message in reader.feed(data):
            if isinstance(message, Prepare):
                return message
    os._exit(1)  # the node is gone
