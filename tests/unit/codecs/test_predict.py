"""The answers of `/predict/…`."""

from __future__ import annotations

import json

import pytest

from modelcloud.codecs import predict
from modelcloud.codecs.media import CODEC_MASK, FLAG_GZIP, FLAG_STREAM, FLAG_WRAPPED, Codec


def test_the_model_s_own_json_is_taken_as_it_is() -> None:
    answer = predict.success(b'{"insts":[0.6868814826011658]}')
    assert answer == b'{"message": "SUCCESS", "code": 0, "data": {"insts":[0.6868814826011658]}}'
    assert predict.is_success(answer)
    assert not predict.is_success(b'{"message": "no"}')


def test_an_error_keeps_its_words_and_what_else_it_tells() -> None:
    error = {"error": "n: got text", "field": "n", "got": "text", "accepted": "a number"}
    assert json.loads(predict.failure(400, error)) == {
        "message": "n: got text", "code": 400, "data": None,
        "field": "n", "got": "text", "accepted": "a number",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["message", "code", "data"])
def test_nothing_an_error_tells_can_stand_for_another_answer(name: str) -> None:
    answer = json.loads(predict.failure(500, {"error": "no", name: 0}))
    assert answer == {"message": "no", "code": 500, "data": None}


def test_the_wish_for_it_is_a_bit_of_its_own() -> None:
    flags = (FLAG_WRAPPED, FLAG_GZIP, FLAG_STREAM)
    assert CODEC_MASK + sum(flags) == 0xFF
    assert all(codec & CODEC_MASK == codec for codec in Codec)
