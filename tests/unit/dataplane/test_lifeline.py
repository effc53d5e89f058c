"""A child ends with its parent, with and without a pipe for a leash."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

#: Starts a helper, says both process ids, then keeps the interpreter to itself.
CHILD = """
import os, re, subprocess
from modelcloud.dataplane.lifeline import tie_to_parent
tie_to_parent()
helper = subprocess.Popen(["sleep", "600"])
print(os.getpid(), helper.pid, flush=True)
assert os.read(0, 1) == b""
re.match("(a+)+$", "a" * 60 + "b")
"""
PARENT = """
import subprocess, sys, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True,
                         stdin=subprocess.PIPE if sys.argv[2] == "pipe" else subprocess.DEVNULL)
child.wait()
"""


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return True


@pytest.mark.parametrize("stdin", ["pipe", "nothing"])
def test_a_child_ends_with_its_parent_and_by_a_pipe_its_helpers_too(stdin: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD, stdin], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child, helper = map(int, parent.stdout.readline().split())
        parent.kill()
    both = [child, helper] if stdin == "pipe" else [child]
    give_up = time.monotonic() + 30
    while not all(map(ended, both)):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    if stdin != "pipe":
        subprocess.run(["kill", str(helper)], check=True)
