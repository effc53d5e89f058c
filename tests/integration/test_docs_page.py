"""The docs page in a real browser, which may reach this server and nothing else."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from modelcloud.client import Client
from modelcloud.config import ServeConfig
from modelcloud.serve.launch import spawn_node
from support.server import wait_for

pytestmark = pytest.mark.browser

MODEL = """
import modelcloud
from modelcloud.data_types import category, number

@modelcloud.setup(options={"by": category(["two", "three"])})
def setup(options):
    return {"two": 2, "three": 3}[options["by"]]

@modelcloud.command("times", inputs={"n": number(default=21)}, outputs={"result": number},
                    description="<img src=x onerror=document.title='owned'>")
def times(model, inputs):
    return model * inputs["n"]
"""
START_S = 30.0


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Address of a served model, on a port that the system chose."""
    (tmp_path / "model.py").write_text(MODEL)
    config = ServeConfig(target=str(tmp_path / "model.py"), port=0)
    with spawn_node(config, stdout=subprocess.PIPE) as node:
        assert node.stdout is not None
        said = ""
        for line in node.stdout:
            said += line.decode()
            if found := re.search(r"docs\s+(http://\S+)/redoc", said):
                break
        else:
            pytest.fail(said)
        yield found[1]
        node.terminate()
        assert b"Stopped" in node.stdout.read()
        assert node.wait(START_S) == 0


def test_a_command_and_a_live_update_are_tried_out_on_the_page(url: str, page: Page) -> None:
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))

    page.goto(f"{url}/redoc")
    times = page.locator("#operations-model-times")
    times.locator(".opblock-summary").click()
    body = times.locator("textarea.body-param__text")
    expect(body).to_have_value(re.compile(r'"n": 21'))
    body.fill('{"n": 4}')
    times.get_by_role("button", name="Execute").click()
    answer = times.locator(".live-responses-table tr.response")
    expect(answer).to_contain_text("200")
    expect(answer).to_contain_text('"result": 8')

    setup = page.locator("#operations-update-setup")
    setup.locator(".opblock-summary").click()
    setup.locator("textarea.body-param__text").fill('{"by": "three"}')
    setup.get_by_role("button", name="Execute").click()
    answer = setup.locator(".live-responses-table tr.response")
    expect(answer).to_contain_text('"success": true')
    with Client(url) as client:
        assert client.predict("times", n=4) == {"result": 12}

    assert wrong == []
    assert [one for one in asked if not one.startswith((f"{url}/", "data:", "blob:"))] == []


def test_what_a_model_says_of_itself_is_shown_and_not_run(url: str, page: Page) -> None:
    page.goto(f"{url}/redoc")
    page.locator("#operations-model-times .opblock-summary").click()
    expect(page.locator("#operations-model-times .opblock-description")).to_be_visible()
    assert page.title() == "API of this model"


def test_it_fits_a_phone_and_follows_the_systems_colours(url: str, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    page.goto(f"{url}/redoc")
    page.locator("#operations-model-times .opblock-summary").click()
    expect(page.locator("#operations-model-times textarea.body-param__text")).to_be_visible()
    width = "document.documentElement.scrollWidth"
    wait_for("the page to fit", lambda: page.evaluate(width) <= 390)
    root = page.locator("html")
    expect(root).to_have_class("dark-mode")
    page.emulate_media(color_scheme="light")
    expect(root).not_to_have_class("dark-mode")
