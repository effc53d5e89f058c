"""A platform that nobody asks for anything costs next to nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from support.online import online
from support.processes import cpu_s, rss

pytestmark = pytest.mark.xdist_group("acceptance")

WATCHED_S = 20.0
#: What the issue asks for, and room for a slower processor: this counts processor time alone.
SHARE = 0.01 * 3
MEMORY = 150 << 20


@pytest.mark.slow
def test_idle_it_uses_hardly_any_processor_time_and_little_memory(tmp_path: Path) -> None:
    with online(tmp_path) as site:
        for version in (site.register(), site.register()):
            site.deploy(version)
        site.restart()  # what registering took is none of an idle platform's
        site.settle()
        (control,) = site.up.pids("control")
        time.sleep(5)
        for pid in (control, site.up.process.pid):
            used, began = cpu_s(pid), time.monotonic()
            time.sleep(WATCHED_S)
            assert (cpu_s(pid) - used) / (time.monotonic() - began) < SHARE
            assert rss(pid) < MEMORY
