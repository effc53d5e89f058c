"""A unix socket as address: had alone, refused in words, gone with its server."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelcloud.errors import Conflict, UsageError
from modelcloud.node import sockets
from modelcloud.node.unix_address import LONGEST, UnixAddress


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="mc-") as name:
        yield Path(name)


def close(listeners: list[socket.socket]) -> None:
    for sock in listeners:
        sock.close()


def test_all_listeners_accept_from_one_queue_that_opens_with_listen(folder: Path) -> None:
    path = str(folder / "http.sock")
    address = UnixAddress(path)
    listeners = address.listeners(3)
    with socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(ConnectionRefusedError):
            client.connect(path)
        sockets.listen(listeners)
        client.connect(path)
        accepted, _ = listeners[2].accept()
        accepted.close()
    assert Path(path).stat().st_mode & 0o777 == 0o660
    close(listeners)
    address.release()
    address.release()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("listening", [False, True])
def test_a_live_server_keeps_its_path_even_before_it_listens(folder: Path, listening: bool) -> None:
    path = folder / "http.sock"
    address = UnixAddress(str(path))
    listeners = address.listeners(1)
    if listening:
        sockets.listen(listeners)
    inode = path.stat().st_ino
    with pytest.raises(Conflict, match=f"{path} is already in use"):
        UnixAddress(str(path))
    assert path.stat().st_ino == inode
    close(listeners)
    address.release()


def test_a_socket_that_another_kind_of_server_listens_on_is_kept(folder: Path) -> None:
    path = folder / "http.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(Conflict, match="already in use"):
            UnixAddress(str(path))
    assert [entry.name for entry in folder.iterdir()] == ["http.sock"]


def test_what_a_dead_server_left_is_replaced(folder: Path) -> None:
    path = folder / "http.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    (folder / "http.sock.lock").touch()
    address = UnixAddress(str(path))
    listeners = address.listeners(1)
    sockets.listen(listeners)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    close(listeners)
    address.release()


def test_the_path_of_a_successor_is_not_removed(folder: Path) -> None:
    path = folder / "http.sock"
    first = UnixAddress(str(path))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(path))
        first.release()
        assert path.exists()
    close(first.listeners(1))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("x" * LONGEST, f"accepted: up to {LONGEST}"),
        ("file", "no socket"),
        ("gone/http.sock", "No such file"),
        ("folder", "no socket"),
    ],
)
def test_a_path_that_cannot_be_had_is_refused_with_its_name(
    folder: Path, name: str, says: str
) -> None:
    (folder / "file").write_text("mine")
    (folder / "folder").mkdir()
    before = sorted(folder.iterdir())
    with pytest.raises(UsageError, match=says) as caught:
        UnixAddress(str(folder / name))
    assert str(folder / name) in caught.value.message
    assert sorted(folder.iterdir()) == before
    assert (folder / "file").read_text() == "mine"
