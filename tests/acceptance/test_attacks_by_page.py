"""Attacks through a browser: markup in what a model says of itself, frames, links with settings.

Rows 14 and 15 of the table of attacks, in a real headless Chromium.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from support.server import Server, serve

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("attacks")]

PAYLOADS = [
    "<img src=x onerror=window.owned=1>",
    "</script><script>window.owned=1</script>",
    '"><svg onload=window.owned=1>',
    "<iframe srcdoc='<script>parent.owned=1</script>'></iframe>",
    "[press](javascript:window.owned=1) <javascript:window.owned=1>",
    "![seen](http://TRACKER/seen.png)",
    "<a href='javascript:window.owned=1'>press</a>",
    "<form action=http://TRACKER><button>press</button></form>",
    "<style>@import 'http://TRACKER/x.css';</style>",
    "<base href=http://TRACKER/>",
    "<meta http-equiv=refresh content='0;url=http://TRACKER/'>",
    "{{constructor.constructor('window.owned=1')()}}",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;<img onerror=owned=1>'>",
]
MODEL = """
import modelcloud
from modelcloud.data_types import any, category, number, text

PAYLOADS = …
EVIL = "\\n\\n".join(PAYLOADS)

@modelcloud.setup(options={
    "shown": text(default=EVIL, description=EVIL),
    "chosen": category(PAYLOADS, description=EVIL),
})
def setup(options):
    return EVIL

@modelcloud.command("say", description=EVIL, inputs={
    "text": text(default=EVIL, description=EVIL), "one": category(PAYLOADS, description=EVIL),
    "n": number(default=1, description=EVIL),
}, outputs={"said": any(description=EVIL)})
def say(model, inputs):
    return {"said": model}
"""


class Site:
    """A web server of the attacker: every path gives its page, and what was asked is kept."""

    def __init__(self) -> None:
        self.page = b""
        self.asked = asked = list[str]()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.send_header("content-length", str(len(site.page)))
                self.end_headers()
                self.wfile.write(site.page)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"localhost:{self.server.server_port}"


@pytest.fixture(scope="module")
def evil() -> Iterator[Site]:
    site = Site()
    with site.server:
        threading.Thread(target=site.server.serve_forever, daemon=True).start()
        yield site
        site.server.shutdown()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, evil: Site) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    payloads = [payload.replace("TRACKER", evil.host) for payload in PAYLOADS]
    (folder / "model.py").write_text(MODEL.replace("…", repr(payloads)))
    with serve(folder / "model.py", "--replicas", "1") as running:
        yield running


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    yield page
    page.close()


def test_markup_in_what_a_model_says_of_itself_is_shown_and_never_run(
    server: Server, evil: Site, page: Page
) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    page.goto(f"{server.url}/redoc")
    for operation in ("model-say", "model-say_get", "update-setup"):
        block = page.locator(f"#operations-{operation}")
        block.locator(".opblock-summary").click()
        expect(block.locator(".opblock-body")).to_be_visible()
    say = page.locator("#operations-model-say")
    say.get_by_role("button", name="Execute").click()
    expect(say.locator(".live-responses-table tbody .response-col_status")).to_contain_text("200")
    assert "<img src=x onerror=window.owned=1>" in page.content().replace("&lt;", "<").replace(
        "&gt;", ">"
    ), "the payloads are not on the page, so this test shows nothing"
    for link in page.locator("a:has-text('press')").all():
        link.click(force=True, no_wait_after=True)
    for button in page.locator("button:has-text('press')").all():
        button.click(force=True, no_wait_after=True)
    assert page.evaluate("window.owned") is None
    assert page.url.startswith(f"{server.url}/redoc")
    assert dialogs == []
    assert page.locator("a[href^='javascript:' i]").count() == 0
    assert page.locator("iframe, base, meta[http-equiv=refresh], [onerror], [onload]").count() == 0
    assert evil.asked == [], "somebody elsewhere learned that the page was read"


def test_a_link_to_the_page_cannot_choose_what_it_shows_or_where_it_reports(
    server: Server, page: Page
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    evil = quote(f"{server.url}/say?text=x", safe="")
    page.goto(
        f"{server.url}/redoc?url={evil}&configUrl={evil}&validatorUrl={evil}&oauth2RedirectUrl={evil}"
        f"&urls=[{evil}]#/<img src=x onerror=window.owned=1>"
    )
    expect(page.locator("#operations-model-say")).to_be_visible()
    assert page.evaluate("window.owned") is None
    assert f"{server.url}/docs.json" in asked
    assert [one for one in asked if one.startswith(f"{server.url}/say")] == []


def test_the_policy_of_the_page_stops_a_script_that_got_in(server: Server, page: Page) -> None:
    """The second wall: had an attacker got markup in, the browser would not run or send it."""
    page.goto(f"{server.url}/redoc")
    page.evaluate(
        """() => {
            document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.owned=1>');
            const script = document.createElement('script');
            script.textContent = 'window.owned = 1';
            document.body.append(script);
        }"""
    )
    sent = page.evaluate(
        "fetch('http://127.0.0.1:1/x', {mode: 'no-cors'}).then(() => 'sent', error => `${error}`)"
    )
    assert "Failed to fetch" in sent
    blocked = page.evaluate(
        """() => new Promise(resolve => {
            document.addEventListener('securitypolicyviolation', e => resolve(e.blockedURI));
            fetch('http://127.0.0.1:1/y').catch(() => 0);
        })"""
    )
    assert blocked == "http://127.0.0.1:1/y"
    assert page.evaluate("window.owned") is None


def test_no_page_of_another_origin_can_frame_it_or_read_or_change_anything(
    server: Server, evil: Site, page: Page
) -> None:
    evil.page = f"""<!DOCTYPE html><title>evil</title><iframe src="{server.url}/redoc"></iframe>
    <form id=form method=post action="{server.url}/setup" enctype="text/plain" target=sink>
    <input name='{{"chosen": 1, "x": "' value='"}}'></form><iframe name=sink></iframe>""".encode()

    before = server.get("/meta").json()["generation"]
    page.goto(f"http://{evil.host}/")
    framed = page.frames[1]
    assert framed.locator("#swagger-ui").count() == 0, "it was framed"
    assert (
        page.evaluate(
            """async url => {
            const tries = [];
            for (const [path, init] of [
                ['/meta', {}], ['/setup', {}], ['/rollouts', {}],
                ['/setup', {method: 'POST', body: '{}'}],
                ['/setup', {method: 'POST', body: '{}', mode: 'no-cors'}],
                ['/rollback', {method: 'POST', mode: 'no-cors'}],
                ['/setup', {method: 'POST', body: '{}',
                            headers: {'content-type': 'application/json'}}],
            ]) {
                tries.push(await fetch(url + path, init).then(
                    answer => answer.text().then(text => text.length), () => 0));
            }
            return tries;
        }""",
            server.url,
        )
        == [0] * 7
    )
    with page.expect_response(f"{server.url}/setup") as sent:
        page.evaluate("document.getElementById('form').submit()")
    assert sent.value.status == 403
    assert server.get("/meta").json()["generation"] == before
    assert len(server.get("/rollouts").json()["rollouts"]) == 1


@pytest.mark.parametrize(
    "path", ["/redoc", "/redoc/init.js", "/redoc/swagger-ui.css", "/redoc/swagger-ui-bundle.js"]
)
def test_every_file_of_the_page_forbids_frames_guesses_of_its_type_and_foreign_scripts(
    server: Server, path: str
) -> None:
    headers = server.get(path).headers
    policy = dict(
        part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["form-action"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/", "/meta", "/setup", "/docs.json", "/nowhere<script>", "/say"])
def test_what_a_model_words_is_never_sent_as_a_page(server: Server, path: str) -> None:
    assert server.get(path).headers["content-type"] == "application/json"
