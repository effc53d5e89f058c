"""The node's verdict on option values is the type's own, without the type's I/O."""

from __future__ import annotations

from typing import Any

import pytest

from modelcloud.data_types import any as any_value
from modelcloud.data_types import (
    array,
    boolean,
    category,
    file,
    image,
    image_bounding_box,
    image_landmarks,
    number,
    text,
    vector,
)
from modelcloud.errors import InvalidInput
from modelcloud.sdk.data_types import DataType
from modelcloud.serve.options import check_options

KINDS: list[DataType] = [
    number(min=0, max=10, step=2),
    number(default=None),
    text(min_length=2, max_length=4),
    text(default=None),
    boolean(),
    category(["a", 1]),
    category(["a", "b"], default=None),
    any_value(),
    array(number(min=0), min_length=1),
    array(array(text)),
    image_bounding_box(),
    image_landmarks(2, labels=["left", "right"], connections=[["left", "right"]]),
]
VALUES: list[Any] = [
    None, 0, 1, 2, 4.0, 11, -1, True, "", "a", "ab", "abcde", "b", [], [1], [-1], ["a"], [["a"]],
    {}, [0, 0, 1, 1], [1, 1, 0, 0], [[0, 0], [1, 1]], [[0, 0]], "\ud800",
]  # fmt: skip


def described(kind: DataType) -> list[dict[str, Any]]:
    return [{"name": "option", **kind.to_dict()}]


def verdict(check: Any, *arguments: Any) -> tuple[str, str] | None:
    try:
        check(*arguments)
    except InvalidInput as error:
        return error.fields["got"], error.fields["accepted"]
    return None


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.type_name)
def test_a_value_is_refused_exactly_where_its_type_refuses_it(kind: DataType) -> None:
    verdicts = set()
    for value in VALUES:
        own = verdict(kind.deserialize, value)
        assert verdict(check_options, {"option": value}, described(kind)) == own, value
        verdicts.add(own is None)
    assert True in verdicts


@pytest.mark.parametrize(
    ("kind", "fits", "wrong"),
    [
        (file(), "http://127.0.0.1:1/never-fetched", 1),
        (file(default=None), None, []),
        (image(), "data:image/png;base64,not-decoded-here", {}),
        (vector(3), [1, 2, 3], "text"),
        (array(image()), ["not-decoded-here"], "text"),
    ],
    ids=lambda kind: getattr(kind, "type_name", None),
)
def test_what_only_a_worker_can_read_is_held_to_its_json_form(
    kind: DataType, fits: Any, wrong: Any
) -> None:
    assert verdict(check_options, {"option": fits}, described(kind)) is None
    assert verdict(check_options, {"option": wrong}, described(kind)) is not None


def test_an_undeclared_option_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"colour: .*accepted: option"):
        check_options({"colour": 1}, described(text()))
    with pytest.raises(InvalidInput, match="declares no options"):
        check_options({"colour": 1}, [])


def test_the_place_inside_a_value_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"^option\[1\]: got"):
        check_options({"option": [1, "x"]}, described(array(number())))
