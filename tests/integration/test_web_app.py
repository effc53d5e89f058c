"""A web application as the target of `serve`: the same processes, the same live update."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from support.load import failures, load
from support.raw import connect, get
from support.server import Server, serve, wait_for

pytestmark = pytest.mark.xdist_group("wsgi")

APP = """
    import os

    from flask import Flask, Response, jsonify, redirect, request

    VERSION = 1
    app = Flask(__name__)

    @app.get("/")
    def home():
        return f"<p>version {VERSION}</p>"

    @app.route("/pisqrt", methods=["GET", "POST"])
    def pisqrt():
        a = float(request.args.get("a") or request.get_json()["a"])
        return jsonify(result=(a * 3.141592653589793) ** 0.5, version=VERSION)

    @app.route("/items/<name>", methods=["PUT", "DELETE", "PATCH"])
    def items(name):
        return {"method": request.method, "name": name, "body": request.get_data(as_text=True)}

    @app.get("/moved")
    def moved():
        answer = redirect("/")
        answer.set_cookie("a", "b")
        answer.set_cookie("c", "d")
        return answer

    @app.get("/nothing")
    def nothing():
        return Response(status=204)

    @app.get("/die")
    def die():
        os._exit(3)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wsgi")
    (place / "server.py").write_text(dedent(APP))
    return place


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serve("server:app", "--replicas", "2", cwd=folder) as running:
        yield running


def test_an_application_answers_at_its_own_addresses_with_its_own_headers(server: Server) -> None:
    home = server.get("/")
    assert (home.status_code, home.text) == (200, "<p>version 1</p>")
    assert home.headers["content-type"].startswith("text/html")
    assert home.headers["x-model-generation"] == "1"
    assert server.get("/pisqrt?a=25").json()["result"] == pytest.approx(8.86226925452758)
    assert server.post("/pisqrt", {"a": 25}).json()["version"] == 1
    moved = server.get("/moved")
    assert moved.status_code == 302
    assert moved.headers["location"] == "/"
    assert moved.headers.get_list("set-cookie") == ["a=b; Path=/", "c=d; Path=/"]
    assert server.get("/no/such").status_code == 404
    assert "Not Found" in server.get("/no/such").text
    assert server.get("/nothing").status_code == 204


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_every_method_reaches_the_application(server: Server, method: str) -> None:
    answer = server.client.request(method, f"{server.url}/items/x", content="any body")
    assert answer.json() == {"method": method, "name": "x", "body": "any body"}


def test_head_and_options_are_the_applications_too(server: Server) -> None:
    with connect(server.port) as raw:
        head = raw.send(get("/", method="HEAD")).read(head_only=True)
        assert int(head.headers["content-length"]) == len("<p>version 1</p>")
        options = raw.send(get("/pisqrt", method="OPTIONS")).read()
        assert "POST" in options.headers["allow"]
        assert raw.send(get("/nothing")).read().status == 204
        assert raw.send(get("/")).read().status == 200


def test_the_servers_own_addresses_stay_but_for_its_pages(server: Server) -> None:
    assert server.get("/healthz").json() == {"status": "ok"}
    assert server.get("/readyz").status_code == 200
    assert "modelcloud_requests_total" in server.get("/metrics").text
    assert server.get("/redoc").status_code == 404


def test_a_worker_that_dies_is_tried_again_only_for_what_changes_nothing(server: Server) -> None:
    assert server.get("/die").status_code == 502
    wait_for("both workers", lambda: len(server.pids("worker")) == 2)
    assert server.get("/").status_code == 200


def test_an_application_is_updated_live_and_loses_nothing(server: Server, folder: Path) -> None:
    with load(server.port, "/pisqrt", {"a": 25}) as running:
        wait_for("some traffic", lambda: len(running.samples) > 50)
        text = (folder / "server.py").read_text()
        (folder / "server.py").write_text(text.replace("VERSION = 1", "VERSION = 2"))
        answer = server.post("/setup", {})
        assert answer.status_code == 200, answer.text
        before = len(running.samples)
        wait_for("more traffic", lambda: len(running.samples) > before + 50)
    assert failures(running.samples) == []
    assert server.get("/").text == "<p>version 2</p>"
    assert server.get("/").headers["x-model-version"] == "2"
