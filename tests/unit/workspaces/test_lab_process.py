"""A lab is asked with a deadline, whatever it does, and one that is stopped does not start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from modelcloud.dataplane.confinement import Confinement
from modelcloud.errors import Conflict
from modelcloud.workspaces import process
from modelcloud.workspaces.enter import Lab
from modelcloud.workspaces.process import LabProcess
from support.loops import on_a_loop

LAB = Lab(
    files="/nowhere", own="/nowhere", socket="/nowhere/s", base="/w/x/", token="t",
    confinement=Confinement(), environment={},
)  # fmt: skip


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begin an answer, and never come to its end."""
    while not writer.is_closing():
        writer.write(b"H")
        await asyncio.sleep(0.01)


@on_a_loop
async def test_a_lab_that_never_ends_its_answer_has_given_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "ANSWER_S", 0.2)
    place = str(tmp_path / "s")
    server = await asyncio.start_unix_server(drip, place)
    assert await LabProcess(replace(LAB, socket=place)).activity() is None
    server.close()


@on_a_loop
async def test_one_that_was_stopped_before_it_started_does_not_start() -> None:
    lab = LabProcess(LAB)
    await lab.stop()
    with pytest.raises(Conflict, match="stopped as it started"):
        await lab.start()
    assert lab.pid == 0
