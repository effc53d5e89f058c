"""Files and folders of HDFS or AFS, through the `hadoop` program of the machine.

Must never: use a shell, put a secret on a command line, or take what is on standard error for a
failure (a client warns there each time): the exit status tells.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO
from xml.sax.saxutils import escape

from modelcloud.errors import NotFound, Overloaded, Unauthorized, UsageError
from modelcloud.monitors.address import only_unguarded
from modelcloud.monitors.mark import Entry, Mark, folder_mark
from modelcloud.monitors.source import MAX_ENTRIES, TIMEOUT_S, SourceSpec, join

#: Of a name, what the client would read as a pattern.
_PATTERN = set("*?[]{}\\")
_MISSING = "No such file or directory"
_MAX_LISTING = 16 * 1024 * 1024
#: Of a file: time of modification in ms, bytes, kind, name.
_FORMAT = "%Y %b %F/%n"
#: A user's name and password travel by a configuration: a command line is for all to read.
_UGI = (
    "<configuration><property><name>hadoop.job.ugi</name><value>{}</value></property>"
    "</configuration>"
)


class Hadoop:
    """See `Source`.

    Args:
        spec: what to run, and on which file system.
        say: is told every command and what it answered.
    """

    def __init__(self, spec: SourceSpec, say: Callable[[str], None]) -> None:
        only_unguarded(spec.addresses, "hadoop_bin")
        if _PATTERN & set(spec.path):
            raise UsageError(f"--remote_path {spec.path!r} holds one of * ? [ ] {{ }} \\")
        self._folder, self._say = spec.path, say
        self._command = [spec.hadoop_bin, "fs"]
        self._ugi = spec.fs_ugi
        if spec.fs_name:
            self._command.append(f"-Dfs.default.name={spec.fs_name}")

    def marks(self, *names: str) -> list[Mark | None]:
        """See `Source.marks`."""
        if len({name.rpartition("/")[2] for name in names}) < len(names):
            return [self.marks(name)[0] for name in names]  # an answer names no folder
        paths = [self._path(name) for name in names]
        done, output = self._run(["-stat", _FORMAT, *paths], TIMEOUT_S)
        if done != 0 and _MISSING not in output.errors:
            raise self._failed(output.errors)
        found = {}
        for line in output.text.splitlines():
            facts, _, name = line.partition("/")
            modified, size, *kind = facts.split()
            found[name] = (int(modified), int(size), kind == ["directory"])
        return [self._mark(name, found.get(name.rpartition("/")[2])) for name in names]

    def read(self, name: str, limit: int) -> bytes | None:
        """See `Source.read`."""
        done, output = self._run(["-cat", self._path(name)], TIMEOUT_S)
        if done != 0:
            if _MISSING in output.errors:
                return None
            raise self._failed(output.errors)
        if len(output.content) > limit:
            raise UsageError(f"{name} holds more than {limit} bytes")
        return output.content

    def fetch(self, name: str, into: Path) -> None:
        """See `Source.fetch`."""
        done, output = self._run(["-get", self._path(name), str(into)], None, "pull")
        if done != 0:
            if _MISSING in output.errors:
                raise NotFound(f"there is no {self._path(name)}")
            raise self._failed(output.errors)

    def _mark(self, name: str, facts: tuple[int, int, bool] | None) -> Mark | None:
        if facts is None:
            return None
        modified, size, is_folder = facts
        if is_folder:
            return self._folder_mark(name)
        return Mark(
            modified=modified / 1000, size=size, tag=f"{modified} {size}", exact=True
        )  # HDFS writes a file once: another content is another file, with its own ms

    def _folder_mark(self, name: str) -> Mark:
        done, output = self._run(["-ls", "-R", self._path(name)], TIMEOUT_S)
        if done != 0:
            raise self._failed(output.errors)
        rows = [line.split(None, 7) for line in output.text.splitlines()]
        files = [row for row in rows if len(row) == 8 and not row[0].startswith("d")]
        if len(files) > MAX_ENTRIES:
            raise UsageError(f"{name} holds more than {MAX_ENTRIES} files")
        return folder_mark(Entry(row[7], int(row[4]), f"{row[5]} {row[6]}") for row in files)

    def _path(self, name: str) -> str:
        if _PATTERN & set(name):
            raise UsageError(f"{name!r} holds one of * ? [ ] {{ }} \\; accepted: a plain name")
        return join(self._folder, name)

    def _run(
        self, arguments: list[str], timeout_s: float | None, what: str = "check"
    ) -> tuple[int, _Output]:
        """Run the program; its exit status and output. Without a timeout, who calls ends it."""
        self._say(f"{what} cmd: {' '.join([*self._command, *arguments])}")
        with contextlib.ExitStack() as stack:
            command, secrets = [*self._command], []
            if self._ugi:
                secrets.append(_in_memory(_UGI.format(escape(self._ugi))))
                stack.callback(os.close, secrets[0])
                command[2:2] = ["-conf", f"/dev/fd/{secrets[0]}"]
            out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            try:
                done = subprocess.run(  # noqa: S603 — the program that the user named
                    [*command, *arguments], check=False, stdin=subprocess.DEVNULL, stdout=out,
                    stderr=err, timeout=timeout_s, pass_fds=secrets,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise Overloaded(
                    f"{self._command[0]} did not answer within {timeout_s:g} s; is the file "
                    "system up?"
                ) from None
            except OSError as error:
                raise UsageError(
                    f"--hadoop_bin {self._command[0]} cannot be run: {error.strerror}"
                ) from None
            found = _Output(_start_of(out), _start_of(err).decode("utf-8", "replace"))
        if what == "check":
            self._say(f"resp: {found.text.strip()}")
        return done.returncode, found

    def _failed(self, errors: str) -> Overloaded | Unauthorized:
        told = [line for line in errors.splitlines() if " WARN " not in line and line.strip()]
        reason = told[-1].strip() if told else "it says nothing"
        if "Permission denied" in errors or "AccessControlException" in errors:
            return Unauthorized(f"{self._command[0]} is refused: {reason}; is --fs_ugi right?")
        return Overloaded(
            f"{self._command[0]} failed: {reason}; is the file system up, and --fs_name right?"
        )


class _Output:
    """What a command wrote; of the content only the first 16 MiB."""

    def __init__(self, content: bytes, errors: str) -> None:
        self.content, self.errors = content, errors

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")


def _start_of(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(_MAX_LISTING)


def _in_memory(text: str) -> int:
    """A file that is on no disk and has no name, so that nothing of it outlives a kill."""
    descriptor = os.memfd_create("modelcloud")
    os.write(descriptor, text.encode())
    return descriptor
