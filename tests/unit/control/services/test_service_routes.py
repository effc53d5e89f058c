"""Routes of services: what they may be, whose they are already, and that the node is told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from modelcloud.control.services.registration import Registration
from modelcloud.types import RouteAddress
from support.platform import SIGNATURE, PlatformRig

if TYPE_CHECKING:
    import httpx

PREDICT = SIGNATURE["commands"][0]


class Ports(Registration):
    """Only the ports that are the platform's own."""

    taken_ports = (8080, 8000)

    def __init__(self) -> None:
        pass


@pytest.fixture
def ann(platform: PlatformRig) -> str:
    platform.app.state.platform = replace(
        platform.state, parts=(*platform.app.state.platform.parts, Ports())
    )
    return platform.user("ann")


def make(rig: PlatformRig, token: str, name: str, **fields: Any) -> httpx.Response:
    return rig.call(token, "POST", "/services", {"name": name, "group": "ann", **fields})


def edit(rig: PlatformRig, token: str, name: str, **fields: Any) -> httpx.Response:
    answer = rig.call(token, "PATCH", f"/services/{name}", fields)
    rig.settle()
    return answer


def routed(rig: PlatformRig, service: str) -> RouteAddress | None:
    """The route that the node was told."""
    return {one.service: one.route for one in rig.node.engine.routing.services}[service]


def test_a_route_is_told_to_the_node_moved_and_taken_back(platform: PlatformRig, ann: str) -> None:
    platform.service("fib", group="ann")
    platform.deploy(ann, "fib", 1)
    assert routed(platform, "fib") is None
    record = edit(platform, ann, "fib", route="/faces/extract").json()
    assert (record["route"], record["method"], record["route_port"]) == ("faces/extract", "any", 0)
    assert routed(platform, "fib") == RouteAddress(path="/faces/extract")
    edit(platform, ann, "fib", method="GET", route_port=666)
    assert routed(platform, "fib") == RouteAddress(
        path="/faces/extract", methods=("GET",), port=666
    )
    record = edit(platform, ann, "fib", route=None).json()
    assert (record["route"], record["route_port"]) == (None, 0)
    assert routed(platform, "fib") is None


@pytest.mark.parametrize(
    "route",
    [
        "a b", "a//b", "a/../b", "..", ".x", "a/", "%41", "ä", "a?b", "a/*", "x" * 201,
        "/".join("abcdefghi"), "predict", "Predict/x", "v2/models", "healthz", "metrics/x",
    ],
)  # fmt: skip
def test_what_is_no_path_or_the_platforms_own_is_no_route(
    platform: PlatformRig, ann: str, route: str
) -> None:
    answer = make(platform, ann, "fib", route=route)
    assert (answer.status_code, answer.json()["field"]) == (400, "route")
    assert platform.call(ann, "GET", "/services").json()["items"] == []


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"route": "extract", "method": "PUT"}, 400, "method"),
        ({"route": "extract", "route_port": 8080}, 400, "the platform's own"),
        ({"route_port": 666}, 400, "without a route"),
        ({"route": "extract", "port": 666, "route_port": 666}, 409, "both"),
        ({"route": "fib/x"}, 409, "the service itself"),
        ({"route": "other/x"}, 409, "begins with the name of a service"),
        ({"route": "taken"}, 409, "taken by another service"),
        ({"route": "taken", "method": "POST"}, 409, "taken by another service"),
        ({"route": "x", "route_port": 9001}, 409, "a service's own"),
        ({"port": 9002}, 409, "taken by routes"),
    ],
)
def test_a_route_leads_nowhere_else_already(
    platform: PlatformRig, ann: str, fields: dict[str, Any], status: int, words: str
) -> None:
    assert make(platform, ann, "Other", route="taken", method="GET").status_code == 201
    assert make(platform, ann, "own", port=9001).status_code == 201
    assert make(platform, ann, "far", route="taken", route_port=9002).status_code == 201
    answer = make(platform, ann, "fib", **fields)
    assert answer.status_code == status
    assert words in str(answer.json()["detail"])
    shared = make(platform, ann, "fib", route="other/x", route_port=9002)
    assert shared.status_code == 201, "where no names are, a name is as good as any path"


def test_a_name_that_a_route_begins_with_is_taken(platform: PlatformRig, ann: str) -> None:
    make(platform, ann, "fib", route="Faces/extract")
    make(platform, ann, "far", route="far_away", route_port=9002)
    answer = make(platform, ann, "faces")
    assert answer.status_code == 409
    assert "there is a route 'Faces/extract'" in answer.json()["detail"]
    assert make(platform, ann, "far_away").status_code == 201
    assert make(platform, ann, "face").status_code == 201


@pytest.mark.parametrize(
    ("names", "fits"),
    [(("predict",), True), (("ask",), True), (("ask", "predict"), True), (("ask", "tell"), False)],
)
def test_a_route_calls_predict_or_the_only_command(
    platform: PlatformRig, ann: str, names: tuple[str, ...], fits: bool
) -> None:
    signature = {**SIGNATURE, "commands": [{**PREDICT, "name": name} for name in names]}
    platform.service("fib", group="ann", versions=2, signature=signature)
    platform.deploy(ann, "fib", 1)
    answer = edit(platform, ann, "fib", route="extract")
    assert (answer.status_code == 200) is fits
    if fits:
        return
    assert "its commands: ask, tell" in answer.json()["detail"]
    body = {"version": 2, "instance_type": "small"}
    platform.act(ann, "fib", 1, "stop")
    assert edit(platform, ann, "fib", route="extract").status_code == 200
    answer = platform.call(ann, "POST", "/services/fib/deployments", body)
    assert answer.status_code == 409
    assert "cannot be reached at the service's route" in answer.json()["detail"]
