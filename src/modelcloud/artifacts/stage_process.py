"""Runs `stage` or `unpack` in a process of its own, which has little to break and then is gone.

Must never: leave the process, or anything it wrote, behind a failure or a cancellation.
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

import msgspec

from modelcloud.artifacts.stage import Staged, StageRequest, stage
from modelcloud.artifacts.unpack import Unpacked, UnpackRequest, unpack_request
from modelcloud.errors import (
    DeadlineExceeded,
    ModelcloudError,
    NotFound,
    Overloaded,
    TooLarge,
    UnsupportedMedia,
    UsageError,
)
from modelcloud.waiting import within

#: Of the process: address space (zstd and xz need a part of it), open files.
MEMORY = 1024 * 1024 * 1024
OPEN_FILES = 128
MAX_ANSWER = 1024 * 1024
#: What the process may answer, by name.
_ERRORS: dict[str, type[ModelcloudError]] = {
    kind.__name__: kind for kind in (UsageError, TooLarge, UnsupportedMedia, NotFound, Overloaded)
}


class _Request(msgspec.Struct, kw_only=True):
    """One of the two."""

    stage: StageRequest | None = None
    unpack: UnpackRequest | None = None


class _Answer(msgspec.Struct, kw_only=True):
    staged: Staged | None = None
    unpacked: Unpacked | None = None
    error: str = ""
    message: str = ""


async def stage_apart(request: StageRequest, deadline_s: float) -> Staged:
    """Make an artifact's folder; after any error, nothing of it is left in `request.work`.

    Raises:
        UsageError: the source is not accepted; the message says why.
        TooLarge: it is over a cap.
        NotFound: there is no such source.
        DeadlineExceeded: it took longer than `deadline_s`; the process is gone.
        Overloaded: there is no space left, or the process was killed.
    """
    answer = await _apart(_Request(stage=request), deadline_s)
    assert answer.staged is not None
    return answer.staged


async def unpack_apart(request: UnpackRequest, deadline_s: float) -> Unpacked:
    """Unpack; what is left in `request.into` after an error is for the caller to remove.

    Raises:
        UsageError: it is no whole archive, or holds what is not accepted.
        UnsupportedMedia: it is packed in a way that is not read here.
        TooLarge: it is over a cap.
        DeadlineExceeded: it took longer than `deadline_s`; the process is gone.
        Overloaded: there is no space left, or the process was killed.
    """
    answer = await _apart(_Request(unpack=request), deadline_s)
    assert answer.unpacked is not None
    return answer.unpacked


async def _apart(request: _Request, deadline_s: float) -> _Answer:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd="/",
        start_new_session=True,
        limit=MAX_ANSWER,
    )
    try:
        answer = await within(_ask(process, request), deadline_s)
    except asyncio.TimeoutError:
        raise DeadlineExceeded(f"unpacking took longer than {deadline_s:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if answer.error:
        raise _ERRORS[answer.error](answer.message)
    return answer


async def _ask(process: asyncio.subprocess.Process, request: _Request) -> _Answer:
    assert process.stdin is not None
    assert process.stdout is not None
    # Standard input stays open: its end tells the process that nobody waits any more.
    process.stdin.write(msgspec.json.encode(request) + b"\n")
    line = await process.stdout.readline()
    status = await process.wait()
    if not line:
        raise Overloaded(f"the process that unpacks ended early (status {status}); try again")
    return msgspec.json.decode(line, type=_Answer)


def _limit(caps_bytes: int) -> None:
    for kind, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_FSIZE, caps_bytes + 64 * 1024 * 1024),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


def _answered(request: _Request) -> _Answer:
    try:
        if request.stage is not None:
            return _Answer(staged=stage(request.stage))
        assert request.unpack is not None
        return _Answer(unpacked=unpack_request(request.unpack))
    except ModelcloudError as error:
        kind = next(name for name, kind in _ERRORS.items() if isinstance(error, kind))
        return _Answer(error=kind, message=error.message)
    except MemoryError:
        return _Answer(error="TooLarge", message="unpacking it takes more memory than is accepted")
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            message = "there is no space left where it is unpacked"
        else:
            message = f"the artifact could not be written: {error.strerror}"
        return _Answer(error="Overloaded", message=message)


def main() -> None:
    """Take one request from standard input, answer on standard output."""
    line = sys.stdin.buffer.readline()
    request = msgspec.json.decode(line, type=_Request)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work = request.stage or request.unpack
    assert work is not None
    _limit(work.caps.bytes)
    sys.stdout.buffer.write(msgspec.json.encode(_answered(request)) + b"\n")
    sys.stdout.flush()
    os._exit(0)  # the thread may be within a read


if __name__ == "__main__":
    main()
