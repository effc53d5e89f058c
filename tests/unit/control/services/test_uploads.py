"""Uploads: streamed, counted, kept for who sent them, and forgotten after a day."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelcloud.control.access.permissions import Actor, Level, Refused
from modelcloud.control.services.uploads import KEPT_S, OF_ONE, PIECE, Uploads
from modelcloud.errors import InvalidInput, NotFound, Overloaded, TooLarge, TooManyRequests

ANN = Actor(user_id=1, name="ann", levels={1: Level.MODIFY})
BEN = Actor(user_id=2, name="ben", levels={2: Level.MANAGE})


class Clock:
    """Shows what it is set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


def received(uploads: Uploads, *data: bytes, actor: Actor = ANN, sha256: str | None = None) -> str:
    return asyncio.run(uploads.receive(actor, pieces(*data), sha256=sha256)).upload


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def uploads(tmp_path: Path, clock: Clock) -> Uploads:
    return Uploads(tmp_path, 4 * PIECE, clock)


def test_what_comes_is_written_as_it_is_under_a_name_of_our_own(
    uploads: Uploads, tmp_path: Path
) -> None:
    data = [b"a" * 1000] * 3000
    record = asyncio.run(uploads.receive(ANN, pieces(*data)))
    assert record.bytes == 3_000_000
    assert record.sha256 == hashlib.sha256(b"".join(data)).hexdigest()
    path = uploads.path(ANN, record.upload)
    assert path.parent == tmp_path
    assert path.read_bytes() == b"".join(data)
    assert path.stat().st_mode & 0o777 == 0o600


def test_one_that_is_too_large_is_ended_and_removed(uploads: Uploads, tmp_path: Path) -> None:
    with pytest.raises(TooLarge):
        received(uploads, *[b"x" * PIECE] * 5)
    with pytest.raises(TooLarge):
        asyncio.run(uploads.receive(ANN, pieces(b""), length=5 * PIECE))
    assert not list(tmp_path.iterdir())


def test_bytes_that_are_not_those_that_were_promised_are_removed(
    uploads: Uploads, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="sha256"):
        received(uploads, b"flipped", sha256=hashlib.sha256(b"as sent").hexdigest())
    with pytest.raises(InvalidInput, match="accepted: the bytes of an archive"):
        received(uploads)
    assert not list(tmp_path.iterdir())


def test_a_client_that_goes_away_leaves_nothing(uploads: Uploads, tmp_path: Path) -> None:
    async def breaks_off() -> AsyncIterator[bytes]:
        yield b"x" * PIECE
        raise ConnectionResetError

    with pytest.raises((ConnectionResetError, Overloaded)):
        asyncio.run(uploads.receive(ANN, breaks_off()))
    assert not list(tmp_path.iterdir())


def test_another_cannot_use_or_remove_it(uploads: Uploads) -> None:
    name = received(uploads, b"x")
    with pytest.raises(NotFound):
        uploads.path(BEN, name)
    with pytest.raises(NotFound):
        uploads.drop(BEN, name)
    uploads.drop(ANN, name)
    with pytest.raises(NotFound):
        uploads.path(ANN, name)


def test_one_sees_ones_own_that_are_complete(uploads: Uploads, clock: Clock) -> None:
    names = [received(uploads, b"x"), received(uploads, b"yy")]
    received(uploads, b"z", actor=BEN)
    listed = uploads.listing(ANN)
    assert [(one.upload, one.bytes) for one in listed.items] == list(
        zip(names, (1, 2), strict=True)
    )
    assert listed.next is None
    clock.now = KEPT_S + 1
    assert uploads.listing(ANN).items == []


def test_it_is_forgotten_after_a_day(uploads: Uploads, clock: Clock, tmp_path: Path) -> None:
    name = received(uploads, b"x")
    clock.now = KEPT_S + 1
    with pytest.raises(NotFound, match="kept for 24 hours"):
        uploads.path(ANN, name)
    assert not list(tmp_path.iterdir())


def test_nobody_keeps_more_than_their_share(uploads: Uploads) -> None:
    names = [received(uploads, b"x") for _ in range(OF_ONE)]
    with pytest.raises(TooManyRequests, match="delete one"):
        received(uploads, b"x")
    received(uploads, b"x", actor=BEN)
    uploads.drop(ANN, names[0])
    received(uploads, b"x")


@pytest.mark.parametrize("name", ["../upload", "", "x" * 500, "\0", "upload-1"])
def test_a_name_from_outside_finds_nothing(uploads: Uploads, name: str) -> None:
    with pytest.raises(NotFound):
        uploads.path(ANN, name)


@pytest.mark.parametrize(
    ("actor", "may"),
    [
        (Actor(user_id=1, name="reader", levels={1: Level.READ}), False),
        (Actor(user_id=1, name="scoped", levels={1: Level.MANAGE}, scope_level=Level.READ), False),
        (Actor(user_id=1, name="other", levels={1: Level.MANAGE}, scope_group=2), False),
        (Actor(user_id=1, name="admin", is_admin=True), True),
        (Actor(user_id=1, name="admin", is_admin=True, scope_group=2), True),
        (ANN, True),
    ],
)
def test_who_may_register_nowhere_may_not_upload(uploads: Uploads, actor: Actor, may: bool) -> None:
    if may:
        received(uploads, b"x", actor=actor)
        return
    with pytest.raises(Refused):
        received(uploads, b"x", actor=actor)
