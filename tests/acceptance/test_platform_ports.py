"""A service with a port of its own: there it sits at the root, as in serve mode.

On a started platform, from outside and in a real browser.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest
from playwright.sync_api import Page, expect

from modelcloud.errors import Conflict, InvalidInput
from support.load import failures, load
from support.markdown import ROOT
from support.served import Served, Shop, shop
from support.server import wait_for

pytestmark = pytest.mark.xdist_group("acceptance")

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def rented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("ports")
    with shop(folder, "--root", EXAMPLES, "--drain", "5") as running:
        yield running


def taken_port() -> socket.socket:
    """Another program's port."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


def free_port() -> int:
    """A port that nobody has."""
    with closing(taken_port()) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def fib(rented: Shop) -> Iterator[Served]:
    """The example, online at a port of its own."""
    served = rented.service()
    version = served.register(
        path=str(EXAMPLES / "fib"), options={"model": "big"}, port=free_port()
    )
    served.deploy(version)
    yield served
    served.admin.delete_service(served.name)


def at_port(served: Served, path: str) -> str:
    """An address at the service's own port."""
    return f"http://127.0.0.1:{served.admin.service(served.name)['port']}{path}"


def test_the_addresses_of_serve_mode_are_at_the_root(fib: Served) -> None:
    client, name = fib.up.client, fib.name
    for path in ("/fib", f"/{name}/fib", f"/{name}/1/fib"):
        assert client.post(at_port(fib, path), json={"n": 10}).json() == {"result": 89}
    assert client.get(at_port(fib, "/fib?n=5")).json() == {"result": 8}
    for path in (f"/predict/{name}", f"/predict/{name}/1"):
        wrapped = client.post(at_port(fib, path), json={"n": 10}).json()
        assert wrapped == {"message": "SUCCESS", "code": 0, "data": {"result": 89}}
    meta = client.get(at_port(fib, "/meta")).json()
    assert client.get(at_port(fib, "/")).json().keys() == meta.keys()
    assert "fib" in {command["name"] for command in meta["commands"]}
    document = client.get(at_port(fib, "/docs.json")).json()
    assert {"/fib", "/setup", "/meta"} <= document["paths"].keys()
    assert document["servers"] == [{"url": "/"}]
    assert "text/html" in client.get(at_port(fib, "/redoc")).headers["content-type"]
    for path in ("/healthz", "/readyz", "/healthcheck"):
        assert client.get(at_port(fib, path)).status_code == 200
    assert client.get(at_port(fib, "/nothing")).status_code == 404
    assert client.get(f"{fib.up.url}/fib").status_code == 404, "it is not the platform's root"
    assert fib.ask(command="fib", body={"n": 10}).json() == {"result": 89}


def test_options_are_changed_there_with_a_token_and_not_without(fib: Served) -> None:
    client, setup = fib.up.client, at_port(fib, "/setup")
    assert {o["name"] for o in client.get(setup).json()["options"]} == {"model", "version"}
    refused = client.post(setup, json={"model": "small"})
    assert refused.status_code == 401
    assert "Bearer" in refused.headers["www-authenticate"]
    assert client.get(at_port(fib, "/rollouts")).status_code == 401
    token = {"authorization": f"Bearer {fib.admin.token}"}
    changed = client.post(setup, json={"model": "small"}, headers=token)
    assert (changed.status_code, changed.json()["success"]) == (200, True), changed.text
    assert client.post(at_port(fib, "/fib"), json={"n": 10}).json() == {"result": 10}
    rollouts = client.get(at_port(fib, "/rollouts"), headers=token).json()["rollouts"]
    assert rollouts[0]["state"] == "succeeded"
    back = client.post(at_port(fib, "/rollback"), headers=token)
    assert back.status_code == 200, back.text
    assert client.post(at_port(fib, "/fib"), json={"n": 10}).json() == {"result": 89}


@pytest.mark.browser
@pytest.mark.parametrize("own", [True, False], ids=["own port", "platform"])
def test_the_docs_page_works_in_a_browser(fib: Served, page: Page, own: bool) -> None:
    base = at_port(fib, "") if own else f"{fib.up.url}/{fib.name}"
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"{base}/redoc")
    command = page.locator("#operations-model-fib")
    command.locator(".opblock-summary").click()
    command.locator("textarea.body-param__text").fill('{"n": 6}')
    command.get_by_role("button", name="Execute").click()
    answer = command.locator(".live-responses-table tr.response")
    expect(answer).to_contain_text("200")
    expect(answer).to_contain_text('"result": 13')
    assert wrong == []

    page.get_by_role("button", name="Authorize").click()
    page.get_by_label("auth-bearer-value").fill(fib.admin.token or "")
    page.locator(".auth-btn-wrapper").get_by_role("button", name="Apply").click()
    page.locator(".auth-btn-wrapper").get_by_role("button", name="Close").click()
    setup = page.locator("#operations-update-setup")
    setup.locator(".opblock-summary").click()
    setup.locator("textarea.body-param__text").fill('{"version": "0.2.0"}')
    setup.get_by_role("button", name="Execute").click()
    expect(setup.locator(".live-responses-table tr.response")).to_contain_text('"success": true')
    assert wrong == []
    assert [one for one in asked if not one.startswith((f"{base}/", "data:", "blob:"))] == []


def test_a_port_is_moved_under_load_and_closed_without_a_loss_at_the_platforms_address(
    rented: Shop,
) -> None:
    served = rented.service()
    served.online()
    name = served.name
    with load(served.up.port, f"/{name}/ask", rate=80.0) as running:
        ports = [free_port(), free_port()]
        for n, port in enumerate(ports):
            record = served.admin.edit_service(name, port=port)
            assert (record["port"], record["port_problem"]) == (port, "")
            assert served.up.client.post(at_port(served, "/ask"), json={}).json()["answer"] == 1
            for old in ports[:n]:
                wait_for("the old one to close", lambda o=old: not is_open(o))  # type: ignore[misc]
        served.admin.edit_service(name, port=None)
        wait_for("it to close", lambda: not is_open(ports[-1]))
    assert failures(running.samples) == []
    served.admin.delete_service(name)


def is_open(port: int) -> bool:
    """Whether somebody listens there."""
    with closing(socket.socket()) as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_a_port_that_another_program_has_is_told_in_words_and_taken_once_it_is_free(
    rented: Shop,
) -> None:
    served = rented.service()
    served.online()
    owner = taken_port()
    port = owner.getsockname()[1]
    record = served.admin.edit_service(served.name, port=port)
    assert f"127.0.0.1:{port}" in record["port_problem"]
    assert "in use" in record["port_problem"]
    assert served.admin.service(served.name)["port_problem"] == record["port_problem"]
    assert served.ask().status_code == 200, "it is reached at the platform's address"
    owner.close()
    wait_for("the port", lambda: not served.admin.service(served.name)["port_problem"])
    assert served.up.client.post(at_port(served, "/ask"), json={}).json()["answer"] == 1
    served.admin.delete_service(served.name)


def test_a_port_that_is_the_platforms_or_another_services_is_refused(fib: Served) -> None:
    taken = fib.admin.service(fib.name)["port"]
    with pytest.raises(Conflict, match=f"port {taken} is taken by another service"):
        fib.admin.create_service("other", "admin", port=taken)
    for own in (fib.up.port, httpx.URL(fib.up.api).port):
        with pytest.raises(InvalidInput, match="the platform's own"):
            fib.admin.create_service("other", "admin", port=own)


def test_a_web_application_needs_a_port_and_has_all_of_it(rented: Shop) -> None:
    pytest.importorskip("flask")
    served = rented.service()
    version = served.register(path=str(EXAMPLES / "flask"), main="server.py:app")
    with pytest.raises(Conflict, match="give the service a port of its own first"):
        served.begin(version)
    served.admin.edit_service(served.name, port=free_port())
    served.deploy(version, replicas=2)
    client = served.up.client
    assert client.get(at_port(served, "/")).text == "Hello World!"
    answer = client.get(at_port(served, "/pisqrt?a=4"))
    assert float(answer.json()["result"]) == pytest.approx(3.5449077)
    assert answer.headers["x-model-version"] == "1"
    assert "404 Not Found" in client.get(at_port(served, "/nothing")).text
    assert served.predict().status_code == 404, "the platform's address has no room for it"
    with pytest.raises(Conflict, match="web application that is online"):
        served.admin.edit_service(served.name, port=None)
    served.done(served.admin.redeploy(served.name, 1))
    assert client.get(at_port(served, "/")).text == "Hello World!"
    served.admin.delete_service(served.name)
    wait_for("the port to close", lambda: not is_open(answer.url.port or 0))
