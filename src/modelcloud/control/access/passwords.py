"""Passwords and tokens: how they are made, hashed and checked.

Must never: keep, log or return one in a form that could be used, save to whom it was made for.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from modelcloud.errors import InvalidInput, Overloaded

T = TypeVar("T")

SHORTEST, LONGEST = 10, 256
TOKEN_PREFIX = "mc_"  # noqa: S105 — by which scanners for leaked secrets know one

#: Argon2id with 19 MiB, 2 passes: the least that OWASP's password storage cheat sheet names, so
#: that several at a time fit beside the rest of a small machine.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
#: Hashed at a time, and waiting or hashed together.
_AT_A_TIME, _WAITING = 2, 64


def check_password(password: str, field: str = "password", *, other_than: str = "") -> None:
    """Return if `password` is one that may be set.

    Raises:
        InvalidInput: it is too short, too long or `other_than`; the text does not repeat it.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise InvalidInput(field, f"{len(password)} characters", f"{SHORTEST} to {LONGEST}")
    if not password.isprintable():
        raise InvalidInput(field, "characters that cannot be typed", "printable characters")
    if password == other_than:
        raise InvalidInput(field, "the current password", "another one")


def new_password() -> str:
    """A random password of 24 characters."""
    return secrets.token_urlsafe(18)


def new_token() -> str:
    """A random token of 256 bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """What is kept of a token. It needs no salt: what was hashed is random."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def hash_password(password: str) -> str:
    """Hash; takes milliseconds on purpose, so not on an event loop (see `Hashing`)."""
    return _HASHER.hash(password)


def is_password(hashed: str, password: str) -> bool:
    """Whether `password` is the hashed one; as slow as `hash_password`."""
    try:
        return _HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


class Hashing:
    """Hashes in threads, few at a time: each takes a processor and 19 MiB."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_AT_A_TIME)
        self._waiting = 0
        self._nobody = hash_password(new_password())

    async def hash(self, password: str) -> str:
        """Hash `password`.

        Raises:
            Overloaded: too many wait already.
        """
        return await self._in_turn(hash_password, password)

    async def verify(self, hashed: str | None, password: str) -> bool:
        """Whether `password` is the hashed one; takes the same time where there is none (None).

        Raises:
            Overloaded: too many wait already.
        """
        fits = await self._in_turn(is_password, hashed or self._nobody, password)
        return fits and hashed is not None

    async def _in_turn(self, slow: Callable[..., T], *args: str) -> T:
        if self._waiting >= _WAITING:
            raise Overloaded("too many are signing in; try again in a moment")
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(slow, *args)
        finally:
            self._waiting -= 1
