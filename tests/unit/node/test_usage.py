"""What a worker uses is counted with all that came of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from modelcloud.node import reaper
from modelcloud.node.usage import usage_of

#: Starts a process that holds 64 MiB in the way that it is told, and says when it does.
PROGRAM = """
import os, subprocess, sys, time
how = sys.argv[1]
read, write = os.pipe()
if how == "alone" or os.fork() == 0:
    if how != "alone":
        os.setsid()
    if how == "orphan" and os.fork():
        os._exit(0)
    hoard = b"x" * (64 << 20)
    os.write(write, str(os.getpid()).encode())
    if how != "alone":
        time.sleep(600)
hoarder = os.read(read, 20).decode()
if how == "orphan":
    os.wait()
print(hoarder, flush=True)
time.sleep(600)
"""


@pytest.fixture
def adopting() -> Iterator[None]:
    """This process adopts orphans below it, as a node does."""
    reaper._subreaper(True)
    yield
    reaper._subreaper(False)


@pytest.mark.parametrize("how", ["alone", "child", "orphan"])
@pytest.mark.usefixtures("adopting")
def test_memory_is_counted_wherever_it_went(how: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how],
        stdout=subprocess.PIPE, start_new_session=True, env={reaper.TAG: f"usage-{how}/w1"},
    ) as leader:  # fmt: skip
        try:
            assert leader.stdout is not None
            hoarder = int(leader.stdout.readline())
            (used,) = usage_of([leader.pid]).values()
            assert used.memory > 64 << 20
        finally:
            reaper.kill_left_behind(f"usage-{how}")
            if how == "orphan":
                os.waitpid(hoarder, 0)


def test_who_has_ended_and_who_is_somebody_elses_is_left_out() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    ended.wait()
    assert usage_of([ended.pid]) == {}
    assert usage_of([]) == {}
