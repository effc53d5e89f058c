"""Data URIs: how bytes travel inside JSON, `data:image/png;base64,iVBORw0…`.

Must never: accept anything but base64 (no percent-encoded or bare payloads).
"""

from __future__ import annotations

import base64
import binascii


def is_data_uri(value: str) -> bool:
    """Whether it says it is one."""
    return value[:5].lower() == "data:"


def read_data_uri(value: str) -> bytes:
    """The bytes a data URI holds.

    Raises:
        ValueError: it is none, or not base64; the text says which and is safe to show.
    """
    head, comma, payload = value.partition(",")
    if not is_data_uri(head) or not comma:
        raise ValueError("text that is no data URI")
    if not head.lower().endswith(";base64"):
        raise ValueError("a data URI that is not base64")
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a data URI with damaged base64") from None


def write_data_uri(data: bytes, media_type: str) -> str:
    """A data URI that holds `data`."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
