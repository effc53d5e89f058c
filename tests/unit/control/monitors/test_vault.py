"""Credentials are kept encrypted, and the key is a file of its own."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from modelcloud.control.monitors.vault import Vault
from modelcloud.errors import UsageError

SECRETS = {"ftp_password": "correct-horse", "secret_options": {"key": "AKIA"}}


def test_what_is_sealed_opens_again_and_shows_nothing(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "key")
    sealed = vault.seal(SECRETS)
    assert b"correct-horse" not in sealed
    assert Vault(tmp_path / "key").open(sealed) == SECRETS
    assert sealed != vault.seal(SECRETS), "equal credentials do not show that they are equal"


def test_the_key_is_its_users_alone_and_stays_the_same(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "key")
    vault.seal(SECRETS)
    key = (tmp_path / "key").read_bytes()
    vault.seal(SECRETS)
    assert (tmp_path / "key").read_bytes() == key
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("key", [None, b"", b"not a key"])
def test_without_its_key_it_says_what_to_do(tmp_path: Path, key: bytes | None) -> None:
    sealed = Vault(tmp_path / "key").seal(SECRETS)
    (tmp_path / "key").unlink()
    if key is not None:
        (tmp_path / "key").write_bytes(key)
    with pytest.raises(UsageError, match="give them anew"):
        Vault(tmp_path / "key").open(sealed)


def test_what_was_changed_is_not_opened(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "key")
    sealed = bytearray(vault.seal(SECRETS))
    sealed[40] ^= 1
    with pytest.raises(UsageError, match="cannot be read"):
        vault.open(bytes(sealed))
