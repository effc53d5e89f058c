"""What is wrong with a model file or a command line is told in one line, and nothing listens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

DEADLINE_S = 60.0

IMPORTS = """\
import modelcloud
from modelcloud.data_types import number, text
"""
SETUP = """
@modelcloud.setup(options={"k": number(default=1, max=5), "word": text})
def setup(options):
    return options
"""
COMMAND = """
@modelcloud.command("go", inputs={"n": number(default=1)}, outputs={"r": number})
def go(model, inputs):
    return inputs["n"]
"""
GOOD = IMPORTS + SETUP + COMMAND


class Said(NamedTuple):
    """How the command ended and what it printed."""

    status: int
    out: str
    err: str


def modelcloud(folder: Path, *arguments: str) -> Said:
    """Run the real command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "modelcloud.cli.main", *arguments],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "80"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def serve(folder: Path, code: str | bytes, *flags: str) -> Said:
    """Serve a model file to the end that it comes to."""
    (folder / "model.py").write_bytes(code if isinstance(code, bytes) else code.encode())
    return modelcloud(folder, "serve", "model.py", "--port", "0", *flags)


@pytest.mark.parametrize(
    ("code", "line", "says"),
    [
        pytest.param(IMPORTS + "def broken(:\n", 3, "syntax error: ", id="syntax"),
        pytest.param(b"n = 1\ns = '\xe9'\n", 2, "accepted: valid Python, in UTF-8", id="encoding"),
        pytest.param("", 1, "no command; accepted: a function under", id="empty file"),
        pytest.param(IMPORTS + SETUP, 4, "no command; accepted: @modelcloud.com", id="no command"),
        pytest.param(
            IMPORTS + COMMAND + COMMAND,
            8,
            "two commands of the name 'go'; the first is at model.py:4; accepted: a name of",
            id="two of one name",
        ),
        pytest.param(
            IMPORTS + COMMAND.replace(', outputs={"r": number}', ""),
            4,
            "the command 'go' has no outputs; accepted: @modelcloud.command(",
            id="no outputs",
        ),
        pytest.param(
            IMPORTS + COMMAND.replace('inputs={"n": number(default=1)}, ', ""),
            4,
            "the command 'go' has no inputs; accepted: @modelcloud.command(",
            id="no inputs",
        ),
        pytest.param(
            IMPORTS + COMMAND.replace("number(default=1)", "int"),
            4,
            "inputs of 'go': 'n': got `int` (meant number?); accepted: a data type",
            id="no data type",
        ),
        pytest.param(
            IMPORTS + COMMAND.replace("default=1", "default=9, max=3"),
            4,
            "number: default is the number 9; accepted: a number of at most 3",
            id="default",
        ),
        pytest.param(
            IMPORTS + COMMAND.replace('"go"', '"setup"'),
            4,
            "'setup' is an address of the server itself; accepted: any command name but",
            id="reserved name",
        ),
        pytest.param(
            IMPORTS + COMMAND.replace("(model, inputs)", "(inputs)"),
            4,
            "the command 'go' cannot be called like this; accepted: ",
            id="parameters",
        ),
    ],
)
def test_a_file_that_cannot_be_served_is_told_with_its_place_and_what_is_accepted(
    tmp_path: Path, code: str | bytes, line: int, says: str
) -> None:
    said = serve(tmp_path, code)
    assert said.status == 1
    (told,) = said.err.splitlines()
    assert told.startswith("modelcloud: ")
    assert says in told
    assert told.endswith(f"({tmp_path / 'model.py'}:{line})")
    assert "Traceback" not in said.out
    assert "Serving at" not in said.out


@pytest.mark.parametrize(
    ("code", "line", "says"),
    [
        (
            "from modelcloud.data_types import numbr\n",
            1,
            "there is no data type 'numbr'; accepted: any, array, boolean,",
        ),
        (
            "from modelcloud import data_types\ndata_types.numbr()\n",
            2,
            "there is no data type 'numbr'; accepted: any, array, boolean,",
        ),
        (
            IMPORTS + "import no_such_library\n",
            3,
            "the model file imports 'no_such_library', which is not there; accepted: modules",
        ),
        (
            GOOD.replace("return options", "raise RuntimeError('no weights')"),
            6,
            "setup raised RuntimeError: no weights",
        ),
        (
            IMPORTS + "import sys\nsys.exit(0)\n",
            4,
            "the model file called sys.exit(0); accepted: code that returns",
        ),
    ],
    ids=["unknown type", "unknown type, dotted", "dependency", "setup", "sys.exit"],
)
def test_what_the_models_own_code_raises_is_told_with_a_traceback_that_starts_in_it(
    tmp_path: Path, code: str, line: int, says: str
) -> None:
    said = serve(tmp_path, code, "--replicas", "1", "--option", "word=x")
    assert said.status == 1
    (told,) = said.err.splitlines()
    assert says in told
    assert told.endswith(f"({tmp_path / 'model.py'}:{line})")
    begin, _, trace = said.out.partition("Traceback (most recent call last):\n")
    assert trace, said.out
    first = trace.splitlines()[0]
    assert f'File "{tmp_path / "model.py"}", line {line}' in first
    assert "Traceback" not in trace
    assert "Serving at" not in begin + trace


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["k=9"], "option k: got the number 9; accepted: a number of at most 5"),
        (["k=many"], "option k: got the text 'many'; accepted: a number of at most 5"),
        (["word=x", "typo=1"], "option typo: got an option that is not declared; accepted: k, w"),
        (["k=2"], "option word: got nothing; accepted: text (it has no default)"),
    ],
)
def test_an_option_that_does_not_fit_is_told(tmp_path: Path, options: list[str], says: str) -> None:
    said = serve(tmp_path, GOOD, *(f"--option={option}" for option in options))
    assert said.status == 1
    (told,) = said.err.splitlines()
    assert told.startswith(f"modelcloud: {says}")
    assert "Traceback" not in said.out
    assert "Serving at" not in said.out


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("absent.py", "'absent.py': no such file; accepted: path/model.py, "),
        ("no_such_module:f", "there is no module 'no_such_module'; accepted: one in the current"),
        ("model.py:absent", "there is no 'absent'; accepted: one of go, setup"),
        ("folder", "the folder 'folder' holds no model; accepted: "),
    ],
)
def test_a_target_that_is_not_there_is_told(tmp_path: Path, target: str, says: str) -> None:
    (tmp_path / "model.py").write_text(GOOD)
    (tmp_path / "folder").mkdir()
    said = modelcloud(tmp_path, "serve", target, "--port", "0")
    assert said.status == 1
    (told,) = said.err.splitlines()
    assert told.startswith(f"modelcloud: {says}")
    assert "Traceback" not in said.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("serve", "TARGET or with --model"),
        ("serve model.py --no-such-flag", "No such option: --no-such-flag"),
        ("serve model.py --port 99999", "accepted: a whole number from 0 to 65535"),
        ("serve model.py --option k", "--option k: accepted: NAME=VALUE"),
        ("serve model.py --strategy x", "'--strategy': 'x' is not one of 'blue_green', 'rolling'"),
        ("serve model.py --max-body 12x", "accepted: bytes, or a number with k, M, G"),
        ("serve model.py --python no-such-python", "'no-such-python' is no program"),
        ("serve model.py --host 192.0.2.1", "192.0.2.1 is not an address of this machine"),
        ("serve model.py --log-dir model.py/logs", "log_dir: 'model.py/logs' cannot be made: "),
        ("serve model.py --tls-cert model.py", "--tls-cert and --tls-key go together"),
        (
            "serve model.py --tls-cert model.py --tls-key model.py",
            "TLS: model.py and model.py: ",
        ),
        (
            "serve model.py --tls-cert model.py --tls-key gone.pem",
            "TLS: gone.pem is not there or cannot be read; accepted: a PEM file",
        ),
        ("update not-an-address", "'not-an-address' is no address"),
        ("absent", "No such command 'absent'"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(tmp_path: Path, arguments: str, says: str) -> None:
    (tmp_path / "model.py").write_text(GOOD)
    said = modelcloud(tmp_path, *arguments.split())
    assert said.status == 2
    (told,) = said.err.splitlines()
    assert told.startswith("modelcloud: ")
    assert says in told
    assert said.out == ""


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that something listens at."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_port_in_use_is_a_failure_that_names_it(tmp_path: Path, taken: int) -> None:
    (tmp_path / "model.py").write_text(GOOD)
    said = modelcloud(tmp_path, "serve", "model.py", "--port", str(taken))
    assert said.status == 1
    assert said.err == (
        f"modelcloud: 127.0.0.1:{taken} is already in use; stop what listens there or choose "
        "another port\n"
    )
    assert said.out == ""


def test_a_server_that_is_not_there_is_a_failure_that_names_it(tmp_path: Path) -> None:
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        for command in ("update", "rollback", "status"):
            said = modelcloud(tmp_path, command, url)
            assert (said.status, said.out) == (1, "")
            (told,) = said.err.splitlines()
            assert told.startswith(f"modelcloud: no answer from {url}: ")
