"""What the documentation tells a reader to type gives what it says it gives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.markdown import ROOT, Block, blocks, name_of
from support.server import Server, serve

WRITTEN_ADDRESS = "127.0.0.1:8080"


class Reader:
    """Does what a page says, in a folder of its own and at whatever port is free."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "COLUMNS": "200"}
        self.served = ExitStack()
        self.server: Server | None = None

    def follow(self, block: Block) -> None:
        """Write the file, or type the commands and compare what they say."""
        words = block.words.split()
        files = [word.removeprefix("file=") for word in words if word.startswith("file=")]
        if block.language == "python" and files:
            (self.folder / files[0]).write_text(block.text)
        elif block.language == "python" and "run" in words:
            self.type(f"{sys.executable} - <<'END'\n{block.text}END\n", "…", fails=False)
        elif block.language == "console":
            for command, expected in session(block.text):
                if command.startswith("modelcloud serve "):
                    self.serve(command)
                elif not command.startswith("make "):
                    self.type(command, expected, fails="fails" in words)

    def type(self, command: str, expected: str, *, fails: bool) -> None:
        """Run a command to its end, against the server that was started."""
        assert self.server is not None
        done = subprocess.run(
            command.replace(WRITTEN_ADDRESS, f"127.0.0.1:{self.server.port}"),
            shell=True, cwd=self.folder, env=self.environment, text=True, timeout=60,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        told = f"$ {command}\n{done.stdout}\n{self.server.output}"
        assert bool(done.returncode) is fails, told
        assert matches(expected, done.stdout), f"{told}\nnot\n{expected}"

    def serve(self, command: str) -> None:
        """Start the server; it must end well when the page does."""
        assert self.server is None
        arguments = command.removeprefix("modelcloud serve ").split()
        self.server = self.served.enter_context(serve(*arguments, cwd=self.folder))


def session(text: str) -> Iterator[tuple[str, str]]:
    """Each command after a `$`, and the output that stands under it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


def matches(expected: str, said: str) -> bool:
    """Whether the output is what the page says, where `…` stands for anything."""
    pattern = ".*".join(re.escape(piece) for piece in expected.strip().split("…"))
    return re.fullmatch(pattern, said.strip(), re.DOTALL) is not None


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    with reader.served:
        yield reader


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "quickstart.md"], ids=name_of)
def test_a_page_can_be_followed_from_top_to_bottom(page: Path, reader: Reader) -> None:
    for block in blocks(page):
        reader.follow(block)
    assert reader.server is not None


def test_the_clients_example_runs_against_the_quickstarts_model(reader: Reader) -> None:
    model = next(b for b in blocks(ROOT / "docs" / "quickstart.md") if "file=" in b.words)
    reader.follow(model)
    reader.serve("modelcloud serve model.py")
    (example,) = (b for b in blocks(ROOT / "docs/reference/client.md") if b.words == "run")
    reader.follow(example)


@pytest.mark.parametrize(
    ("expected", "said", "same"),
    [
        ('{"a":1}', '{"a":1}\n', True),
        ('{"a":1}', '{"a":2}', False),
        ('{"a":…}', '{"a":2}', True),
        ("…\n", "", True),
        ("", "unexpected", False),
        ("…why…", "because", False),
    ],
)
def test_output_that_is_not_what_the_page_says_is_caught(
    expected: str, said: str, same: bool
) -> None:
    assert matches(expected, said) is same
