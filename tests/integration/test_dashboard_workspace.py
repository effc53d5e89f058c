"""The first seed's tutorials in a browser: a workspace, a model in a notebook, a version online."""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from support.dashboard import show, sign_in
from support.load import failures, load
from support.server import wait_for
from support.up import PASSWORD, Up, up

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("workspace"),
    pytest.mark.timeout(400),
]

SHOTS = os.environ.get("MODELCLOUD_SCREENSHOTS", "")
#: For JupyterLab to start, for its page to be drawn, for all cells to run.
LAB_MS = 120_000


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    data = tmp_path_factory.mktemp("notebooks") / "data"
    with up(data, "--workspaces", "2", "--workspace-port", "0") as running:
        admin = running.admin
        admin.create_group("scoring")
        for user, level in (("ada", "modify"), ("ben", "modify"), ("cleo", "read")):
            admin.create_user(user, PASSWORD)
            admin.share("scoring", user, level)
        yield running


def opened(page: Page) -> Page:
    """JupyterLab, in the tab that the page opens it in."""
    link = page.get_by_role("link", name="Open JupyterLab")
    expect(link).to_be_visible(timeout=LAB_MS)
    with page.context.expect_page() as found:
        link.click()
    lab = found.value
    lab.set_default_timeout(LAB_MS)
    expect(lab.locator(".jp-DirListing-item", has_text="tutorial.ipynb")).to_be_visible(
        timeout=LAB_MS
    )
    return lab


def test_a_model_is_made_tried_saved_registered_and_replaced_while_it_serves(
    platform: Up, page: Page
) -> None:
    # tutorial 1: a workspace in a group
    sign_in(page, platform, "ada")
    page.get_by_role("link", name="Workspace", exact=True).first.click()
    page.get_by_label("Group").select_option("scoring")
    expect(page.get_by_text("Folders of scoring that can be registered")).to_be_visible()
    page.get_by_role("button", name="Start", exact=True).click()
    lab = opened(page)
    assert lab.url.partition("/w/")[0] != platform.api, "an origin of its own"

    # tutorials 2 to 4: a model, tried in a cell, served from it, saved
    lab.locator(".jp-DirListing-item", has_text="tutorial.ipynb").dblclick()
    expect(lab.locator(".jp-Notebook .jp-CodeCell").first).to_be_visible(timeout=LAB_MS)
    expect(lab.get_by_text("| Idle").first).to_be_visible(timeout=LAB_MS)
    lab.get_by_role("menuitem", name="Run", exact=True).click()
    lab.get_by_text("Run All Cells", exact=True).click()
    outputs = lab.locator(".jp-OutputArea-output")
    for said in ("model1 result: 89", "big: {'result': 89}", "small: {'result': 10}",
                 "Writing fib/model.py"):  # fmt: skip
        expect(outputs.filter(has_text=said).first).to_be_visible(timeout=LAB_MS)
    lab.keyboard.press("Control+s")
    (notebook,) = (platform.data / "workspaces").glob("*/tutorial.ipynb")
    wait_for("what was saved", lambda: "'result': 89" in notebook.read_text())
    if SHOTS:
        lab.screenshot(path=f"{SHOTS}/jupyterlab.png")

    # tutorial 5: registered with one click
    expect(page.get_by_text("model.py", exact=True)).to_be_visible()
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/workspace.png")
    page.get_by_role("button", name="Register: fib").click()
    expect(page.get_by_role("heading", name="fib version 1")).to_be_visible(timeout=LAB_MS)

    # tutorial 6: online, with its docs page
    page.get_by_role("button", name="Deploy").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Instance type").select_option("small")
    dialog.get_by_role("button", name="Deploy").click()
    expect(page.locator(".badge").first).to_have_text("succeeded", timeout=LAB_MS)
    show(page, platform, "/services/fib")
    docs = page.locator("a[href$='/fib/redoc']")
    address = docs.get_attribute("href")
    assert address is not None
    page.goto(address)
    expect(page.get_by_role("button", name="post /fib", exact=True)).to_be_visible()

    # tutorial 7: big → small while it is asked, and back
    def asked() -> int:
        answer = httpx.post(f"{platform.url}/fib/fib", json={"n": 10})
        return int(answer.json()["result"])

    assert asked() == 89
    with load(platform.port, "/fib/fib", {"n": 7}, rate=20) as running:
        show(page, platform, "/services/fib")
        page.get_by_label("What to do with version 1").click()
        page.get_by_role("button", name="Change options").click()
        dialog.get_by_label("model").fill("small")
        dialog.get_by_role("button", name="Update").click()
        expect(page.locator(".badge").first).to_have_text("succeeded", timeout=LAB_MS)
        assert asked() == 10
        page.get_by_role("button", name="Roll back").click()
        expect(page.get_by_role("heading", name="Rollout #3")).to_be_visible()
        expect(page.locator(".badge").first).to_have_text("succeeded", timeout=LAB_MS)
        assert asked() == 89
    assert failures(running.samples) == []

    # saved again, registered again: the next version
    show(page, platform, "/workspace")
    page.get_by_role("button", name="Under another name: fib").click()
    dialog.get_by_label("Service name").fill("no name")
    dialog.get_by_role("button", name="Register").click()
    expect(page.get_by_role("alert").first).to_contain_text("1 to 63 letters, digits")
    page.get_by_role("button", name="Register: fib").click()
    expect(page.get_by_role("heading", name="fib version 2")).to_be_visible(timeout=LAB_MS)

    show(page, platform, "/workspace")
    page.get_by_role("button", name="Stop: ada").click()
    dialog.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_visible()
    assert platform.admin.workspaces() == []
    assert notebook.exists()


def test_a_script_in_a_notebooks_page_can_do_nothing_on_the_dashboard(
    platform: Up, page: Page
) -> None:
    sign_in(page, platform, "ben", at="/workspace?group=scoring")
    page.get_by_role("button", name="Start", exact=True).click()
    lab = opened(page)
    assert "modelcloud_session" not in lab.evaluate("document.cookie")
    sent = lab.evaluate(
        """async (api) => {
            const tried = [];
            for (const init of [{credentials: 'include'}, {mode: 'no-cors', method: 'POST'}])
                tried.push(await fetch(`${api}/sign-out`, init).then(() => 'sent', e => e.name));
            tried.push(await new Promise(done => {
                const socket = new WebSocket(`${api.replace('http', 'ws')}/_nicegui_ws/socket.io/`);
                socket.onopen = () => done('open');
                socket.onerror = () => done('closed');
            }).catch(error => error.name));
            return tried;
        }""",
        platform.api,
    )
    assert sent == ["TypeError", "TypeError", "closed"]
    framed = lab.evaluate(
        """(api) => new Promise(done => {
            const frame = document.createElement('iframe');
            frame.onload = () => { try { done(frame.contentDocument.body.innerText) }
                                   catch (error) { done(error.name) } };
            frame.src = api;
            document.body.append(frame);
        })""",
        platform.api,
    )
    assert framed == "TypeError", "no document of its own origin"
    (frame,) = (one for one in lab.frames if one.parent_frame is not None)
    assert frame.url == "chrome-error://chromewebdata/", "the dashboard refuses to be framed"
    show(page, platform, "/workspace")  # who is signed in still is
    page.get_by_role("button", name="Stop: ben").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_visible()


def test_only_groups_that_one_may_modify_can_be_chosen(platform: Up, page: Page) -> None:
    sign_in(page, platform, "cleo", at="/workspace")
    groups = page.get_by_label("Group").locator("option")
    expect(groups).to_have_text(["cleo"])
