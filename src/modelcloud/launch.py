"""`modelcloud.run()`: serve the script, notebook or prompt it is called from.

Must never: load the model here, or block a notebook's kernel for longer than the model loads.
"""

from __future__ import annotations

import atexit
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from modelcloud.config import ServeConfig
from modelcloud.errors import ModelLoadError, UsageError
from modelcloud.sdk import notebook
from modelcloud.sdk.decorators import is_collecting, registry_in

if TYPE_CHECKING:
    from modelcloud.client import Client

#: Beyond the model's own time to load: starting the processes, and giving up on a worker.
START_GRACE_S: Final = 30.0
POLL_S: Final = 0.05
ARTIFACT: Final = "notebook.pkl"
LOG: Final = "node.log"
LOG_TAIL: Final = 4000  # characters of the node's output that an error shows

#: What serves now, by address; a second `run()` on one is an update of the first.
_handles: dict[int | str, Handle] = {}


class Handle:
    """A model that is served from this notebook or prompt, until `stop()` or its end.

    Attributes:
        url: where it is served.
    """

    def __init__(self, config: ServeConfig, process: subprocess.Popen[bytes], folder: Path) -> None:
        from modelcloud.client import Client
        from modelcloud.serve.console import url_of

        self.url = url_of(config)
        self._config, self._process, self._folder = config, process, folder
        self._client: Client = Client(self.url, token=config.admin_token or None)

    def update(self, **options: Any) -> dict[str, Any]:
        """Replace the model while it serves; options that are not named stay as they are.

        Returns:
            The server's answer, once the new model serves: `success`, `generation` …

        Raises:
            UsageError: an option does not fit.
            UpdateFailed: the new model did not come up; the old one serves on.
        """
        return self._client.update(options=options)

    def stop(self) -> None:
        """Answer what is under way, then stop serving. May be called twice."""
        atexit.unregister(self.stop)
        if _handles.get(_address(self._config)) is self:
            del _handles[_address(self._config)]
        self._client.close()
        if self.alive:
            self._process.terminate()
            try:
                self._process.wait(self._config.drain_s + START_GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._process.poll() is None

    def __repr__(self) -> str:
        return f"<modelcloud {'serving at' if self.alive else 'stopped, was at'} {self.url}>"

    def wait_ready(self) -> None:
        """Return once the model serves; show meanwhile what the server says.

        Raises:
            ModelLoadError: the server gave up, or the deadline passed; with its last words.
        """
        deadline = time.monotonic() + self._config.load_timeout_s + START_GRACE_S
        said = ""
        with (self._folder / LOG).open(encoding="utf-8", errors="replace") as log:
            while True:
                alive, ready = self.alive, self._client.ready()
                new = log.read()
                sys.stdout.write(new)
                said = (said + new)[-LOG_TAIL:]
                if alive and ready:
                    return
                if not alive or time.monotonic() > deadline:
                    break
                time.sleep(POLL_S)
        raise ModelLoadError(f"the model did not come up; the server's last words:\n{said.strip()}")

    def replace(self, config: ServeConfig, artifact: bytes | None) -> None:
        """Take another `run()` on this address as an update.

        Raises:
            UsageError: it changes more than the functions and the options.
            UpdateFailed: the new model did not come up; the old one serves on.
        """
        if artifact is not None:
            config = _served_from(self._folder / ARTIFACT, config)
        if msgspec.structs.replace(config, options={}) != msgspec.structs.replace(
            self._config, options={}
        ):
            raise UsageError(
                f"{self!r} was started with other settings; accepted: the same ones, with other "
                "model_options if wanted, or .stop() on its handle first"
            )
        if artifact is not None:
            _write(self._folder / ARTIFACT, artifact)
        self._client.update(options=config.options)


def run(
    port: int = ServeConfig(target="").port,
    host: str = "127.0.0.1",
    *,
    model_options: Mapping[str, Any] | None = None,
    runenv: str = "prod",
    workers: int | None = None,
    threads: int = 1,
    **settings: Any,
) -> Handle | None:
    """Serve the model that the calling script or notebook declares.

    In a script it serves that script and does not return: this process becomes the server. In a
    notebook or at a prompt it serves the functions declared so far from a process of its own,
    returns its handle, and when called again on the same address updates what serves there. While
    a worker loads the file, it does nothing.

    Args:
        port: where to listen; 0 for any free port.
        host: address to bind; beyond loopback, updates need `admin_token`.
        model_options: what `setup(options)` gets, in JSON form.
        runenv: `prod`, or `dev` to put tracebacks into error answers.
        workers: worker processes, each with its own copy of the model.
        threads: requests that one worker answers at the same time.
        settings: any other field of `config.ServeConfig`, such as `strategy="rolling"`.

    Raises:
        UsageError: a setting is not known, or does not fit.
        ModelLoadError: in a notebook, the model did not come up.
    """
    if is_collecting() or _in_child():
        return None
    namespace = sys._getframe(1).f_globals  # noqa: SLF001 — what is served is where this is called
    given = {"host": host, "port": port, "runenv": runenv, "threads": threads, **settings}
    if workers is not None:
        given["replicas"] = workers
    config = _config_of(given, dict(model_options or {}))
    file = namespace.get("__file__")
    artifact = None
    if file is not None:
        config = msgspec.structs.replace(config, target=str(Path(file).resolve()))
    else:
        registry = registry_in(namespace)
        if registry is None or not registry.commands:
            raise ModelLoadError(
                "nothing to serve: no @modelcloud.command was run here; accepted: a notebook with "
                "at least one, or a file for `modelcloud serve`"
            )
        artifact = notebook.pack(registry)
    if hasattr(sys, "ps1"):  # a prompt, or a notebook's kernel
        return _serve_beside(config, artifact)
    from modelcloud.serve.launch import exec_node

    if artifact is not None:  # `python -c` or standard input; nobody is left to remove the file
        path = Path(tempfile.mkdtemp(prefix="modelcloud-")) / ARTIFACT
        _write(path, artifact)
        config = _served_from(path, config)
    return exec_node(config)


def _config_of(given: dict[str, Any], options: dict[str, Any]) -> ServeConfig:
    """The settings as one record; raises UsageError for one that is not known or does not fit."""
    taken = {"options", "options_text", "target"}
    known = sorted(set(ServeConfig.__struct_fields__) - taken)
    for name in given:
        if name not in known:
            raise UsageError(f"run() has no setting {name!r}; accepted: {', '.join(known)}")
    if given["runenv"] not in {"dev", "prod"}:
        raise UsageError(f"runenv: got {given['runenv']!r}; accepted: 'dev' or 'prod'")
    strategy = given.get("strategy")
    if isinstance(strategy, str):
        given = {**given, "strategy": {"name": strategy}}
    try:
        return msgspec.convert({**given, "target": "", "options": options}, ServeConfig)
    except msgspec.ValidationError as error:
        raise UsageError(f"run(): {error}") from None


def _serve_beside(config: ServeConfig, artifact: bytes | None) -> Handle:
    """Serve from a process of its own, or update the one that serves at this port."""
    from modelcloud.serve.launch import spawn_node

    running = _handles.get(_address(config))
    if running is not None:
        if running.alive:
            running.replace(config, artifact)
            return running
        running.stop()
    if not config.uds:
        config = msgspec.structs.replace(config, port=_free_port(config))
    folder = Path(tempfile.mkdtemp(prefix="modelcloud-"))
    if artifact is not None:
        config = _served_from(folder / ARTIFACT, config)
        _write(folder / ARTIFACT, artifact)
    with (folder / LOG).open("wb") as output:
        process = spawn_node(
            config,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # interrupting a cell is not to stop the server
        )
    handle = Handle(config, process, folder)
    _handles[_address(config)] = handle
    atexit.register(handle.stop)
    try:
        handle.wait_ready()
    except BaseException:  # an interrupted cell too leaves no server behind
        handle.stop()
        raise
    return handle


def _served_from(path: Path, config: ServeConfig) -> ServeConfig:
    return msgspec.structs.replace(config, target=str(path), service=config.service or "notebook")


def _write(path: Path, artifact: bytes) -> None:
    half = path.with_suffix(".part")
    half.write_bytes(artifact)
    half.replace(path)


def _address(config: ServeConfig) -> int | str:
    return config.uds or config.port


def _free_port(config: ServeConfig) -> int:
    """The port to serve at, chosen if it is 0.

    Raises:
        UsageError: something listens there, which would seem to answer in this model's place.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
            port: int = probe.getsockname()[1]
        except OSError as error:
            raise UsageError(
                f"port {config.port} of {config.host}: {error.strerror}; accepted: a free port"
            ) from None
    return port


def _in_child() -> bool:
    """Whether this is a process that `multiprocessing` started, which imports the file again."""
    process = sys.modules.get("multiprocessing.process")
    if process is None:
        return False
    # While the child imports the file its parent is not told yet; `multiprocessing` itself asks so.
    importing = getattr(process.current_process(), "_inheriting", False)
    return importing or process.parent_process() is not None
