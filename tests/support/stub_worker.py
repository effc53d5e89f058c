"""A worker that does what its options say, for tests of the node; `main` is its program.

Options: `load_s`, `exit_in_load` (status), `fail` (message), `garbage` (says what is no message),
`hang` (in load, whatever SIGTERM says), `mute` (no pong once ready), `die` (status, once ready),
`deaf` (ignores Stop and SIGTERM), `helper` (starts a process in a session of its own), `starts`
(a file that gets a line per start).
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from modelcloud.dataplane import messages
from modelcloud.dataplane.lifeline import tie_to_parent
from modelcloud.types import State

SIGNATURE: dict[str, Any] = {"options": [], "commands": []}


def main(control_fd: int) -> int:
    tie_to_parent()
    faulthandler.enable()
    control = socket.socket(fileno=control_fd)
    reader = messages.MessageReader(messages.ToWorker)
    options: dict[str, Any] = {}

    def send(message: messages.Message) -> None:
        control.sendall(messages.encode(message))

    while data := control.recv(65536):
        for message in reader.feed(data):
            if isinstance(message, messages.Load):
                options = message.spec.options
                if options.get("garbage"):
                    control.sendall(b"\xff" * 8)
                if not _load(message, send):
                    return 3
                if "die" in options:
                    os._exit(options["die"])
            elif isinstance(message, messages.Ping) and not options.get("mute"):
                send(messages.Pong(seq=message.seq))
            elif isinstance(message, messages.Stop) and not options.get("deaf"):
                return 0
    return 0


def _load(load: messages.Load, send: Any) -> bool:
    options = load.spec.options
    if "starts" in options:
        with Path(options["starts"]).open("a") as starts:
            starts.write(f"{load.worker_id}\n")
    print(f"worker {load.worker_id} loads", flush=True)
    send(messages.Progress(state=State.LOADING))
    if options.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.get("hang"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(3600)
    time.sleep(options.get("load_s", 0.0))
    if "exit_in_load" in options:
        print("the last words", file=sys.stderr, flush=True)
        os._exit(options["exit_in_load"])
    if "fail" in options:
        send(messages.LoadFailed(state=State.LOADING, message=options["fail"], detail="why\nso"))
        return False
    if "helper" in options:
        # Started by a shell that ends: an orphan, in another session and group.
        subprocess.run(["setsid", "-f", "sleep", "3600"], check=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(load.socket)
    send(messages.Ready(signature=SIGNATURE, load_s=0.0))
    return True
