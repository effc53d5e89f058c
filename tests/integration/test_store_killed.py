"""A program that is killed in the middle of a transaction leaves nothing of it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

from modelcloud.store.store import Store
from modelcloud.store.tables import User

_HALF = """
import asyncio, os, signal, sys
from modelcloud.store.store import Store
from modelcloud.store.tables import User

def work(tx):
    for number in range(2000):
        tx.add(User(name=f"user{number}", password_hash="x" * 1000, created_at=0.0))
    tx.flush()
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(Store(sys.argv[1]).transact(work))
"""


def test_a_killed_writer_leaves_nothing_half_done_and_locks_nobody_out(
    database_url: str, store: Store
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _HALF, database_url], capture_output=True, timeout=60, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert asyncio.run(store.read(lambda tx: tx.query(User).count())) == 0
    asyncio.run(
        store.transact(lambda tx: tx.add(User(name="ann", password_hash="", created_at=0.0)))
    )
    assert asyncio.run(store.read(lambda tx: tx.query(User).count())) == 1
