"""The native wire format: strict in, clear about what was wrong, never invalid JSON out."""

from __future__ import annotations

import gzip
import json
import math
from typing import Any

import numpy as np
import pytest

from modelcloud.codecs.media import FLAG_GZIP, Codec
from modelcloud.codecs.native import MAX_DEPTH, CommandCodec, check_depth, has_nan, parse_json
from modelcloud.data_types import any as any_
from modelcloud.data_types import array, boolean, number, text, vector
from modelcloud.errors import InvalidInput, ModelError, TooLarge, UsageError
from modelcloud.sdk.contract import Command


def codec(inputs: dict[str, Any], outputs: dict[str, Any] | None = None) -> CommandCodec:
    command = Command(name="c", inputs=inputs, outputs=outputs or {"result": any_()})
    return CommandCodec(command, max_body=1 << 20)


def test_inputs_arrive_by_name_with_defaults_filled_in() -> None:
    c = codec(
        {"n": number(), "label": text(default="x"), "tags": array(item_type=text, default=["a"])}
    )
    assert c.decode(Codec.JSON, b'{"n": 3}') == {"n": 3, "label": "x", "tags": ["a"]}


def test_a_mutable_default_is_fresh_for_every_request() -> None:
    c = codec({"tags": array(item_type=text, default=["a"])})
    c.decode(Codec.JSON, b"{}")["tags"].append("b")
    assert c.decode(Codec.JSON, b"{}") == {"tags": ["a"]}


def test_an_int_stays_an_int_and_true_is_no_number() -> None:
    c = codec({"n": number()})
    assert type(c.decode(Codec.JSON, b'{"n": 3}')["n"]) is int
    with pytest.raises(InvalidInput, match="n: got true; accepted: a number"):
        c.decode(Codec.JSON, b'{"n": true}')


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"n": "3"}', "n: got the text '3'; accepted: a number from 0 to 40"),
        (b'{"n": 41}', "n: got the number 41; accepted: a number from 0 to 40"),
        (b"{}", "n: got nothing; accepted: a number from 0 to 40"),
        (b'{"n": 1, "m": 2}', "m: no such input; accepted: an object with n"),
        (b"[1]", "got an array of 1; accepted: an object with n"),
        (b'{"n": ', "truncated"),
        (b'{"n": NaN}', "accepted: JSON"),
        (b'{"n": Infinity}', "accepted: JSON"),
        (b'{"n": 1e999}', "out of range"),
        (b'{"n": "\\ud800"}', "accepted: JSON"),
        (b'{"n": "\xff"}', "UTF-8"),
        (b'{"n": 1} x', "trailing"),
        (b"not json", "accepted: JSON"),
    ],
)
def test_what_does_not_fit_is_named_with_what_is_accepted(body: bytes, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        codec({"n": number(min=0, max=40)}).decode(Codec.JSON, body)
    assert says in caught.value.message


def test_a_query_string_is_read_by_the_types() -> None:
    c = codec({"a": number(), "on": boolean(default=False), "s": text(default="")})
    assert c.decode(Codec.QUERY, b"a=25&on=true&s=x%20y") == {"a": 25, "on": True, "s": "x y"}


@pytest.mark.parametrize(
    "query", [b"a=x", b"a", b"a=1&a=2", b"a=1&b=2", b"a=%ff", b"a=nan", b"a=inf"]
)
def test_a_query_string_that_does_not_fit_is_refused(query: bytes) -> None:
    with pytest.raises(UsageError):
        codec({"a": number()}).decode(Codec.QUERY, query)


def test_a_form_body_is_taken_as_json_if_it_is_json() -> None:
    """`curl -d` calls everything a form."""
    c = codec({"a": number()})
    assert c.decode(Codec.FORM, b'{"a": 1}') == c.decode(Codec.FORM, b"a=1") == {"a": 1}


def test_a_gzipped_body_is_expanded_up_to_the_limit() -> None:
    c = codec({"s": text()})
    body = gzip.compress(json.dumps({"s": "x" * 1000}).encode())
    assert len(c.decode(Codec.JSON | FLAG_GZIP, body)["s"]) == 1000
    with pytest.raises(TooLarge):
        c.decode(Codec.JSON | FLAG_GZIP, gzip.compress(b" " * (50 << 20)))
    for broken in (b"plain", body[:-3], body + body):
        with pytest.raises(UsageError, match="gzip"):
            c.decode(Codec.JSON | FLAG_GZIP, broken)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 5_000, 250_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_beyond_the_limit_is_refused(depth: int, opening: bytes, closing: bytes) -> None:
    body = b'{"value": ' + opening * depth + b"1" + closing * depth + b"}"
    with pytest.raises(UsageError, match="nested too deep"):
        codec({"value": any_()}).decode(Codec.JSON, body)


def test_many_brackets_side_by_side_or_in_text_are_not_deep() -> None:
    check_depth(b"[" + b"[1]," * 1000 + b"[1]]")
    check_depth(json.dumps(["[" * 1000, '"\\' + "{" * 1000]).encode())
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)


def test_a_converted_input_arrives_in_its_python_form() -> None:
    value = codec({"v": vector(length=2)}).decode(Codec.JSON, b'{"v": [1, 2]}')["v"]
    assert isinstance(value, np.ndarray)
    assert value.tolist() == [1.0, 2.0]


def test_a_single_output_may_be_bare() -> None:
    c = codec({"n": number()}, {"result": any_()})
    assert c.encode(5) == c.encode({"result": 5}) == (b'{"result":5}', False)
    assert c.encode({"other": 1})[0] == b'{"result":{"other":1}}'


@pytest.mark.parametrize("returned", [None, 5, {"a": 1}, {"a": 1, "b": 2, "c": 3}])
def test_outputs_that_are_not_the_declared_ones_are_the_models_mistake(returned: Any) -> None:
    with pytest.raises(ModelError, match="accepted: a dict with a, b"):
        codec({"n": number()}, {"a": number(), "b": number()}).encode(returned)


def test_nan_becomes_null_and_is_told() -> None:
    body, nan = codec({"n": number()}, {"x": number()}).encode(math.nan)
    assert (body, nan) == (b'{"x":null}', True)
    assert codec({"n": number()}, {"x": any_()}).encode([None])[1] is False
    assert has_nan({"a": [1.0, {"b": np.array([1.0, np.inf])}]})


def test_numpy_values_are_answered_as_numbers() -> None:
    c = codec({"n": number()}, {"x": any_()})
    assert (
        c.encode({"x": [np.float32(1.5), np.int64(2), np.arange(3)]})[0] == b'{"x":[1.5,2,[0,1,2]]}'
    )


def test_an_answer_without_a_json_form_is_the_models_mistake() -> None:
    with pytest.raises(ModelError, match="no JSON form"):
        codec({"n": number()}, {"x": any_()}).encode(object())
