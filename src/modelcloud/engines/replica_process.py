"""A child process of a replica: its messages, its output and its end, on the running loop.

Must never: take SIGCHLD, which is Ray's in this process; a thread waits for each child.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

from modelcloud.dataplane.messages import MessageReader
from modelcloud.node.processes import child_env, describe_exit, launch
from modelcloud.node.reaper import kill_group


class Process:
    """A running child.

    Args:
        argv: the command line, without the control socket's number.
        union: the messages that it may send.
        tag: names it, in its environment and that of all that it starts.
        variables: added to its environment.
        on_message: called with each message.
        on_output: called with what it writes.

    Attributes:
        ended: how it ended, once it has.

    Raises:
        OSError: it could not be started.
    """

    def __init__(
        self,
        argv: list[str],
        union: Any,
        *,
        tag: str,
        variables: Mapping[str, str],
        on_message: Callable[[Any], None],
        on_output: Callable[[bytes], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self._reader = MessageReader(union)
        self._on_message = on_message
        self._on_output = on_output
        token = os.environ.get("RAY_AUTH_TOKEN", "")  # it opens the whole cluster
        env = child_env(os.environ, tag=tag, secret=token, variables=variables)
        self._popen, self._control, self._pipe, self._lifeline = launch(argv, env, ())
        self.pid = self._popen.pid
        self._loop.add_reader(self._control, self._readable)
        self._loop.add_reader(self._pipe, self._output_readable)
        threading.Thread(target=self._wait, name=f"wait-{self.pid}", daemon=True).start()

    def send(self, data: bytes) -> None:
        """Tell it, framed already; one that does not read its few messages is ended."""
        if self.ended.done():
            return
        try:
            if self._control.send(data) < len(data):
                self.signal(signal.SIGKILL)
        except OSError:
            self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal; SIGKILL to all that it started too."""
        if self.ended.done():
            return
        if number == signal.SIGKILL:
            kill_group(self.pid)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _wait(self) -> None:
        with contextlib.suppress(ChildProcessError):  # unreaped, its number is nobody else's
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            kill_group(self.pid)  # what it left behind
        code = self._popen.wait()
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it who waits
            self._loop.call_soon_threadsafe(self._over, code)

    def _over(self, code: int) -> None:
        for read in (self._readable, self._output_readable):
            for _ in range(64):
                if not read():
                    break
        self._loop.remove_reader(self._control)
        self._loop.remove_reader(self._pipe)
        self._control.close()
        os.close(self._pipe)
        os.close(self._lifeline)
        self.ended.set_result(describe_exit(code))

    def _readable(self) -> bool:
        try:
            data = self._control.recv(256 * 1024)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._control)
            return False
        for message in self._reader.feed(data):
            self._on_message(message)
        return True

    def _output_readable(self) -> bool:
        try:
            data = os.read(self._pipe, 64 * 1024)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._pipe)
            return False
        self._on_output(data)
        return True
