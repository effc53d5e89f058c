"""The process in which `modelcloud check` runs a package, in the package's own interpreter.

Must never: be imported by the command line, or import what the package's environment lacks: the
standard library and msgspec are there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from modelcloud.codecs.media import Codec
from modelcloud.dataplane.commands import BoundCommand, bind
from modelcloud.dataplane.lifeline import tie_to_parent
from modelcloud.dataplane.messages import Message, MessageReader, encode
from modelcloud.errors import ModelcloudError
from modelcloud.sdk.contract import CallKind
from modelcloud.types import GenerationSpec


class Check(Message):
    """First message: become this, and answer one request of this JSON body."""

    spec: GenerationSpec
    body: bytes


class Passed(Message):
    """A step is done: `import`, `load` or `inference`; of the last, what the client would get."""

    step: str
    seconds: float
    status: int = 0
    answer: bytes = b""


class Failed(Message):
    """A step failed, and with it the check."""

    step: str
    message: str
    detail: str = ""
    file: str = ""
    line: int = 0


ToChecker: TypeAlias = Check
FromChecker: TypeAlias = Passed | Failed


class _Stopped(Exception):
    """A step failed, which has been told."""


def main(control_fd: int) -> int:
    """Do what the first message asks for, tell how each step went, end."""
    tie_to_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asked, whose end is ours
    control = socket.socket(fileno=control_fd)
    task = _first(control)
    try:
        _check(task, control)
    except _Stopped:
        return 1
    return 0


def _check(task: Check, control: socket.socket) -> None:
    from modelcloud.sdk.loader import load_backend
    from modelcloud.sdk.options import complete_options, given_options

    with _step("import", control):
        backend = load_backend(task.spec)
    with _step("load", control):
        given = given_options(backend.signature, task.spec)
        backend.load(complete_options(backend.signature, given))
        commands = bind(backend, max_body=task.spec.max_body, runenv=task.spec.runenv)
    begun = time.monotonic()
    status, _, answer = _ask(commands[0], task.body)
    passed = Passed(
        step="inference", seconds=time.monotonic() - begun, status=status, answer=answer
    )
    control.sendall(encode(passed))


def _ask(command: BoundCommand, body: bytes) -> tuple[int, int, bytes]:
    """One request, run as a worker runs a client's."""
    if command.kind in {CallKind.COROUTINE, CallKind.ASYNC_GENERATOR}:
        return asyncio.run(command.run_async(Codec.JSON, body))
    return command.run(Codec.JSON, body)


@contextmanager
def _step(step: str, control: socket.socket) -> Iterator[None]:
    begun = time.monotonic()
    try:
        yield
    except BaseException as error:  # SystemExit too: a package that exits did not load
        fields: dict[str, Any] = {}
        if isinstance(error, ModelcloudError):
            message, detail, fields = error.message, error.detail or "", error.fields
        else:
            message, detail = f"{type(error).__name__}: {error}", traceback.format_exc()
        failed = Failed(
            step=step,
            message=message,
            detail=detail,
            file=str(fields.get("file", "")),
            line=int(fields.get("line") or 0),
        )
        control.sendall(encode(failed))
        raise _Stopped from error
    control.sendall(encode(Passed(step=step, seconds=time.monotonic() - begun)))


def _first(control: socket.socket) -> Check:
    reader = MessageReader(ToChecker)
    while data := control.recv(65536):
        for message in reader.feed(data):
            if isinstance(message, Check):
                return message
    os._exit(1)  # who asked is gone
