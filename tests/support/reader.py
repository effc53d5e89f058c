"""Somebody who does what a page of the documentation says, and compares what comes of it."""

from __future__ import annotations

import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.markdown import ROOT, Block
from support.server import Server, serve
from support.shell import Shell
from support.up import PASSWORD, Up, up

PREDICTIONS = "127.0.0.1:8080"
CONTROL = "127.0.0.1:8000"
OWN_PORT = "9090"
CLONE = "~/modelcloud"


class Reader:
    """Follows pages in a folder of its own, at whatever ports are free.

    Every password it types is the same.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server: Server | None = None
        self._served = ExitStack()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            own_port = str(probe.getsockname()[1])
        self._places = {CLONE: str(ROOT), OWN_PORT: own_port}
        self._shell = Shell(
            folder,
            {
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "COLUMNS": "200",
                "NO_COLOR": "1",
                "MODELCLOUD_CONFIG": str(folder / "credentials.json"),
            },
            answers=f"{PASSWORD}\n" * 2,
        )

    @property
    def platform(self) -> Up:
        """The platform that the page had started."""
        assert isinstance(self.server, Up)
        return self.server

    def follow(self, block: Block) -> None:
        """Write the file, or type the commands and compare what they say.

        What is marked `elsewhere` is for another machine than this one.
        """
        words = block.words.split()
        if "elsewhere" in words:
            return
        files = [word.removeprefix("file=") for word in words if word.startswith("file=")]
        if files:
            (self.folder / files[0]).write_text(self._here(block.text))
        elif block.language == "python" and "run" in words:
            (self.folder / "block.py").write_text(self._here(block.text))
            self.type("python block.py", "…", fails=False)
        elif block.language == "console":
            for command, expected in session(block.text):
                self._do(command, expected, fails="fails" in words)

    def type(self, command: str, expected: str, *, fails: bool) -> None:
        """Run a command to its end; all its output must be what is expected."""
        said, status = self._shell.type(self._here(command))
        told = f"$ {command}\n{said}\n"
        if self.server is not None:
            told += f"\n---- the server said\n{self.server.output}\n"
        assert bool(status) is fails, f"status {status}\n{told}"
        assert matches(self._here(expected), said), f"{told}\n---- and not\n{expected}"

    def serve(self, *arguments: str) -> None:
        """Start `modelcloud serve` where one is, in place of what ran before; at any free port."""
        self.stop()
        said, _ = self._shell.type("pwd")
        written = PREDICTIONS
        if "--port" in arguments:
            where = arguments.index("--port")
            written = f"127.0.0.1:{arguments[where + 1]}"
            arguments = arguments[:where] + arguments[where + 2 :]
        self.server = self._served.enter_context(serve(*arguments, cwd=Path(said.strip())))
        self._places[written] = f"127.0.0.1:{self.server.port}"

    def up(self, *arguments: str) -> None:
        """Start `modelcloud up`; a second time at the addresses of the first.

        With another folder, that of the first is gone by then: who restores a backup has lost it.
        """
        before = self.server
        self.stop()
        where = arguments.index("--data") + 1
        data, others = (
            self.folder / arguments[where],
            arguments[: where - 1] + arguments[where + 1 :],
        )
        others = tuple(str(self.folder) if word == "." else word for word in others)
        if isinstance(before, Up) and before.data != data:
            before.data.rename(before.data.with_name("lost"))
        if CONTROL in self._places:
            ports = [self._places[place].rpartition(":")[2] for place in (PREDICTIONS, CONTROL)]
            others += ("--port", ports[0], "--control-port", ports[1])
        platform = self._served.enter_context(up(data, *others))
        self.server = platform
        self._places[PREDICTIONS] = platform.url.partition("//")[2]
        self._places[CONTROL] = platform.api.partition("//")[2]

    def stop(self) -> None:
        """Press Ctrl-C where something runs; it must end well."""
        self.server = None
        self._served.close()

    def close(self) -> None:
        """Leave nothing behind."""
        try:
            self.stop()
        finally:
            self._shell.close()

    def _do(self, command: str, expected: str, *, fails: bool) -> None:
        words = shlex.split(command, comments=True)
        if words[:2] == ["modelcloud", "serve"]:
            self.serve(*words[2:])
        elif words[:2] == ["modelcloud", "up"]:
            self.up(*words[2:])
        elif words[:1] != ["make"]:
            self.type(command, expected, fails=fails)

    def _here(self, text: str) -> str:
        """With the places as they are, and not as they are written."""
        for written, real in self._places.items():
            text = text.replace(written, real)
        return text


@contextmanager
def reader(folder: Path) -> Iterator[Reader]:
    """Somebody who has this empty folder."""
    found = Reader(folder)
    try:
        yield found
    finally:
        found.close()


def session(text: str) -> Iterator[tuple[str, str]]:
    """Each command after a `$`, and the output that stands under it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        count = next(n for n, line in enumerate(lines, 1) if not line.endswith("\\\n"))
        yield "".join(lines[:count]).rstrip("\n"), "".join(lines[count:])


def matches(expected: str, said: str) -> bool:
    """Whether the output is what the page says.

    `…` stands for anything; how far columns are apart does not count.
    """
    pattern = ".*".join(
        r" +".join(re.escape(word) for word in re.split(" +", piece))
        for piece in _tidy(expected).split("…")
    )
    return re.fullmatch(pattern, _tidy(said), re.DOTALL) is not None


def _tidy(text: str) -> str:
    return re.sub(r" +$", "", text, flags=re.MULTILINE).strip()
