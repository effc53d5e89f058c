"""A control plane of few words: it does what STUB_CONTROL says, and nothing else."""

from __future__ import annotations

import os
import signal
import socket
import time

from modelcloud.dataplane import messages
from modelcloud.dataplane.lifeline import tie_to_parent
from modelcloud.node.orders import Alive, Answering


def main(control_fd: int) -> int:
    tie_to_parent()
    node = socket.socket(fileno=control_fd)
    does = os.environ["STUB_CONTROL"]
    if does == "die":
        return 3
    node.sendall(messages.encode(Answering()))
    while does == "live":
        node.sendall(messages.encode(Alive()))
        time.sleep(0.01)
    signal.pause()
    return 0
