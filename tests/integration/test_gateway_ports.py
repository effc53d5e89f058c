"""Further ports of a gateway: opened, served, moved and closed while it runs."""

from __future__ import annotations

import socket
import ssl
import subprocess
from typing import TYPE_CHECKING

from modelcloud.dataplane.messages import AdminRequest, AdminResponse, DrainGateway, Site
from support.gateway_process import ADMIN, GatewayProcess, gateway_process
from support.raw import Raw, connect, get
from support.server import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def listener(port: int = 0) -> socket.socket:
    return socket.create_server(("127.0.0.1", port), reuse_port=True)


def site(port: int) -> Site:
    return Site(port=port, admin=ADMIN)


def is_served(port: int) -> bool:
    """Whether a new client is answered there; False if it is let go."""
    with connect(port) as raw:
        raw.send(get("/healthz"))
        try:
            return raw.read().status == 200
        except (EOFError, OSError):
            return False


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def asked_meta(gateway: GatewayProcess, raw: Raw) -> AdminRequest:
    """A request that is under way until the node answers."""
    raw.send(get("/meta"))
    return gateway.wait(AdminRequest)


def answer(gateway: GatewayProcess, request: AdminRequest) -> None:
    gateway.send(AdminResponse(id=request.id, status=200, body=b'{"it":"is"}'))


def test_a_port_is_served_as_its_site_once_it_has_one() -> None:
    with gateway_process() as gateway:
        port = gateway.hand_over(listener())
        wait_for("clients are let go", lambda: not is_served(port))
        gateway.publish(site(port))
        wait_for("clients are served", lambda: is_served(port))
        with connect(port) as raw:
            request = asked_meta(gateway, raw)
            assert (request.port, request.path) == (port, "/meta")
            answer(gateway, request)
            assert raw.read().json() == {"it": "is"}
            assert raw.send(get("/nowhere")).read().status == 404
        with connect(gateway.port) as raw:
            assert asked_meta(gateway, raw).port == 0


def test_a_table_may_come_before_the_socket_of_its_port() -> None:
    with gateway_process() as gateway:
        with listener() as free:
            port = int(free.getsockname()[1])
            gateway.publish(site(port))
            gateway.hand_over(free)
        assert is_served(port)


def test_a_port_that_no_table_names_any_more_is_closed_and_what_is_under_way_is_answered() -> None:
    with gateway_process() as gateway:
        first, second = (gateway.hand_over(listener()) for _ in range(2))
        gateway.publish(site(first), site(second))
        with connect(first) as busy, connect(first) as idle, connect(second) as other:
            assert idle.send(get("/healthz")).read().status == 200
            request = asked_meta(gateway, busy)
            gateway.publish(site(second))
            wait_for("nobody listens", lambda: not is_open(first))
            assert idle.closed()
            answer(gateway, request)
            assert busy.read().json() == {"it": "is"}
            assert busy.closed()
            assert other.send(get("/healthz")).read().status == 200
        with connect(gateway.port) as raw:
            assert raw.send(get("/healthz")).read().status == 200


def test_a_client_of_a_closing_port_is_told_with_its_next_answer() -> None:
    with gateway_process() as gateway:
        port = gateway.hand_over(listener())
        gateway.publish(site(port))
        with connect(port) as raw:
            assert "connection" not in raw.send(get("/healthz")).read().headers
            gateway.publish()
            assert raw.send(get("/healthz")).read().headers["connection"] == "close"
            assert raw.closed()


def test_a_service_may_move_to_another_port_and_back() -> None:
    with gateway_process() as gateway:
        old = gateway.hand_over(listener())
        gateway.publish(site(old))
        new = gateway.hand_over(listener())
        gateway.publish(site(new))
        assert is_served(new)
        wait_for("nobody listens at the old one", lambda: not is_open(old))
        gateway.hand_over(listener(old))
        gateway.publish(site(old))
        wait_for("it is back", lambda: is_served(old))
        wait_for("nobody listens at the other", lambda: not is_open(new))


def test_draining_ends_every_port_and_answers_what_is_under_way() -> None:
    with gateway_process() as gateway:
        port = gateway.hand_over(listener())
        gateway.publish(site(port))
        with connect(port) as raw:
            request = asked_meta(gateway, raw)
            gateway.send(DrainGateway(deadline_s=30.0))
            wait_for("nobody listens", lambda: not is_open(port) and not is_open(gateway.port))
            gateway.hand_over(listener())
            answer(gateway, request)
            assert raw.read().status == 200
        assert gateway.process.wait(30) == 0


def test_a_message_that_is_no_port_ends_the_channel_and_not_the_gateway(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with gateway_process() as gateway:
        gateway._channel.sendall(b"xy")
        wait_for("it says so", lambda: "ports:" in capfd.readouterr().err)
        with connect(gateway.port) as raw:
            assert raw.send(get("/healthz")).read().status == 200


def test_tls_holds_at_every_port(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    with gateway_process(tls_cert=str(cert), tls_key=str(key)) as gateway:
        port = gateway.hand_over(listener())
        gateway.publish(site(port))
        context = ssl.create_default_context(cafile=str(cert))
        raw = Raw(port)
        with context.wrap_socket(raw.socket, server_hostname="localhost") as raw.socket:
            assert raw.send(get("/healthz")).read().status == 200
