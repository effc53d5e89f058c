"""A monitor's surroundings: models that show when they are torn, who makes them, who reads them."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from support.server import DEADLINE_S, wait_for

MODEL, ARCHIVE, DONE = "uci_housing_model", "uci_housing.tar.gz", "donefile"
TIMESTAMP = "fluid_time_file"
_PARTS = 5


class Place(Protocol):
    """A remote folder, from the side of who writes to it."""

    def put(self, name: str, data: bytes) -> None:
        """Write a file over what is there."""


class Folder:
    """A place whose files lie in a folder of this machine; written as `cp` does, in place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def put(self, name: str, data: bytes) -> None:
        """See `Place.put`."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(data)


def files_of(version: int, filling: bytes = b"") -> dict[str, bytes]:
    """A model whose every file tells its version, and one of whose names is of that version."""
    files = {f"part{number}": f"{version}\n".encode() for number in range(_PARTS)}
    return files | {f"deep/only-{version}": f"{version}\n".encode(), "filling": filling}


def packed(version: int, *, gzipped: bool = True, filling: bytes = b"") -> bytes:
    """That model as `tar` packs it; the same bytes each time."""
    return tarred(files_of(version, filling), gzipped=gzipped)


def tarred(files: dict[str, bytes], *, gzipped: bool = True) -> bytes:
    """A model of these files as `tar` packs it, below its folder's name."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{MODEL}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(out.getvalue(), mtime=0) if gzipped else out.getvalue()


def cut_at_a_member(archive: bytes) -> bytes:
    """A tar without its last member and its end."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return archive[: tar.getmembers()[-1].offset]


def flipped(archive: bytes, within: bytes) -> bytes:
    """One bit of a file's content is another one; no tar has a checksum of that."""
    where = archive.index(within)
    return archive[:where] + bytes([archive[where] ^ 1]) + archive[where + 1 :]


def promise(archive: bytes) -> bytes:
    """A done-file that says what the archive is."""
    return f'{{"sha256": "{hashlib.sha256(archive).hexdigest()}", "size": {len(archive)}}}'.encode()


def produce(place: Place, version: int, done: bytes | None = None) -> None:
    """Put a model, then the done-file, as the seed's producer does."""
    place.put(ARCHIVE, packed(version))
    place.put(DONE, f"{version}\n".encode() if done is None else done)


def version_of(folder: Path) -> int:
    """Version of a local model, read as a server does that has its folder open; 0: none is there.

    Raises:
        AssertionError: it is torn: files of two versions, files missing, or stale ones.
    """
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return 0
    try:
        names = set(_listed(held, ".")) | {f"deep/{name}" for name in _listed(held, "deep")}
        assert "part0" in names, f"torn: {sorted(names)}"
        versions = {_read(held, name) for name in names - {"deep", "filling", TIMESTAMP}}
        assert len(versions) == 1, f"torn: {versions} in {sorted(names)}"
        version = int(versions.pop())
        assert names == {*files_of(version), "deep", TIMESTAMP}, f"torn: {sorted(names)}"
        return version
    finally:
        os.close(held)


def _listed(folder: int, name: str) -> list[str]:
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
    try:
        return os.listdir(inner)  # noqa: PTH208 — of an open folder, which has no path
    finally:
        os.close(inner)


def _read(folder: int, name: str) -> bytes:
    file = os.open(name, os.O_RDONLY, dir_fd=folder)
    try:
        return os.read(file, 100)
    finally:
        os.close(file)


class Reader:
    """Reads a local model all the time; its timestamp first, as a server that reloads."""

    def __init__(self, folder: Path) -> None:
        self.torn: list[str] = []
        self.reads = 0
        self.versions: list[int] = []
        self._folder = folder
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        reloaded: dict[int, int] = {}  # timestamp → the version that was there with it
        while not self._ending.is_set():
            stamp = 0
            with contextlib.suppress(FileNotFoundError):
                stamp = (self._folder / TIMESTAMP).stat().st_mtime_ns
            try:
                version = version_of(self._folder)
                assert not stamp or version >= reloaded.setdefault(stamp, version)
                assert not stamp or max(reloaded.values()) <= version, "a new time, an old model"
            except (AssertionError, OSError) as error:
                self.torn.append(str(error))
                continue
            self.reads += 1
            if version and (not self.versions or self.versions[-1] != version):
                self.versions.append(version)

    def __enter__(self) -> Reader:  # noqa: PYI034 — `Self` came with Python 3.11
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(DEADLINE_S)


class Monitor:
    """A running `python -m modelcloud.monitor`, and its log."""

    def __init__(self, arguments: Sequence[str | Path], cwd: Path, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modelcloud.monitor", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.lines.append(line.rstrip("\n"))

    @property
    def log(self) -> str:
        """All lines so far."""
        return "\n".join(self.lines)

    def wait_for_line(self, text: str, times: int = 1, deadline_s: float = DEADLINE_S) -> None:
        """Until so many lines hold this text."""

        def there() -> bool:
            found = sum(text in line for line in self.lines) >= times
            assert found or self.process.poll() is None, self.log
            return found

        try:
            wait_for(f"{times} lines with {text!r}", there, deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end; the exit status."""
        status = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return status


def arguments_for(
    source: Sequence[str], *more: str | Path, unpacked: str = MODEL, model: str = ARCHIVE
) -> list[str]:
    """The seed's command line, with another source and a short interval."""
    return [
        *source, "--remote_model_name", model, "--remote_donefile_name", DONE,
        "--local_path", ".", "--local_model_name", MODEL, "--local_timestamp_file", TIMESTAMP,
        "--local_tmp_path", "_tmp", *(["--unpacked_filename", unpacked] if unpacked else []),
        "--interval", "0.2", *map(str, more),
    ]  # fmt: skip


@contextlib.contextmanager
def monitor(
    cwd: Path, source: Sequence[str], *more: str | Path, env: dict[str, str] | None = None,
    unpacked: str = MODEL, model: str = ARCHIVE,
) -> Iterator[Monitor]:  # fmt: skip
    """A monitor in its folder; its end by SIGTERM must give status 0 and leave nothing behind."""
    arguments = arguments_for(source, *more, unpacked=unpacked, model=model)
    running = Monitor(arguments, cwd, env or {})
    try:
        yield running
        assert running.stop() == 0, running.log
        assert not leftovers(cwd), leftovers(cwd)
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.wait()


def once(
    cwd: Path, source: Sequence[str], *more: str | Path, env: dict[str, str] | None = None,
    unpacked: str = MODEL, model: str = ARCHIVE,
) -> Monitor:  # fmt: skip
    """A monitor that looked once and has ended."""
    arguments = arguments_for(source, "--once", *more, unpacked=unpacked, model=model)
    ended = Monitor(arguments, cwd, env or {})
    ended.wait()
    return ended


def leftovers(cwd: Path) -> list[str]:
    """Temporary files that are there, but for what a monitor keeps."""
    kept = {"lock", "published.json", "previous"}
    folders = [cwd / "_tmp" / MODEL, cwd / f".{MODEL}.monitor"]
    return [
        str(entry)
        for folder in folders
        if folder.exists()
        for entry in folder.iterdir()
        if entry.name not in kept
    ]
