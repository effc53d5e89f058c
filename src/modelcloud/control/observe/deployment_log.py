"""The deployment log: every step of every rollout of a service, one file per service.

Must never: raise because a file cannot be written; a rollout matters more than its log.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from modelcloud.control.observe.log_files import deployment_log
from modelcloud.node.logs import OPEN_FILES, LogFile, escape

log = logging.getLogger(__name__)

#: Begins the name of a folder that is being removed; no service's name does.
_REMOVED = "."
#: The log of a version, and what it was rotated into.
_VERSION = re.compile(r"\d+\.log(\.\d+)?")


class DeploymentLog:
    """Writes lines, from any thread.

    Args:
        folder: the folder of all services' logs (`PlatformState.service_logs`).
        wall: seconds since the epoch.
    """

    def __init__(self, folder: Path, *, wall: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._wall = wall
        self._lock = threading.Lock()
        self._files: OrderedDict[str, LogFile] = OrderedDict()  # the one last written to is last

    def write(self, service: str, text: str) -> None:
        """Add a line, or a line for each line of `text`, to the log of a service."""
        now = self._wall()
        with self._lock:
            file = self._file(service)
            for line in text.split("\n"):
                file.write(now, "", escape(line))

    def remove(self, service: str) -> None:
        """Take all logs of a service away, those of its versions too, and delete them.

        Whoever writes to one begins a new one then.
        """
        place = deployment_log(self._folder, service).parent
        gone = self._folder / f"{_REMOVED}{secrets.token_hex(8)}"
        with self._lock:
            file = self._files.pop(service, None)
            if file is not None:
                file.close()
            with contextlib.suppress(FileNotFoundError):
                place.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def found(self) -> dict[str, list[Path]]:
        """Service → the logs of its versions, as they lie there now."""
        with contextlib.suppress(FileNotFoundError):
            return {
                place.name: [file for file in place.iterdir() if _VERSION.fullmatch(file.name)]
                for place in self._folder.iterdir()
                if place.is_dir()
            }
        return {}

    def keep_only(
        self, found: Mapping[str, Iterable[Path]], known: Mapping[str, Collection[int]]
    ) -> None:
        """Remove, of what was `found`, the logs of services and versions that are not `known`."""
        for service, files in found.items():
            if service.startswith(_REMOVED):
                shutil.rmtree(self._folder / service, ignore_errors=True)
            elif service not in known:
                self.remove(service)
            else:
                for file in files:
                    if int(file.name.partition(".")[0]) not in known[service]:
                        file.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files; a later line opens its file again."""
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()

    def _file(self, service: str) -> LogFile:
        file = self._files.get(service)
        if file is None:
            path = deployment_log(self._folder, service)
            file = self._files[service] = LogFile(path, log.warning)
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(service)
        return file
