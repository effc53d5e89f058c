"""Reads from a source in a process of its own, which is killed when it hangs.

Must never: leave that process, or a program it started, behind; or let a secret out in a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from modelcloud.dataplane.confinement import Confinement, confine
from modelcloud.errors import (
    DeadlineExceeded,
    Forbidden,
    ModelcloudError,
    NotFound,
    Overloaded,
    TooLarge,
    Unauthorized,
    UnsupportedMedia,
    UsageError,
)
from modelcloud.monitors.address import guard
from modelcloud.monitors.mark import Mark
from modelcloud.monitors.source import Patience, Source, SourceSpec
from modelcloud.waiting import within

T = TypeVar("T")

#: For an answer of a few bytes: sources give up by themselves a little earlier.
ANSWER_S = 60.0
_LOOK_S = 0.2
_MAX_LINE = 8 * 1024 * 1024
#: What the process may answer, by name.
_ERRORS: dict[str, type[ModelcloudError]] = {
    kind.__name__: kind
    for kind in (
        Forbidden, NotFound, Overloaded, TooLarge, Unauthorized, UnsupportedMedia, UsageError,
    )
}  # fmt: skip


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What the process finds around it.

    Attributes:
        environment: its environment variables; None: those of who starts it.
        confinement: what it may not reach.
    """

    environment: dict[str, str] | None = None
    confinement: Confinement = Confinement()


_INHERITED = Surroundings()


class _Start(msgspec.Struct, kw_only=True):
    spec: SourceSpec
    size: int
    confinement: Confinement


class _Request(msgspec.Struct, kw_only=True, omit_defaults=True):
    do: str
    names: list[str]
    limit: int = 0
    into: str = ""


class _Answer(msgspec.Struct, kw_only=True, omit_defaults=True):
    said: str = ""  # on the way; the answer is still to come
    error: str = ""
    message: str = ""
    marks: list[Mark | None] = []
    content: bytes | None = None


class SourceProcess:
    """A source, asked from an event loop, one question at a time.

    The process is started by the first question and kept for the next; after an error or a
    cancellation it is gone, and the next question starts another.

    Args:
        spec: the source.
        patience: what a fetch may take.
        say: is told what is asked and answered, for the log.
        surroundings: of the process.
    """

    def __init__(
        self,
        spec: SourceSpec,
        patience: Patience,
        say: Callable[[str], None] = lambda _: None,
        surroundings: Surroundings = _INHERITED,
    ) -> None:
        self._spec, self._patience, self._say = spec, patience, say
        self._surroundings = surroundings
        self._process: asyncio.subprocess.Process | None = None

    async def marks(self, *names: str) -> list[Mark | None]:
        """As `Source.marks`.

        Raises:
            DeadlineExceeded: there was no answer in time.
        """
        return (await self._within(ANSWER_S, _Request(do="marks", names=list(names)))).marks

    async def read(self, name: str, limit: int) -> bytes | None:
        """As `Source.read`.

        Raises:
            DeadlineExceeded: there was no answer in time.
        """
        request = _Request(do="read", names=[name], limit=limit)
        return (await self._within(ANSWER_S, request)).content

    async def fetch(self, name: str, into: Path) -> None:
        """As `Source.fetch`; `into` is alone in its folder.

        Raises:
            DeadlineExceeded: no byte came for a while, or it took too long altogether.
            TooLarge: it is more than is accepted.
        """
        request = _Request(do="fetch", names=[name], into=str(into))
        watching = asyncio.create_task(self._watch(into.parent, name))
        asking = asyncio.create_task(self._asked(request))
        try:
            await asyncio.wait({watching, asking}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            await asking
        finally:
            watching.cancel()
            asking.cancel()
            await asyncio.gather(watching, asking, return_exceptions=True)

    async def close(self) -> None:
        """End the process, and what it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def _within(self, seconds: float, request: _Request) -> _Answer:
        try:
            return await within(self._asked(request), seconds)
        except asyncio.TimeoutError:
            raise DeadlineExceeded(f"the source did not answer within {seconds:g} s") from None

    async def _asked(self, request: _Request) -> _Answer:
        try:
            process = self._process or await self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(msgspec.json.encode(request) + b"\n")
            while (answer := _answer_in(await process.stdout.readline())).said:
                self._say(answer.said)
        except BaseException:
            await self.close()
            raise
        return answer

    async def _start(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # libraries write there what may hold a secret
            env=self._surroundings.environment,
            start_new_session=True,
            limit=_MAX_LINE,
        )
        assert self._process.stdin is not None
        start = _Start(
            spec=self._spec,
            size=self._patience.size,
            confinement=self._surroundings.confinement,
        )
        self._process.stdin.write(msgspec.json.encode(start) + b"\n")
        return self._process

    async def _watch(self, folder: Path, name: str) -> None:
        """Raise when what is written to `folder` stands still, takes too long, or is too much."""
        begun = moved = time.monotonic()
        before = -1
        while True:
            await asyncio.sleep(_LOOK_S)
            now = time.monotonic()
            size = size_below(folder)
            if size > self._patience.size:
                raise TooLarge(f"{name} is more than {self._patience.size} bytes")
            if size != before:
                before, moved = size, now
            if now - moved > self._patience.stall_s:
                raise DeadlineExceeded(
                    f"{name}: no byte came for {self._patience.stall_s:g} s; "
                    f"{size} had come until then"
                )
            if now - begun > self._patience.whole_s:
                raise DeadlineExceeded(f"{name} did not come within {self._patience.whole_s:g} s")


def _answer_in(line: bytes) -> _Answer:
    if not line:
        raise Overloaded("the process that reads the source ended early")
    answer = msgspec.json.decode(line, type=_Answer)
    if answer.error:
        raise _ERRORS[answer.error](answer.message)
    return answer


def size_below(folder: Path) -> int:
    """Bytes of all files in a folder, which may be written to or removed meanwhile."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 — thousands of files
    return total


def _read_requests(found: Callable[[bytes], None]) -> None:
    """Hand on each line of standard input; its end is the end of this process and its own."""
    for line in sys.stdin.buffer:
        found(line)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _done(source: Source, request: _Request) -> _Answer:
    if request.do == "marks":
        return _Answer(marks=source.marks(*request.names))
    if request.do == "read":
        return _Answer(content=source.read(request.names[0], request.limit))
    source.fetch(request.names[0], Path(request.into))
    return _Answer()


def _refusal(error: Exception, size: int) -> tuple[str, str]:
    if isinstance(error, ModelcloudError):
        return next(
            (name for name, kind in _ERRORS.items() if isinstance(error, kind)), "Overloaded"
        ), error.message
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return "TooLarge", f"the model is more than {size} bytes"
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "Overloaded", "there is no space left where models are pulled to (--local_tmp_path)"
    if isinstance(error, OSError):
        return "Overloaded", f"a file could not be read or written: {error.strerror or error}"
    return "Overloaded", f"the source failed: {type(error).__name__}: {error}"


def main() -> None:
    """Answer the questions of standard input on what was standard output."""
    from queue import SimpleQueue

    from modelcloud.monitors.sources.choose import open_source

    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # libraries may print
    start = msgspec.json.decode(sys.stdin.buffer.readline(), type=_Start)
    if start.confinement != Confinement():
        confine(start.confinement)
    lines: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_read_requests, args=(lines.put,), daemon=True).start()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if hard == resource.RLIM_INFINITY or start.size < hard:
        resource.setrlimit(resource.RLIMIT_FSIZE, (start.size, hard))
    secrets = start.spec.secrets()
    guard(start.spec.addresses)

    def hidden(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "***")
        return text[:2000]

    def send(answer: Any) -> None:
        answers.write(msgspec.json.encode(answer) + b"\n")

    def say(text: str) -> None:
        send(_Answer(said=hidden(text)))

    source: Source | None = None
    while True:
        request = msgspec.json.decode(lines.get(), type=_Request)
        try:
            source = source or open_source(start.spec, say)
            send(_done(source, request))
        except Exception as error:  # whatever a library raises becomes an answer
            kind, message = _refusal(error, start.size)
            send(_Answer(error=kind, message=hidden(message)))


if __name__ == "__main__":
    main()
