"""A JupyterLab as the control plane sees it: started, asked how it is, ended.

What answers is a user's own process, which may say anything, at any length, or nothing at all.

Must never: believe it, or wait for it without a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import Any

import httpx
import msgspec

from modelcloud.errors import Conflict, DeadlineExceeded, Overloaded
from modelcloud.node.reaper import TAG
from modelcloud.waiting import within
from modelcloud.workspaces.enter import Lab

#: From its start to its first answer; for one answer; for all of it to be gone.
START_S, ANSWER_S, END_S = 90.0, 10.0, 15.0
_POLL_S = 0.1
#: Of an answer that is read here; of its output, what is kept, and how often more is taken.
_MAX_ANSWER, _KEPT, _REST_S = 256 * 1024, 4000, 0.05


class Activity(msgspec.Struct, frozen=True):
    """What a lab says of itself. `mark` differs when something was done since; `busy`: still is."""

    mark: str
    busy: bool


class LabProcess:
    """One lab.

    Attributes:
        lab: what it was started with.
        ended: is set once it and all that came of it are gone.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.ended = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._stopped = False
        self._said = b""
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        """Of the process around it, of which all of it descends; 0 before the start."""
        return 0 if self._process is None else self._process.pid

    async def start(self) -> None:
        """Return once it answers.

        Raises:
            Overloaded: it ended instead; its last words are the error's detail.
            DeadlineExceeded: it did not answer in time.
            Conflict: it was stopped meanwhile.
        """
        try:
            self._refuse_stopped()
            await self._spawn()
            self._refuse_stopped()
            await within(self._answering(), START_S)
            self._refuse_stopped()
        except asyncio.TimeoutError:
            await self.stop()
            raise DeadlineExceeded(
                f"the workspace did not answer within {START_S:g} s", detail=self._last_words()
            ) from None
        except BaseException:
            await self.stop()
            raise

    async def activity(self) -> Activity | None:
        """What goes on in it; None: it does not say."""
        status = await self._asked("api/status")
        kernels = await self._asked("api/kernels")
        if not isinstance(status, dict) or not isinstance(kernels, list):
            return None
        busy = any(
            isinstance(one, dict) and one.get("execution_state") in {"busy", "starting"}
            for one in kernels
        )
        return Activity(str(status.get("last_activity"))[:100], busy)

    async def stop(self) -> None:
        """End it, and all that came of it; one that is about to start does not."""
        self._stopped = True
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()  # what the keeper ends by
        try:
            await within(self.ended.wait(), END_S)
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self.ended.wait(), END_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- inside

    def _refuse_stopped(self) -> None:
        if self._stopped:
            raise Conflict("the workspace was stopped as it started")

    async def _spawn(self) -> None:
        # The keeper has no tag: orphans that have one the node kills, and it is to end others.
        environment = {name: value for name, value in self.lab.environment.items() if name != TAG}
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "modelcloud.workspaces.keeper",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(self.lab) + b"\n")
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._read()), loop.create_task(self._wait())]

    async def _wait(self) -> None:
        assert self._process is not None
        await self._process.wait()
        self.ended.set()

    async def _read(self) -> None:
        """Keep the end of what it says; a flood is left in the pipe, at its own cost."""
        assert self._process is not None
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(64 * 1024):
            self._said = (self._said + data)[-_KEPT:]
            await asyncio.sleep(_REST_S)

    async def _answering(self) -> None:
        while await self._asked("api/status") is None:
            if self.ended.is_set():
                raise Overloaded(
                    "the workspace ended as it started; the log says why",
                    detail=self._last_words(),
                )
            await asyncio.sleep(_POLL_S)

    def _last_words(self) -> str:
        return self._said.decode("utf-8", "replace")

    async def _asked(self, what: str) -> Any:
        """An answer as JSON; None: there was none in time, or it is none."""
        try:
            return await within(self._ask(what), ANSWER_S)
        except (asyncio.TimeoutError, httpx.HTTPError, msgspec.DecodeError, OSError):
            return None

    async def _ask(self, what: str) -> Any:
        transport = httpx.AsyncHTTPTransport(uds=self.lab.socket)
        body = bytearray()
        async with httpx.AsyncClient(transport=transport, timeout=ANSWER_S) as client:
            url = f"http://localhost{self.lab.base}{what}?no_track_activity=1"
            headers = {"authorization": f"token {self.lab.token}"}
            async with client.stream("GET", url, headers=headers) as answer:
                if answer.status_code != 200:
                    return None
                async for part in answer.aiter_raw():
                    body += part
                    if len(body) > _MAX_ANSWER:
                        return None
        return msgspec.json.decode(bytes(body))
