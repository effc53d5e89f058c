"""The command line, called in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from modelcloud.cli import follow
from modelcloud.cli.main import main
from support.commands import Run, Said
from support.fake_server import FakeServer, fake_server


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Said:
        status = main(arguments)
        out, err = capsys.readouterr()
        return Said(status, out, err)

    return run


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setattr(follow, "POLL_S", 0.001)
    with fake_server() as server:
        yield server
