"""Two hundred services, a thousand versions, a hundred thousand lines: pages open all the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from modelcloud.config import PlatformConfig
from modelcloud.control import bootstrap
from modelcloud.control.observe.log_files import deployment_log
from modelcloud.store.store import Store
from modelcloud.store.tables import Artifact, Service, Version
from support.dashboard import show, sign_in
from support.platform import SIGNATURE
from support.up import PASSWORD, Up, up

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("dashboard")]

SERVICES, VERSIONS, LINES = 200, 1000, 100_000


def fill(tx: Session) -> None:
    """`s000` to `s199`; the first one has all the versions."""
    tx.add(Artifact(digest="d", size=1, files=1, created_at=0))
    for number in range(SERVICES):
        tx.add(
            Service(
                name=f"s{number:03}", group_id=1, description=f"number {number}", sticky=None,
                created_by="admin", created_at=0,
            )
        )  # fmt: skip
    tx.flush()
    for number in range(1, VERSIONS + 1):
        tx.add(
            Version(
                service_id=1, number=number, artifact="d", main="model.py", runtime="function",
                options={}, metrics={"auc": 0.5}, curves={}, signature=SIGNATURE, origin={},
                created_by="admin", created_at=0,
            )
        )  # fmt: skip


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    data = tmp_path_factory.mktemp("many") / "data"
    password = data.parent / "password"
    password.write_text(PASSWORD)
    bootstrap.prepare(PlatformConfig(data=str(data)), password)
    store = Store(f"sqlite:///{data / 'modelcloud.db'}")

    async def work() -> None:
        await store.transact(fill)
        await store.close()

    asyncio.run(work())
    log = deployment_log(data / "logs" / "services", "s000")
    log.parent.mkdir(parents=True)
    with log.open("w") as file:
        for number in range(LINES):
            file.write(f"2026-01-01T00:00:00.000Z rollout 1 | line {number}\n")
    with up(data) as running:
        yield running


def test_only_what_is_looked_at_is_in_the_browser(platform: Up, page: Page) -> None:
    sign_in(page, platform, at="/services")
    expect(page.locator(".card")).to_have_count(24)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator(".card")).to_have_count(48)
    page.get_by_label("Search services").fill("number 199")
    expect(page.locator(".card")).to_have_count(1)
    show(page, platform, "/services/s000/history")
    expect(page.locator("tbody tr")).to_have_count(25)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator("tbody tr")).to_have_count(125)
    show(page, platform, "/services/s000/logs")
    expect(page.locator(".lines li")).to_have_count(300)
    expect(page.locator(".lines li").last).to_contain_text(f"line {LINES - 1}")
    page.get_by_role("button", name="Earlier lines").click()
    expect(page.locator(".lines li")).to_have_count(600)
    expect(page.locator(".lines li").first).to_contain_text(f"line {LINES - 600}")


def test_many_cost_a_page_hardly_more_than_few(platform: Up, page: Page) -> None:
    """On the same machine, at the same time: a list of all beside a page of almost nothing."""
    sign_in(page, platform)

    def seconds(at: str) -> float:
        times = []
        for _ in range(5):
            began = time.monotonic()
            show(page, platform, at)
            times.append(time.monotonic() - began)
        return min(times)

    little = seconds("/instance-types")
    for at in ("/services", "/", "/services/s000/history", "/services/s000/logs"):
        assert seconds(at) < 5 * little + 0.5, at
