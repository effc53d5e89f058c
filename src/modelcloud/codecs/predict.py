"""The answers of `/predict/…`: `{"message": …, "code": …, "data": …}` around a model's own.

Must never: encode an answer a second time, or know sockets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

_BEFORE = b'{"message": "SUCCESS", "code": 0, "data": '


def success(data: bytes) -> bytes:
    """The answer around `data`, which is JSON."""
    return b"%b%b}" % (_BEFORE, data)


def is_success(answer: bytes) -> bool:
    """Whether an answer is one of `success`."""
    return answer.startswith(_BEFORE)


def failure(status: int, error: Mapping[str, Any]) -> bytes:
    """`{"message": text, "code": status, "data": null}`, and what else the error tells.

    Args:
        status: the HTTP status, which is the code too; never 0.
        error: the error as it is without a wrapping: `{"error": text, …fields}`.
    """
    own = {"message": error["error"], "code": status, "data": None}
    fields = {name: value for name, value in error.items() if name != "error" and name not in own}
    return any_json({**own, **fields})


def any_json(value: Mapping[str, Any]) -> bytes:
    """As JSON, whatever it holds: names of files may be no Unicode, fields may be any object."""
    try:
        return msgspec.json.encode(value, enc_hook=str)
    except UnicodeEncodeError:
        return json.dumps(value, default=str).encode()
