"""The request by which a service is tried out."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from modelcloud.dashboard.trying import Sent, request_body


@pytest.mark.parametrize("order", [("image", "mask"), ("mask", "image")])
def test_files_that_were_sent_stand_in_the_body_as_data(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    files = {"image": b"\x00picture", "mask": b"\xff" * 1000}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    body: dict[str, Any] = {"n": 3, "image": "shown", "text": 'a "word" of 字'}
    sent = {name: Sent(tmp_path / name, "" if name == "mask" else 'image/"png') for name in order}
    pieces = request_body(body, sent)
    whole = b"".join(
        piece if isinstance(piece, bytes) else base64.b64encode(piece.read_bytes())
        for piece in pieces
    )
    found = json.loads(whole)
    assert (found["n"], found["text"]) == (3, 'a "word" of 字')
    for name, data in files.items():
        head, _, text = found[name].partition(",")
        assert base64.b64decode(text) == data
        assert head == (
            "data:application/octet-stream;base64" if name == "mask" else 'data:image/"png;base64'
        )


def test_a_body_without_files_is_plain_json() -> None:
    assert (
        b"".join(part for part in request_body([1, 2], {}) if isinstance(part, bytes)) == b"[1, 2]"
    )
