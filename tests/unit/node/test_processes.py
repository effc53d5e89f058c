"""Words, environment and state of child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from modelcloud.node.processes import child_env, describe_exit, is_stopped


@pytest.mark.parametrize(
    ("code", "oom", "words"),
    [
        (0, False, "exited with status 0"),
        (9, False, "exited with status 9"),
        (-signal.SIGSEGV, False, "crashed with a segfault (SIGSEGV)"),
        (-signal.SIGKILL, False, "killed by SIGKILL"),
        (-signal.SIGKILL, True, "killed by SIGKILL (out of memory?)"),
        (-signal.SIGTERM, True, "killed by SIGTERM"),
        (-signal.SIGRTMIN - 3, False, f"killed by signal {signal.SIGRTMIN + 3}"),
    ],
)
def test_an_exit_is_told_in_words(code: int, oom: bool, words: str) -> None:
    assert describe_exit(code, oom=oom) == words


def test_a_child_gets_the_environment_without_the_secret() -> None:
    environ = {"PATH": "/bin", "TOKEN": "s3cret", "OTHER": "not s3cret"}
    assert child_env(environ, tag="n/w1", secret="s3cret", variables={"A": "b"}) == {
        "PATH": "/bin",
        "OTHER": "not s3cret",
        "A": "b",
        "PYTHONUNBUFFERED": "1",
        "MODELCLOUD_CHILD": "n/w1",
    }
    assert child_env({"EMPTY": ""}, tag="", secret="", variables={})["EMPTY"] == ""


def test_a_stopped_process_is_told_from_a_running_one() -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
    with subprocess.Popen([sys.executable, "-c", program]) as child:
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        assert is_stopped(child.pid)
        child.send_signal(signal.SIGCONT)
    assert not is_stopped(os.getpid())
    assert not is_stopped(child.pid)
