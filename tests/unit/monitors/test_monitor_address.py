"""The rule for addresses holds every connection of the process that reads from sources."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelcloud.errors import Forbidden, ModelcloudError
from modelcloud.monitors.address import Addresses
from modelcloud.monitors.source import Patience, SourceSpec
from modelcloud.monitors.source_process import SourceProcess


@pytest.fixture
def counted() -> Iterator[tuple[int, list[Any]]]:
    """Port of a server that counts who came."""
    came: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    made, address = server.accept()
                except OSError:
                    return
                came.append(address)
                made.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def asked(spec: SourceSpec) -> ModelcloudError:
    """How the source is refused."""

    async def ask() -> None:
        source = SourceProcess(spec, Patience())
        try:
            await source.marks("m")
        finally:
            await source.close()

    with pytest.raises(ModelcloudError) as error:
        asyncio.run(asyncio.wait_for(ask(), 60))
    return error.value


def general(host: str, **rule: Any) -> SourceSpec:
    return SourceSpec(type="general", path="/", host=host, addresses=Addresses(**rule))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0.0.0.0"]
)
def test_a_private_address_is_not_connected_to_however_it_is_written(
    host: str, counted: tuple[int, list[Any]]
) -> None:
    port, came = counted
    assert asked(general(f"http://{host}:{port}")).status in {400, 403, 503}
    assert came == []


@pytest.mark.parametrize("address", ["169.254.169.254", "100.100.100.200", "[fd00:ec2::254]"])
def test_a_metadata_address_is_refused(address: str) -> None:
    error = asked(general(f"http://{address}"))
    assert isinstance(error, Forbidden)
    assert "not public" in error.message


@pytest.mark.parametrize(
    "source",
    [
        {"type": "ftp", "host": "127.0.0.1", "path": "/"},
        {"type": "s3", "path": "bucket/m", "options": {"key": "k", "secret": "s"}},
        {"type": "sftp", "path": "sftp://u@127.0.0.1:{port}/", "options": {"password": "p"}},
        {"type": "webhdfs", "path": "webhdfs://127.0.0.1:{port}/"},
    ],
    ids=lambda source: source["type"],
)
def test_the_rule_holds_whichever_library_connects(
    source: dict[str, Any], counted: tuple[int, list[Any]]
) -> None:
    port, came = counted
    source = {**source, "path": source["path"].format(port=port)}
    if source["type"] == "s3":
        source["options"] = {**source["options"], "endpoint_url": f"http://127.0.0.1:{port}"}
    error = asked(SourceSpec(**source, port=port, addresses=Addresses()))
    assert isinstance(error, Forbidden), error
    assert came == []


@pytest.mark.parametrize(
    "source",
    [
        {"type": "local", "path": "/etc"},
        {"type": "hdfs", "path": "/", "hadoop_bin": "/bin/true"},
        {"type": "url", "path": "file:///etc"},
        {"type": "url", "path": "hdfs://127.0.0.1/"},
        {"type": "url", "path": "simplecache::s3://bucket/m"},
        {"type": "url", "path": "github://owner:repo@/"},
    ],
    ids=lambda source: f"{source['type']} {source['path']}",
)
def test_what_the_rule_cannot_hold_is_refused_with_one(source: dict[str, Any]) -> None:
    error = asked(SourceSpec(**source, addresses=Addresses()))
    assert isinstance(error, Forbidden)
    assert "cannot be held to public addresses" in error.message


def test_an_allowed_network_is_connected_to(counted: tuple[int, list[Any]]) -> None:
    port, came = counted
    asked(general(f"http://127.0.0.1:{port}", networks=("127.0.0.0/8",)))
    assert came


def test_a_redirect_into_the_network_is_refused(tmp_path: Path) -> None:
    """The first hop is allowed, where it leads is not."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            made, _ = server.accept()
            with made:
                made.recv(4096)
                made.sendall(
                    b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest\r\n"
                    b"content-length: 0\r\nconnection: close\r\n\r\n"
                )

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        error = asked(general(f"http://127.0.0.1:{port}", networks=("127.0.0.0/8",)))
        thread.join(10)
    assert isinstance(error, Forbidden)
