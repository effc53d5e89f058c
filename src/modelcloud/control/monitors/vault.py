"""Keeps credentials so that the store alone does not give them away: the key is a file beside it.

Must never: write a credential or the key anywhere else, or put one into a message.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from modelcloud.errors import UsageError

#: Of the key, in the data folder.
KEY_FILE = "monitors.key"


class Vault:
    """Seals records of credentials with the key of a file, which the first one makes.

    Args:
        file: of the key; for this user alone.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def seal(self, secrets: dict[str, Any]) -> bytes:
        """The record, encrypted and signed (Fernet: AES-128-CBC, HMAC-SHA256).

        Raises:
            OSError: the key file can be neither read nor made.
        """
        from cryptography.fernet import Fernet

        sealed: bytes = Fernet(self._key()).encrypt(msgspec.json.encode(secrets))
        return sealed

    def open(self, sealed: bytes) -> dict[str, Any]:
        """The record.

        Raises:
            UsageError: the key is gone or another one, or the record was changed.
        """
        from cryptography.fernet import Fernet, InvalidToken

        try:
            key = self._file.read_bytes()
            return msgspec.json.decode(Fernet(key).decrypt(sealed), type=dict[str, Any])
        except (OSError, ValueError, InvalidToken):
            raise UsageError(
                f"the credentials cannot be read: {self._file.name} of the data folder is missing "
                "or another one than they were kept with; give them anew"
            ) from None

    def _key(self) -> bytes:
        from cryptography.fernet import Fernet

        made = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        if not self._file.exists():
            descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as writer:
                writer.write(Fernet.generate_key())
                writer.flush()
                os.fsync(writer.fileno())
            try:
                os.link(made, self._file)  # the first one stays
            except FileExistsError:
                pass
            finally:
                made.unlink()
        return self._file.read_bytes()
