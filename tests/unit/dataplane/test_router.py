"""What a gateway answers itself on the way to a service: tokens, and paths of every spelling."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from modelcloud.config import Limits
from modelcloud.dataplane.messages import AdminRequest, AdminRoute, RouteTable
from modelcloud.dataplane.routes import DeploymentState, RoutedGeneration, build_table
from modelcloud.types import DeploymentRoute, Routing, ServiceRouting
from support.gateway_rig import Client, get, post, until
from support.loops import on_a_loop
from support.socket_workers import SocketWorker, command, gateway, worker_in

if TYPE_CHECKING:
    from pathlib import Path

    from modelcloud.dataplane.hub import Gateway

TOKEN = b"t0ken"
DIGEST = sha256(TOKEN).hexdigest()
BEARER = b"Authorization: Bearer " + TOKEN
UNAUTHORISED = (b"Authorization: Bearer wrong", b"Authorization: Basic dDprZW4=",
                b"Authorization: Bearer", b"Authorization: Bearer \xff\xfe\xe9",
                b"Authorization: \xe9", b"Authorization: " + TOKEN,
                b"Authorization: Bearer " + DIGEST.encode(),
                BEARER + b"\r\n" + BEARER, b"Cookie: token=" + TOKEN)  # fmt: skip


def table(
    snapshot: int,
    worker: SocketWorker,
    commands: list[dict[str, Any]],
    tokens: tuple[str, ...] | None,
) -> RouteTable:
    """`open` for all, `shut` for who has a token; both by the same worker."""
    generation = RoutedGeneration(
        number=1, version=1, signature={"commands": commands}, workers=(worker.address,)
    )
    routes = (DeploymentRoute(deployment="d", versions=(1,)),)
    return build_table(
        snapshot=snapshot,
        routing=Routing(
            services=(
                ServiceRouting(service="open", deployments=routes),
                ServiceRouting(service="shut", deployments=routes, tokens=tokens, port=9000),
            )
        ),
        deployments={"d": DeploymentState(service="d", generations=(generation,))},
        limits=Limits(),
        admin=[AdminRoute(path="/readyz", methods=("GET",))],
        service_admin=[AdminRoute(path="/setup", methods=("GET", "POST"))],
    )


async def sent(hub: Gateway, data: bytes, *, port: int = 0) -> Client:
    client = Client(hub, port=port)
    client.send(data)
    await until(lambda: client.statuses)
    return client


# ---- tokens


@on_a_loop
async def test_a_service_with_tokens_answers_who_presents_one(tmp_path: Path) -> None:
    hub, _ = gateway()
    async with worker_in(hub, tmp_path, 1) as worker:
        await hub.publish(table(1, worker, [command()], (DIGEST,)))
        for path in ("/shut/ask", "/shut/1/ask", "/predict/shut", "/predict/shut/1"):
            for scheme in (b"Bearer", b"bearer", b"BEARER", b"Bearer  "):
                line = b"authorization: %b %b" % (scheme, TOKEN)
                assert (await sent(hub, post(path, b"{}", line))).statuses == [200]
        assert (await sent(hub, post("/open/ask"))).statuses == [200]
        assert (await sent(hub, get("/shut/ask", BEARER))).statuses == [200]


@pytest.mark.parametrize("line", [b"X: y", *UNAUTHORISED])
@on_a_loop
async def test_who_presents_none_or_a_wrong_one_gets_401_and_reaches_nothing(
    line: bytes, tmp_path: Path
) -> None:
    hub, _ = gateway()
    async with worker_in(hub, tmp_path, 1) as worker:
        await hub.publish(table(1, worker, [command()], (DIGEST,)))
        for port, path in ((0, "/shut/ask"), (9000, "/ask"), (0, "/predict/shut/1")):
            for request in (
                post(path, b"{}", line),
                get(path, line),
                get(path + "?a=1", line),
                get(path, line, method="HEAD"),
                get(path, line, method="DELETE"),
            ):
                client = await sent(hub, request, port=port)
                assert client.statuses == [401]
                assert b"\r\nwww-authenticate: Bearer\r\n" in client.got
                if path.startswith("/predict/") and b"HEAD" not in request:
                    body = msgspec.json.decode(client.got.partition(b"\r\n\r\n")[2])
                    assert (body["code"], body["data"]) == (401, None)
        assert worker.received == []


@on_a_loop
async def test_a_token_that_is_taken_back_is_refused_on_open_connections_too(
    tmp_path: Path,
) -> None:
    hub, _ = gateway()
    async with worker_in(hub, tmp_path, 1) as worker:
        await hub.publish(table(1, worker, [command()], (DIGEST,)))
        client = await sent(hub, post("/shut/ask", b"{}", BEARER))
        await hub.publish(table(2, worker, [command()], ()))
        client.send(post("/shut/ask", b"{}", BEARER))
        assert client.statuses == [200, 401]


@on_a_loop
async def test_the_counters_tell_which_tokens_were_presented_by_their_digests(
    tmp_path: Path,
) -> None:
    hub, _ = gateway()
    other = sha256(b"other").hexdigest()
    async with worker_in(hub, tmp_path, 1) as worker:
        await hub.publish(table(1, worker, [command()], (DIGEST, other)))
        await sent(hub, post("/shut/ask", b"{}", b"Authorization: Bearer wrong"))
        await sent(hub, get("/shut/ask", b"X: y", method="OPTIONS"))
        assert hub.stats(1).tokens == {}
        await sent(hub, post("/shut/ask", b"{}", BEARER))
        assert list(hub.stats(2).tokens) == [DIGEST]
        assert 0 <= hub.stats(3).tokens[DIGEST] < 3600
        await hub.publish(table(2, worker, [command()], (other,)))
        assert hub.stats(4).tokens == {}


@on_a_loop
async def test_a_service_that_gets_tokens_is_closed_to_those_who_knew_its_address(
    tmp_path: Path,
) -> None:
    """Their connections remember heads, and must not remember what those led to."""
    hub, _ = gateway()
    async with worker_in(hub, tmp_path, 1) as worker:
        await hub.publish(table(1, worker, [command()], None))
        client = Client(hub)
        for _ in range(3):
            client.send(post("/shut/ask"))
        await until(lambda: client.statuses == [200] * 3)
        await hub.publish(table(2, worker, [command()], (DIGEST,)))
        client.send(post("/shut/ask"))
        assert client.statuses == [200, 200, 200, 401]


@on_a_loop
async def test_a_model_that_reads_headers_never_sees_the_token(tmp_path: Path) -> None:
    hub, _ = gateway()
    async with worker_in(hub, tmp_path, 1) as worker:
        await hub.publish(table(1, worker, [command("meta", withRequest=True)], (DIGEST,)))
        for path in ("/shut/meta", "/predict/shut"):
            await sent(hub, post(path, b"{}", BEARER.upper().replace(b"T0KEN", TOKEN), b"X-A: b"))
        await sent(hub, post("/open/meta", b"{}", b"Authorization: its own"))
        shut, wrapped, own = (dict(r.meta.headers) for r in worker.received if r.meta)
        assert shut == wrapped
        assert "authorization" not in shut
        assert shut["x-a"] == "b"
        assert own["authorization"] == "its own"


@on_a_loop
async def test_a_browser_may_ask_for_the_options_before_it_sends_a_token(tmp_path: Path) -> None:
    hub, _ = gateway()
    hub.cors = b"https://a.example"
    async with worker_in(hub, tmp_path, 1) as worker:
        await hub.publish(table(1, worker, [command()], (DIGEST,)))
        client = await sent(hub, get("/shut/ask", b"Origin: https://a.example", method="OPTIONS"))
        assert client.statuses == [204]
        assert b"authorization" in client.got


@on_a_loop
async def test_a_web_application_with_tokens_gets_no_request_without_one(tmp_path: Path) -> None:
    hub, _ = gateway()
    app = command("meta", wholeSite=True, withRequest=True)
    async with worker_in(hub, tmp_path, 1) as worker:
        await hub.publish(table(1, worker, [app], (DIGEST,)))
        for method in ("GET", "POST", "PUT", "OPTIONS", "HEAD"):
            assert (await sent(hub, get("/x", method=method), port=9000)).statuses == [401]
        assert worker.received == []
        assert (await sent(hub, get("/x", BEARER), port=9000)).statuses == [200]


# ---- attack row 7: one reading of a path, for routing and for who may


@pytest.mark.parametrize(
    "path",
    [
        "/predict/../shut/ask", "/predict/%2e%2e/shut/ask", "/predict/%252e%252e/shut/ask",
        "/open/../shut/ask", "/open/%2e%2e/shut/ask", "//shut/ask", "/shut//ask", "/./shut/ask",
        "/shut/ask;x", "/shut;x/ask", "/shut%2fask", "/shut%5cask", "/shut\\ask", "/shut/ask/",
        "/shut/ask/.", "/shut/ask%00", "/shut/ask%20", "/SHUT/ask", "/shut/1/../ask",
        "/open/../predict/shut", "/predict/open/../shut", "/predict/open;/../../shut/ask",
        "/predict/../readyz", "/predict/../shut/setup", "/open/ask/../../shut/setup",
        "/shut/%61sk", "/%73hut/ask", "/predict/%73hut", "/predict/shut/%31",
        "http://a/shut/ask", "http://a//shut/ask", "http://b/shut/ask", "http://a/open/../shut/ask",
        "/shut/ask?x=/open/ask", "/shut/ask?/../../open/ask",
    ],
)  # fmt: skip
@on_a_loop
async def test_no_spelling_of_a_path_leads_past_the_token_or_to_the_node(
    path: str, tmp_path: Path
) -> None:
    hub, node = gateway()
    async with worker_in(hub, tmp_path, 1) as worker:
        await hub.publish(table(1, worker, [command()], (DIGEST,)))
        for request in (post(path), post(path) * 2, get(path, method="GET")):
            client = await sent(hub, request)
            assert set(client.statuses) <= {400, 401, 404}
        assert worker.received == []
        assert not [told for told in node.told if isinstance(told, AdminRequest)]


@on_a_loop
async def test_requests_for_the_node_say_at_which_site_they_came(tmp_path: Path) -> None:
    hub, node = gateway()
    async with worker_in(hub, tmp_path, 1) as worker:
        await hub.publish(table(1, worker, [command()], (DIGEST,)))
        Client(hub).send(get("/shut/setup"))
        Client(hub, port=9000).send(get("/setup"))
        Client(hub, port=9000).send(get("/healthz"))
        asked = [told for told in node.told if isinstance(told, AdminRequest)]
        assert [(told.port, told.path) for told in asked] == [(0, "/shut/setup")]


# ---- what is wrapped


@on_a_loop
async def test_below_predict_every_error_of_the_gateway_is_wrapped(tmp_path: Path) -> None:
    hub, _ = gateway(body=100)
    async with worker_in(hub, tmp_path, 1) as worker:
        await hub.publish(table(1, worker, [command()], ()))
        for request, status in (
            (get("/predict/open", method="DELETE"), 405),
            (post("/predict/open", b"{}", b"Content-Type: text/plain"), 415),
            (post("/predict/open", b"{}", b"Content-Encoding: br"), 415),
            (post("/predict/open", b" " * 101), 413),
            (post("/predict/../open"), 400),
            (post("/predict/nowhere"), 404),
            (post("/predict/"), 404),
        ):
            client = await sent(hub, request)
            assert client.statuses == [status]
            answer = msgspec.json.decode(client.got.partition(b"\r\n\r\n")[2])
            assert answer["code"] == status
            assert answer["data"] is None
            assert isinstance(answer["message"], str)
        assert b'{"error":' in (await sent(hub, post("/open/ask", b" " * 101))).got


# ---- before anybody has said what is to be reached


@on_a_loop
async def test_while_it_starts_what_is_not_there_may_come(tmp_path: Path) -> None:
    hub, _ = gateway()
    async with worker_in(hub, tmp_path, 1) as worker:
        await hub.publish(
            build_table(
                snapshot=1,
                routing=None,
                deployments={},
                limits=Limits(),
                admin=[AdminRoute(path="/readyz", methods=("GET",))],
            )
        )
        for request in (post("/open/ask"), get("/predict/open/1"), get("/open/meta")):
            client = await sent(hub, request)
            assert client.statuses == [503]
            assert b"\r\nretry-after: 1\r\n" in client.got
        assert (await sent(hub, get("/healthz"))).statuses == [200]
        await hub.publish(table(2, worker, [command()], None))
        assert (await sent(hub, post("/open/ask"))).statuses == [200]
        assert (await sent(hub, post("/nowhere/ask"))).statuses == [404]
