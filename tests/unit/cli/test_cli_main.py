"""The command as a user starts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from modelcloud import __version__
from modelcloud.cli.main import app
from support.commands import Run

ROOT: Any = typer.main.get_command(app)
COMMANDS = [
    f"{name} {word}".rstrip()
    for name, command in ROOT.commands.items()
    for word in ("", *getattr(command, "commands", ()))
]


def test_the_installed_command_tells_its_version() -> None:
    command = Path(sys.executable).with_name("modelcloud")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"modelcloud {__version__}\n"
    assert done.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_command_and_each_has_its_own(run: Run, command: str) -> None:
    *family, name = command.split()
    assert f" {name} " in run(*family, "--help").out
    said = run(*family, name, "--help")
    assert (said.status, said.err) == (0, "")
    assert f"modelcloud {command}" in said.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_to_write_after_a_flag_and_fits_a_narrow_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = run(*command.split(), "--help").out.splitlines()
    assert max(map(len, lines)) <= 80
    typed = [line for line in lines if " --" in line and ("<bool>" in line or "<str>" in line)]
    assert [line.split()[1] for line in typed] == ["--help"]  # which is not ours


def test_no_command_is_wrong_usage_and_shows_the_help(run: Run) -> None:
    said = run()
    assert said.status == 2
    assert "serve" in said.out


def test_an_unknown_command_is_one_line(run: Run) -> None:
    said = run("sevre")
    assert said.status == 2
    assert said.err.count("\n") == 1
    assert "sevre" in said.err
