"""The worker process: becomes one replica of one generation, proves it, then answers requests.

Must never: import a web framework, the store or the control plane; it runs in the interpreter of
the version's own environment, with the standard library and msgspec (and uvloop where present).
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import socket
import threading
import traceback
from collections.abc import Coroutine, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

from modelcloud.dataplane import handshake, messages
from modelcloud.dataplane.commands import bind
from modelcloud.dataplane.confinement import confine
from modelcloud.dataplane.executor import Executor
from modelcloud.dataplane.gateway_link import GatewayLink
from modelcloud.dataplane.lifeline import end_with_group, tie_to_parent
from modelcloud.dataplane.proving import check_golden, warm_up
from modelcloud.dataplane.reconfiguring import Reconfiguring, option_values
from modelcloud.errors import InvalidInput, ModelcloudError
from modelcloud.sdk.contract import Backend, Signature
from modelcloud.types import State

#: How long the node may take to say what to load.
FIRST_MESSAGE_S = 60.0
#: Added where a confined model was denied a file: others would not, so its author may wonder.
DENIED = (
    "; on this platform a model may not open the platform's files, nor make anything new in the "
    "folders around them"
)
#: Status after a load that failed and was reported.
LOAD_FAILED = 3


class NodeLink:
    """The socket to the node. Its reading side is a thread, so that no model call holds it up."""

    def __init__(self, control_fd: int) -> None:
        self._socket = socket.socket(fileno=control_fd)
        self._reader = messages.MessageReader(messages.ToWorker)
        self._lock = threading.Lock()
        self._executor: Executor | None = None
        self._stop: asyncio.Event | None = None
        self._reconfiguring: Reconfiguring | None = None
        self._changes: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[Any] = []
        self._listener = threading.Thread(target=self._listen, name="node", daemon=True)

    def first(self) -> messages.Load:
        """The first message: what to become.

        Raises:
            TimeoutError: it did not come.
        """
        self._socket.settimeout(FIRST_MESSAGE_S)
        while not self._waiting:
            data = self._socket.recv(65536)
            if not data:
                end_with_group()
            self._waiting += self._reader.feed(data)
        self._socket.settimeout(None)
        load = self._waiting.pop(0)
        if not isinstance(load, messages.Load):
            raise TypeError(f"{type(load).__name__} came before Load")
        return load

    def listen(self) -> None:
        """Answer pings from now on; the end of the socket is the end of this process."""
        self._listener.start()

    def _listen(self) -> None:
        while True:
            for message in self._waiting:
                self._handle(message)
            try:
                data = self._socket.recv(65536)
            except OSError:
                data = b""
            if not data:
                end_with_group()  # the node is gone: nobody can reach this worker any more
            self._waiting = self._reader.feed(data)

    def _handle(self, message: Any) -> None:
        if isinstance(message, messages.Ping):
            self.send(self._pong(message.seq))
        elif isinstance(message, messages.Reconfigure):
            if self._loop is not None:  # else it is still loading, which the node would not ask
                self._loop.call_soon_threadsafe(self._reconfigure, message)
        elif isinstance(message, messages.Stop):
            if self._loop is None or self._stop is None:
                os._exit(0)  # still loading: nothing to finish
            self._loop.call_soon_threadsafe(self._stop.set)

    def _reconfigure(self, message: messages.Reconfigure) -> None:
        async def change(reconfiguring: Reconfiguring) -> None:
            self.send(await reconfiguring.take(message.spec))

        assert self._loop is not None
        assert self._reconfiguring is not None
        task = self._loop.create_task(change(self._reconfiguring))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)

    def _pong(self, seq: int) -> messages.Pong:
        if self._executor is None:
            return messages.Pong(seq=seq)
        since = self._executor.busy_since
        batches, batched = self._executor.batch_counts
        busy_s = monotonic() - since if since else 0.0
        return messages.Pong(seq=seq, busy_s=busy_s, batches=batches, batched=batched)

    def wait_for_stop(self) -> None:
        """Do nothing but answer pings; `Stop`, and the end of the node, end this process."""
        self._listener.join()

    def serving(self, executor: Executor, reconfiguring: Reconfiguring) -> asyncio.Event:
        """From now on pings tell how long the running call lasts, and options may change.

        The event says to stop.
        """
        self._executor = executor
        self._reconfiguring = reconfiguring
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        return self._stop

    def send(self, message: messages.Message) -> None:
        """Tell the node."""
        with self._lock:
            self._socket.sendall(messages.encode(message))


def prepare(load: messages.Load, node: NodeLink) -> tuple[Backend, list[Any], messages.Ready]:
    """Load, warm up, check: everything before the first request.

    Raises:
        LoadError: with the step that failed; the node was not told yet.
    """
    from modelcloud.sdk.options import complete_options

    spec = load.spec
    start = monotonic()
    with _step(State.LOADING, node):
        backend, options = _imported(load)
        backend.load(complete_options(backend.signature, options))
        commands = bind(backend, max_body=spec.max_body, runenv=spec.runenv)
    load_s = monotonic() - start
    folder = _companions(Path(spec.snapshot))
    with _step(State.WARMING, node):
        warnings = warm_up(commands, folder)
    with _step(State.CHECKING, node):
        check_golden(commands, folder)
    signature = _described(backend.signature, options)
    ready = messages.Ready(signature=signature, load_s=load_s, warnings=warnings)
    return backend, commands, ready


def probe(load: messages.Load, node: NodeLink) -> messages.Ready:
    """Import the code and say what it offers. No model is loaded, so options may be missing.

    Raises:
        LoadError: it cannot be imported, holds nothing to serve, or an option given does not fit.
    """
    from modelcloud.sdk.options import complete_options

    start = monotonic()
    with _step(State.LOADING, node):
        backend, options = _imported(load)
        declared = backend.signature.options.items()
        present = {name: kind for name, kind in declared if name in options or not kind.required}
        complete_options(Signature(options=present), options)
    return messages.Ready(
        signature=_described(backend.signature, options), load_s=monotonic() - start
    )


def _imported(load: messages.Load) -> tuple[Backend, dict[str, Any]]:
    """The backend, its model not loaded, and the options given, in JSON form."""
    from modelcloud.sdk.data_types import files
    from modelcloud.sdk.loader import load_backend
    from modelcloud.sdk.options import given_options

    files.set_upload_dir(load.spec.upload_dir or None)
    files.set_temporary_dir(load.files)
    backend = load_backend(load.spec)
    return backend, given_options(backend.signature, load.spec)


def _described(signature: Signature, options: dict[str, Any]) -> dict[str, Any]:
    return {**signature.to_dict(), "optionValues": option_values(signature, options)}


class LoadError(Exception):
    """A step before serving failed; `message` is for the user, `detail` for the log."""

    def __init__(self, state: State, error: BaseException) -> None:
        fields: dict[str, Any] = {}
        if isinstance(error, ModelcloudError):  # its message says it all, unless it has more
            message, text, fields = error.message, error.detail or "", error.fields
            if isinstance(error, InvalidInput):
                message = f"option {message}"
        else:
            message = f"{type(error).__name__}: {error}"
            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        super().__init__(message)
        self.report = messages.LoadFailed(
            state=state,
            message=message,
            detail=text,
            file=str(fields.get("file", "")),
            line=int(fields.get("line") or 0),
        )


def _was_denied(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, PermissionError):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def _step(state: State, node: NodeLink) -> Iterator[None]:
    """Tell the node which step begins; give what is raised in it the step's name."""
    node.send(messages.Progress(state=state))
    try:
        yield
    except BaseException as error:  # SystemExit too: a model that exits did not load
        raise LoadError(state, error) from error


def _companions(snapshot: Path) -> Path | None:
    """The folder of the snapshot where the files beside the main file are."""
    import msgspec

    from modelcloud.types import MANIFEST, Manifest

    manifest = msgspec.json.decode((snapshot / MANIFEST).read_bytes(), type=Manifest)
    return (snapshot / manifest.main).parent if manifest.main else None


async def _serve(
    load: messages.Load,
    backend: Backend,
    commands: list[Any],
    ready: messages.Ready,
    node: NodeLink,
) -> None:
    executor = Executor(commands, threads=load.spec.threads, max_body=load.spec.max_body)
    server, ready.endpoint = await _listen(load, executor)
    stop = node.serving(executor, Reconfiguring(backend, executor, load.spec))
    node.send(ready)
    await stop.wait()
    server.close()
    await executor.finish()
    await asyncio.sleep(0)
    with contextlib.suppress(Exception):
        backend.close()


async def _listen(load: messages.Load, executor: Executor) -> tuple[asyncio.AbstractServer, str]:
    """Accept gateways at the worker's address; with TCP, gives where that is."""
    loop = asyncio.get_running_loop()
    if load.secret:
        host, port = handshake.address_of(load.socket)
        tcp = await loop.create_server(
            lambda: handshake.Listener(lambda _: load.secret, GatewayLink(executor)), host, port
        )
        return tcp, handshake.endpoint_of(*tcp.sockets[0].getsockname()[:2])
    mask = os.umask(0o177)  # the socket is for this user alone from the moment it exists
    try:
        return await loop.create_unix_server(lambda: GatewayLink(executor), load.socket), ""
    finally:
        os.umask(mask)


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:  # an environment without it: asyncio's own loop does the same, slower
        asyncio.run(work)
        return
    uvloop.run(work)


def main(control_fd: int) -> int:
    """Run a worker whose control socket is the inherited `control_fd`; returns the exit status."""
    tie_to_parent()
    faulthandler.enable()  # SIGABRT dumps all stacks to the log before it ends the process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node, which drains first
    node = NodeLink(control_fd)
    load = node.first()
    if load.confinement is not None:  # before there is a thread, or anything of the model
        os.chdir(load.files)
        confine(load.confinement)
    node.listen()
    try:
        if load.spec.probe:
            node.send(probe(load, node))
            node.wait_for_stop()
            return 0
        backend, commands, ready = prepare(load, node)
    except LoadError as error:
        if load.confinement is not None and _was_denied(error):
            error.report.message += DENIED
        node.send(error.report)
        return LOAD_FAILED
    _run(_serve(load, backend, commands, ready, node))
    return 0
