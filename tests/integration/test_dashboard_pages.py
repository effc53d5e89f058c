"""Every page: in every width, theme and language, accessible, and drawn without an error."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from modelcloud.dashboard.views.routes import ROUTES
from support.dashboard import picture, show, sign_in
from support.up import PASSWORD, Up, up

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("dashboard")]

ROOT = Path(__file__).parents[2]
AXE = ROOT / ".cache/axe/node_modules/axe-core/axe.min.js"
EXAMPLES = ROOT / "examples"

PLACES = {"service": "m261", "version": "1", "rollout": "1", "group": "scoring",
          "monitor": "daily"}  # fmt: skip
PAGES = sorted(path.format(**PLACES) for path in ROUTES)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A platform with two services, a group with members, a failed rollout, some traffic."""
    folder = tmp_path_factory.mktemp("pages")
    for example in ("m261", "fib"):
        shutil.copytree(EXAMPLES / example, folder / example)
    with up(folder / "data", "--root", folder) as running:
        admin = running.admin
        for user, level in (("ada", "manage"), ("ben", "modify"), ("cleo", "read")):
            admin.create_user(user, PASSWORD)
            if user == "ada":
                admin.create_group("scoring", "Scores of accounts")
            admin.share("scoring", user, level)
        admin.register("m261", path=str(folder / "m261"), group="scoring")
        options = {"model": "big", "version": "0.0.1"}
        admin.register("fib", path=str(folder / "fib"), group="admin", options=options)
        admin.register("fib", path=str(folder / "fib"), group="admin", enabled=False)
        for service in ("m261", "fib"):
            accepted = admin.deploy(service, 1, instance_type="small")
            admin.wait(accepted["rollout"]["id"])
        (folder / "produced").mkdir()
        admin.create_monitor(
            "m261", "daily", type="local", remote_path=str(folder / "produced"),
            remote_model_name="m261.tar.gz", remote_donefile_name="donefile",
            deploy={"instance_type": "small"},
        )  # fmt: skip
        admin.set_traffic("m261", labels={"stable": 1})
        for n in range(20):
            assert running.predict("fib", {"n": n % 9}).status_code == 200
        yield running


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


LOOKS: list[dict[str, Any]] = [
    {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light", "locale": "en-GB"},
    {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "locale": "zh-CN"},
]


@pytest.fixture(scope="module", params=LOOKS, ids=["wide-light-en", "narrow-dark-zh"])
def context(request: pytest.FixtureRequest, browser: Browser, platform: Up) -> Iterator[Any]:
    context = browser.new_context(**request.param)
    context.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    page = context.new_page()
    page.goto(f"{platform.api}/sign-in")
    page.locator("[name=user]").fill("admin")
    page.locator("[name=password]").fill(PASSWORD)
    page.locator("form button").click()
    expect(page.locator("#main h1")).to_be_visible()
    page.close()
    yield context
    context.close()


def judge(page: Page) -> list[str]:
    """What axe-core finds that keeps somebody from using a page."""
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{one['id']} ({one['impact']}): {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("path", [*PAGES, "/nowhere", "/password"])
def test_a_page_is_drawn_without_an_error_and_is_accessible(
    platform: Up, context: BrowserContext, path: str
) -> None:
    if not AXE.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("axe-core is not there; run scripts/get-axe")
        pytest.skip("axe-core is not there; run scripts/get-axe")
    wrong: list[str] = []
    page = context.new_page()
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            None
            if asked.url.startswith((platform.api, platform.api.replace("http", "ws"), "data:"))
            else wrong.append(f"it asks {asked.url}")
        ),
    )
    page.goto(f"{platform.api}{path}")
    expect(page.locator("h1")).to_be_visible()
    if page.locator("[data-chart]").count():
        expect(page.locator("[data-chart] canvas").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is too wide"
    assert judge(page) == []
    if path == "/nowhere":
        wrong = [text for text in wrong if "404" not in text]
    assert wrong == []
    width = page.viewport_size["width"] if page.viewport_size else 0
    picture(page, f"{path.strip('/').replace('/', '-') or 'overview'}-{width}")
    page.close()


@pytest.mark.parametrize("path", ["/users", "/instance-types", "/node", "/audit"])
def test_what_is_for_administrators_is_neither_offered_nor_shown_to_others(
    platform: Up, browser: Browser, path: str
) -> None:
    page = browser.new_page()
    sign_in(page, platform, "cleo")
    expect(page.get_by_text("Administration")).to_have_count(0)
    show(page, platform, path)
    if path in {"/users", "/audit"}:
        expect(page.get_by_text("this needs an administrator of the instance")).to_be_visible()
    expect(page.locator("#main button")).to_have_count(0)
    page.close()
