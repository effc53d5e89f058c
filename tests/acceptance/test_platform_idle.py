"""A platform that nobody asks for anything costs next to nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.dashboard import sign_in
from support.online import online
from support.processes import cpu_s, rss

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.xdist_group("acceptance")

WATCHED_S = 20.0
#: What the issue asks for, and room for a slower processor: this counts processor time alone.
SHARE = 0.01 * 3
MEMORY = 150 << 20
#: What pages are made with, once the first one is opened.
PAGES = 100 << 20


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


@pytest.mark.slow
@pytest.mark.browser
def test_pages_cost_nothing_before_one_is_opened_and_once_all_are_closed(
    tmp_path: Path, page: Page
) -> None:
    with online(tmp_path) as site:
        (control,) = site.up.pids("control")
        without = rss(control)
        sign_in(page, site.up, at="/services")
        assert rss(control) - without < PAGES
        page.context.close()
        time.sleep(15)  # for a browser to come back to its page
        used, began = cpu_s(control), time.monotonic()
        time.sleep(WATCHED_S)
        assert (cpu_s(control) - used) / (time.monotonic() - began) < SHARE
