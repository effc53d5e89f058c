"""Markup in what models, users and logs say: shown as it is, and never run (attacks, row 14)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from support.dashboard import show, sign_in
from support.up import Up, up

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("dashboard")]

PAYLOADS = [
    "<img src=x onerror=window.owned=1>",
    "</script><script>window.owned=1</script>",
    '"><svg onload=window.owned=1>',
    "<iframe srcdoc='<script>parent.owned=1</script>'></iframe>",
    "' onfocus=window.owned=1 autofocus x='",
    "<a href='javascript:window.owned=1'>press</a>",
    "<form action=http://127.0.0.1:1/><button>press</button></form>",
    "<base href=http://127.0.0.1:1/>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:1/'>",
    "{{constructor.constructor('window.owned=1')()}}",
    "`${window.owned=1}` &lt;img src=x onerror=window.owned=1&gt;",
]
EVIL = "\n".join(PAYLOADS)
MODEL = """
import modelcloud
from modelcloud.data_types import any, category, number, text

EVIL = …

@modelcloud.setup(options={
    "shown": text(default=EVIL, description=EVIL), "one": category(EVIL.split(chr(10))),
})
def setup(options):
    print(EVIL, flush=True)
    return EVIL

@modelcloud.command("say", description=EVIL, inputs={
    "text": text(default=EVIL, description=EVIL),
    "one": category(EVIL.split(chr(10)), description=EVIL),
}, outputs={"said": any(description=EVIL)})
def say(model, inputs):
    return {"said": {"<img src=x onerror=window.owned=1>": EVIL}}
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("content")
    model: Path = folder / "model"
    model.mkdir()
    (model / "model.py").write_text(MODEL.replace("…", repr(EVIL)))
    (model / "metrics.json").write_text(json.dumps({payload: payload for payload in PAYLOADS}))
    lines = "\n".join(f"{n},{n}" for n in range(3))
    (model / "history.csv").write_text(f'step,"{PAYLOADS[0]}"\n{lines}\n')
    with up(folder / "data", "--root", folder) as running:
        admin = running.admin
        admin.create_group("team", EVIL)
        admin.register("evil", path=str(model), group="team", description=EVIL)
        admin.edit_service("evil", description=EVIL)
        admin.wait(admin.deploy("evil", 1, instance_type="small")["rollout"]["id"])
        admin.create_token(PAYLOADS[0], "read")
        admin.create_instance_type("odd", description=EVIL, cpu=1)
        yield running


@pytest.mark.parametrize(
    "path",
    ["/", "/services", "/services?group=team", "/services/evil", "/services/evil/try",
     "/services/evil/history", "/services/evil/traffic", "/services/evil/metrics",
     "/services/evil/edit", "/services/evil/logs?version=1", "/services/evil/versions/1",
     "/rollouts/1", "/groups", "/groups/team", "/tokens", "/instance-types", "/audit",
     "/services/<img src=x onerror=window.owned=1>", "/services?q=\"><svg onload=window.owned=1>",
     "/register?service=\"><svg onload=window.owned=1>"],
)  # fmt: skip
def test_what_others_say_is_shown_and_never_run(platform: Up, page: Page, path: str) -> None:
    sign_in(page, platform)
    asked: list[str] = []
    dialogs: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    show(page, platform, path)
    if path == "/services/evil/try":
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("#answer")).to_contain_text("onerror=window.owned=1")
    if path == "/services/evil":
        page.get_by_role("button", name="Deploy").click()
        expect(page.get_by_role("dialog")).to_be_visible()
    if path == "/services/evil/logs?version=1":
        expect(page.locator(".lines")).to_contain_text("<img src=x onerror=window.owned=1>")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("window.owned") is None
    assert page.url.startswith(platform.api)
    assert dialogs == []
    strange = page.locator(
        "iframe, base, meta[http-equiv], [onerror], [onload], [onfocus], a[href^='javascript:' i]"
    )
    assert strange.count() == 0
    assert page.locator("form[action^=http]").count() == 0
    here = (platform.api, platform.api.replace("http", "ws"), "data:")
    assert [url for url in asked if not url.startswith(here)] == []
