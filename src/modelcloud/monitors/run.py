"""The monitor: looks, pulls, publishes, remembers; sleeps; begins again, whatever went wrong.

Must never: pull twice at once, or end because a source is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from pathlib import Path

from modelcloud.artifacts.stage_process import unpack_apart
from modelcloud.artifacts.store import remove_tree
from modelcloud.artifacts.tree import Caps, parts_of
from modelcloud.artifacts.unpack import UnpackRequest
from modelcloud.errors import ModelcloudError, TooLarge, UnsupportedMedia, UsageError
from modelcloud.monitors.mark import Seen
from modelcloud.monitors.publish import LocalModel
from modelcloud.monitors.pull import Look, Pulled, pull
from modelcloud.monitors.settings import MonitorSettings
from modelcloud.monitors.source_process import SourceProcess
from modelcloud.monitors.state import Workplace
from modelcloud.monitors.watch import Watch, next_delay

log = logging.getLogger(__name__)

_FILES = 20_000


async def run(settings: MonitorSettings) -> int:
    """Watch until a signal ends it, or look once; the exit status: 0, or 1 when the look failed.

    Raises:
        UsageError: the settings do not fit, or a local folder cannot be used.
        Conflict: another monitor has the same local model.
    """
    settings.check()
    monitor = Monitor(settings)
    for name, value in settings.shown():
        log.info("_%s: %s", name, value)
    task = asyncio.ensure_future(monitor.once() if settings.once else monitor.watch())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        log.info("ended by a signal.")
        return 0
    finally:
        await monitor.close()


class Monitor:
    """One remote model and one local one.

    Raises:
        UsageError: a local folder cannot be used.
        Conflict: another monitor has the same local model.
    """

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        folder = Path(settings.local_path).absolute()
        self._local = LocalModel(folder, settings.local_model_name, settings.local_timestamp_file)
        work = Path(settings.local_tmp_path).absolute() / settings.local_model_name
        self._work = Workplace(work, settings.identity())
        self._source = SourceProcess(settings.source, settings.patience, log.debug)
        self._watch = Watch(
            self._source, settings.watched, settings.interval, self._work.published()
        )

    async def close(self) -> None:
        """End what reads the source."""
        await self._source.close()

    async def once(self) -> int:
        """Look once; 0 if the local model is as the remote one, 1 if that failed."""
        try:
            await self.poll()
        except (ModelcloudError, OSError) as error:
            _tell(error)
            return 1
        return 0

    async def watch(self) -> int:
        """Look again and again."""
        failures = 0
        while True:
            try:
                await self.poll()
            except (ModelcloudError, OSError) as error:
                _tell(error)
                failures += 1
            else:
                failures = 0
            delay = next_delay(failures, self._settings.interval)
            log.info("sleep %ss.", f"{delay:.3g}" if failures else f"{delay:g}")
            await asyncio.sleep(delay)

    async def poll(self) -> None:
        """Look; if there is another model, have it in the local one's place when this returns.

        Raises:
            ModelcloudError: it could not be asked, had or published; the local model is whole.
            OSError: likewise.
        """
        await self._watch.poll(self._take, is_there=self._local.is_there())

    async def _take(self, found: Look) -> Seen:
        """Pull, verify, unpack, publish, and only then remember."""
        settings = self._settings
        with contextlib.ExitStack() as stack:
            work = self._work.pulling()
            stack.callback(remove_tree, work)
            waiting = self._local.waiting()
            stack.callback(remove_tree, waiting)
            pulled = await pull(self._source, settings.watched, found, work)
            model = await self._unpacked(pulled, waiting)
            self._local.publish(model)
            log.info("update local model(%s).", settings.local_model_name)
            log.info("update model timestamp(%s).", settings.local_timestamp_file)
            self._work.remember(pulled.seen)
            return pulled.seen

    async def _unpacked(self, pulled: Pulled, waiting: Path) -> Path:
        """The folder of the model, on the disk."""
        settings, name = self._settings, self._settings.remote_model_name
        into = waiting / "model"
        into.mkdir()
        into.chmod(0o755)
        request = UnpackRequest(
            source=str(pulled.path),
            into=str(into),
            caps=Caps(bytes=settings.patience.size, entries=_FILES),
            packed=bool(settings.unpacked_filename),
        )
        if request.packed:
            log.info("unpack remote file(%s).", name)
        else:
            log.debug("remote file(%s) is already unpacked.", name)
        try:
            await unpack_apart(request, settings.patience.whole_s)
        except (UsageError, TooLarge, UnsupportedMedia) as error:
            raise type(error)(f"{name} is not published: {error.message}") from None
        if not request.packed:
            return into
        pulled.path.unlink()
        log.debug("remove packed file(%s).", name)
        found = into.joinpath(*parts_of(settings.unpacked_filename, depth=16))
        if not found.exists():
            there = ", ".join(sorted(entry.name for entry in into.iterdir())[:10])
            raise UsageError(
                f"{name} holds no {settings.unpacked_filename!r}; at its top are: {there}; is "
                "--unpacked_filename right?"
            )
        log.info("using unpacked filename: %s.", settings.unpacked_filename)
        if found.is_dir():
            return found
        alone = waiting / "alone"
        alone.mkdir()
        found.rename(alone / found.name)
        return alone


def _tell(error: ModelcloudError | OSError) -> None:
    if isinstance(error, ModelcloudError):
        log.error("%s", error.message)
    else:
        log.error("the local model stays as it is: %s: %s", error.strerror, error.filename)


def start(settings: MonitorSettings, *, debug: bool = False) -> int:
    """Log to standard error, and run; returns the exit status."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    root = logging.getLogger("modelcloud")
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    root.addHandler(handler)
    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(run(settings))
    return 0


class _Lines(logging.Formatter):
    """Each record one line, whatever a remote has put into it."""

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s %(levelname)-8s [%(filename)s:%(lineno)d] %(message)s", "%Y-%m-%d %H:%M"
        )

    def format(self, record: logging.LogRecord) -> str:
        """The line, control characters spelled out."""
        return "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode()
            for char in super().format(record)
        )
