"""Fixtures that any test may ask for."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.programs import program

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from modelcloud.store.store import Store
    from support.postgres import Postgres
    from support.stores import Databases

#: For a page to show what it is to show.
BROWSER_S = 30.0


@pytest.fixture(autouse=True)
def _streams_outlive_a_server_of_another_test() -> None:
    """A web server that ended in this process makes sse-starlette end every later stream too."""
    streams = sys.modules.get("sse_starlette.sse")
    if streams is not None:
        streams.AppStatus.should_exit = False
        streams._thread_state.__dict__.clear()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium that Playwright can drive (`executable_path`)."""
    return program("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    """A page of a headless browser, with generous deadlines."""
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"],
        )
        page = browser.new_page()
        page.set_default_timeout(BROWSER_S * 1000)
        expect.set_options(timeout=BROWSER_S * 1000)
        yield page
        browser.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, one for each worker of a test run."""
    from support.postgres import postgres_server

    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Databases:
    """Makes databases that have the tables of the store."""
    from support.stores import Databases

    return Databases(tmp_path_factory.mktemp("databases"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> str:
    """URL of a migrated, empty store; the test runs once on each database."""
    if request.param == "sqlite":
        return databases.sqlite(tmp_path)
    return databases.postgres(request.getfixturevalue("postgres"))


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """A migrated, empty store; the test runs once on each database."""
    from modelcloud.store.store import Store

    store = Store(database_url)
    yield store
    asyncio.run(store.close())
