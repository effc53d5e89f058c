"""One child process: how it is started, spoken to, listened to and ended.

Must never: decide whether a child should live; wait for one; hand it a secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import modelcloud
from modelcloud.dataplane.messages import Message, MessageReader, encode
from modelcloud.node.logs import LineCutter
from modelcloud.node.reaper import TAG, Reaper, kill_group

log = logging.getLogger(__name__)

#: Status of a child whose interpreter cannot run it; its last line says why.
UNFIT = 97
#: Unsent bytes beyond which a child counts as not reading.
BACKLOG = 16 * 1024 * 1024
#: From the end of a child's control connection to the end of its patience.
EOF_GRACE_S = 2.0

#: Runs `main(fd)` of a module of this package in any interpreter, with nothing but the package
#: made importable: its folder may be the node's site-packages, which the interpreter must not
#: see. The current folder is no place to import from either, as with `python script.py`.
#: It runs in whatever Python it is given, so it is written for old ones too.
BOOTSTRAP = f"""
import sys
sys.path[:] = [p for p in sys.path if p]
def unfit(why):
    sys.stderr.write(sys.executable + " " + why + "\\n")
    sys.exit({UNFIT})
if sys.version_info < (3, 10):
    unfit("is Python %d.%d; accepted: 3.10 or later" % sys.version_info[:2])
import importlib, importlib.util
try:
    import msgspec
except ImportError:
    unfit("has no msgspec: run `" + sys.executable + " -m pip install msgspec`")
folder, name, fd = sys.argv[1:]
del sys.argv[1:]
spec = importlib.util.spec_from_file_location(
    "modelcloud", folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules["modelcloud"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
sys.exit(importlib.import_module(name).main(int(fd)))
"""
_PACKAGE = str(Path(modelcloud.__file__).parent)


def command(python: str, module: str) -> list[str]:
    """The command line that runs `module.main(fd)`, but for the descriptor at its end."""
    return [python, "-c", BOOTSTRAP, _PACKAGE, module]


def child_env(
    environ: Mapping[str, str], *, tag: str, secret: str, variables: Mapping[str, str]
) -> dict[str, str]:
    """The environment of a child: the node's, without a variable whose value is `secret`."""
    env = {name: value for name, value in environ.items() if not secret or value != secret}
    return {**env, **variables, "PYTHONUNBUFFERED": "1", TAG: tag}


def describe_exit(code: int, *, oom: bool = False) -> str:
    """An exit code (negative: minus the signal) in words. `oom`: the kernel killed for memory."""
    if code >= 0:
        return f"exited with status {code}"
    if code == -signal.SIGSEGV:
        return "crashed with a segfault (SIGSEGV)"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}" + (" (out of memory?)" if oom and code == -signal.SIGKILL else "")


def is_stopped(pid: int) -> bool:
    """Whether the process stands still because of SIGSTOP or the like."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b") ")[2][:1] == b"T"


class Child:
    """A running child process. All callbacks come on the event loop.

    Attributes:
        heard, leaving: as `cluster.RemoteWorker` has them; of a process here there is no doubt.

    Args:
        name: unique among the node's children.
        argv: the command line, without the control socket's number.
        union: the messages it may send.
        output: takes its stdout and stderr.
        on_message: called with each message; raising ends the child.
        on_exit: called last, after its messages and output, with the exit in words.
        secret: kept out of its environment.
        variables: added to its environment.
        pass_fds: further descriptors to inherit.

    Raises:
        OSError: it could not be started.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        reaper: Reaper,
        union: Any,
        output: LineCutter,
        on_message: Callable[[Any], None],
        on_exit: Callable[[str], None],
        secret: str = "",
        variables: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._loop = asyncio.get_running_loop()
        self._reader = MessageReader(union)
        self._output = output
        self._on_message = on_message
        self._on_exit = on_exit
        self._unsent = bytearray()
        self._drained = asyncio.Event()
        self._drained.set()
        self._deaf = False
        self._ending: asyncio.TimerHandle | None = None
        self._oom_kills = _oom_kills()
        tag = reaper.tag(name)
        self._popen, self._control, self._pipe, self._lifeline = launch(
            argv,
            child_env(os.environ, tag=tag, secret=secret, variables=variables or {}),
            pass_fds,
        )
        self.pid = self._popen.pid
        self.alive = self.heard = True
        self.leaving = False
        reaper.watch(self.pid, tag, self._exited)
        self._loop.add_reader(self._control, self._readable)
        self._loop.add_reader(self._pipe, self._output_readable)

    def send(self, message: Message) -> None:
        """Send, or keep until the child reads. A child that does not is killed."""
        if not self.alive:
            return
        if len(self._unsent) > BACKLOG:
            log.warning("%s does not read what it is told; killed", self.name)
            self.kill()
            return
        self._unsent += encode(message)
        self._flush()

    async def drained(self) -> None:
        """Wait until the child has read what it was sent, or is gone."""
        await self._drained.wait()

    def kill(self) -> None:
        """SIGKILL the child and its process group now."""
        if self.alive:
            kill_group(self.pid)

    def end(self, *steps: tuple[float, signal.Signals]) -> None:
        """Send each signal after its delay in seconds, until the child is gone.

        SIGKILL goes to the whole process group, others to the child itself. A later call
        replaces what is left of an earlier one.
        """
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        if steps and self.alive:
            (delay, sign), *rest = steps
            self._ending = self._loop.call_later(delay, self._step, sign, rest)

    def abort(self) -> None:
        """Have the child dump its stack (faulthandler, by SIGABRT), then kill it a second later."""
        if not self.alive:
            return
        with contextlib.suppress(OSError, ValueError):  # no core file as large as the model
            resource.prlimit(self.pid, resource.RLIMIT_CORE, (0, 0))
        self._signal(signal.SIGABRT)
        self._signal(signal.SIGCONT)
        self.end((1.0, signal.SIGKILL))

    def _step(self, sign: signal.Signals, rest: list[tuple[float, signal.Signals]]) -> None:
        if sign is signal.SIGKILL:
            self.kill()
        else:
            self._signal(sign)
        self.end(*rest)

    def _signal(self, sign: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, sign)

    def _flush(self) -> None:
        try:
            sent = self._control.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:  # its end is closed; the exit follows
            sent = len(self._unsent)
        del self._unsent[:sent]
        if self._unsent:
            self._drained.clear()
            self._loop.add_writer(self._control, self._flush)
        else:
            self._drained.set()
            self._loop.remove_writer(self._control)

    def _readable(self) -> bool:
        """Read once; whether there may be more."""
        if self._deaf:
            return False
        try:
            data = self._control.recv(256 * 1024)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._stop_listening()
            if self._ending is None:
                self.end((EOF_GRACE_S, signal.SIGKILL))
            return False
        try:
            for message in self._reader.feed(data):
                self._on_message(message)
        except Exception:
            log.exception("a message of %s could not be handled; killed", self.name)
            self._stop_listening()
            self.kill()
        return True

    def _stop_listening(self) -> None:
        self._deaf = True
        self._loop.remove_reader(self._control)

    def _output_readable(self) -> bool:
        """Read once; whether there may be more."""
        try:
            data = os.read(self._pipe, 64 * 1024)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._pipe)
            return False
        self._output.feed(data)
        return True

    def _exited(self, code: int) -> None:
        self._popen.returncode = code
        self.end()
        self.alive = False
        self._drained.set()
        # What it said before it ended comes first; bounded, in case a writer is left.
        for read in (self._readable, self._output_readable):
            for _ in range(64):
                if not read():
                    break
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._loop.remove_reader(self._pipe)
        self._control.close()
        os.close(self._pipe)
        os.close(self._lifeline)
        self._output.close()
        self._on_exit(describe_exit(code, oom=_oom_kills() > self._oom_kills))


def launch(
    argv: Sequence[str], env: Mapping[str, str], pass_fds: Sequence[int]
) -> tuple[subprocess.Popen[bytes], socket.socket, int, int]:
    """Start a process in a session of its own.

    Returns:
        It, its control socket, the end of its output, and the other end of its standard input,
        whose closing is its end (see `dataplane.lifeline`).
    """
    with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as theirs:

        def pipe(of_child: int) -> tuple[int, int]:
            """A pipe as (our end, the child's), of which it gets the first or the second."""
            ends = os.pipe()
            theirs.callback(os.close, ends[of_child])
            on_failure.callback(os.close, ends[1 - of_child])
            return ends[1 - of_child], ends[of_child]

        ours, control = socket.socketpair()
        theirs.callback(control.close)
        on_failure.callback(ours.close)
        output, write_end = pipe(of_child=1)
        lifeline, read_end = pipe(of_child=0)
        popen = subprocess.Popen(  # noqa: S603 — the command line is the node's own
            [*argv, str(control.fileno())],
            stdin=read_end,
            stdout=write_end,
            stderr=write_end,
            env=env,
            start_new_session=True,
            pass_fds=(control.fileno(), *pass_fds),
        )
        on_failure.pop_all()
    ours.setblocking(False)
    os.set_blocking(output, False)
    return popen, ours, output, lifeline


def _oom_kills() -> int:
    """How often the kernel has killed for want of memory, in any control group; 0 if unknown."""
    try:
        for line in Path("/proc/vmstat").read_text("ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
