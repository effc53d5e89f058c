"""A confined process reaches what it is given and nothing hidden; it is for good, so in one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelcloud.dataplane.confinement import LEAST_VERSION, version

pytestmark = pytest.mark.skipif(version() < LEAST_VERSION, reason="no Landlock here")

PROGRAM = """
import json, os, sys
from modelcloud.dataplane.confinement import Confinement, confine
confine(Confinement(**{name: tuple(paths) for name, paths in json.loads(sys.argv[1]).items()}))
said = {}
for code in json.loads(sys.argv[2]):
    try:
        exec(code)
        said[code] = ""
    except OSError as error:
        said[code] = type(error).__name__
print(json.dumps(said))
"""


class Ground:
    """Folders: `data` is to be hidden, with `own`, `shared` and `other` in it; `beside` is not."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("data/own", "data/shared", "data/other", "beside"):
            (root / name).mkdir(parents=True)
            (root / name / "file").write_text(name)
        (root / "data" / "store").write_text("secret")
        (root / "key").write_text("secret")
        (root / "link").symlink_to(root / "data")

    def attempt(self, *codes: str, **paths: list[str]) -> dict[str, Any]:
        """What came of each line in a process that is confined like this; "" if it went well."""
        confinement = {
            name: [str(self.root / path) for path in given] for name, given in paths.items()
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps(confinement), json.dumps(codes)],
            cwd=self.root, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def test_what_is_hidden_can_be_neither_read_nor_changed(ground: Ground) -> None:
    said = ground.attempt(
        "open('data/store')", "open('link/store')", "open('data/store', 'a')",
        "open('data/new', 'w')",
        "os.truncate('data/store', 0)", "os.unlink('data/store')", "os.mkdir('data/new')",
        "os.rename('data/store', 'beside/store')", "os.rename('data', 'beside/data')",
        "open('key')", "os.unlink('key')", "open('new', 'w')",
        hidden=["data", "key"],
    )  # fmt: skip
    assert set(said.values()) == {"PermissionError"}
    assert (ground.root / "data" / "store").read_text() == "secret"


def test_what_is_given_and_what_is_beside_is_there(ground: Ground) -> None:
    said = ground.attempt(
        "open('data/shared/file').read()", "open('data/own/file', 'w').write('x')",
        "os.mkdir('data/own/a'); os.rename('data/own/a', 'data/own/b')",
        "open('beside/file', 'a')", "open('beside/new', 'w')", "os.listdir('data')",
        "os.stat('data/store')", "os.kill(os.getpid(), 0)", "open('/proc/self/environ').read()",
        hidden=["data"], readable=["data/shared"], writable=["data/own"],
    )  # fmt: skip
    assert set(said.values()) == {""}
    said = ground.attempt(
        "open('data/shared/file', 'a')", "open('data/other/file')",
        hidden=["data"], readable=["data/shared"], writable=["data/own"],
    )  # fmt: skip
    assert set(said.values()) == {"PermissionError"}


def test_what_is_not_there_hides_nothing_and_gives_nothing(ground: Ground) -> None:
    said = ground.attempt(
        "open('new', 'w')", hidden=["nowhere"], readable=["nothing"], writable=["data/none"]
    )
    assert set(said.values()) == {""}


@pytest.mark.parametrize("given", ["data", ".", "/", "data/../data"])
def test_a_folder_around_what_is_hidden_cannot_be_given(ground: Ground, given: str) -> None:
    said = ground.attempt("open('data/store')", hidden=["data"], writable=[given], readable=[given])
    assert set(said.values()) == {"PermissionError"}


def test_a_link_gives_nothing_of_what_it_leads_to(ground: Ground) -> None:
    said = ground.attempt("open('data/store')", hidden=["data"], writable=["link"])
    assert set(said.values()) == {"PermissionError"}


def test_other_processes_are_out_of_reach(ground: Ground) -> None:
    codes = ["open(f'/proc/{os.getppid()}/environ').read()", "open(f'/proc/{os.getppid()}/mem')"]
    if version() >= 6:
        codes.append("os.kill(os.getppid(), 0)")
    assert set(ground.attempt(*codes, hidden=["data"]).values()) == {"PermissionError"}
