"""Rules that hold for every data type, and the limits of each."""

from __future__ import annotations

import array as std_array
import builtins
import math
import pickle
import subprocess
import sys
from typing import Any as Anything

import cloudpickle  # type: ignore[import-untyped]
import msgspec
import numpy as np
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from modelcloud import data_types
from modelcloud.data_types import any as any_type
from modelcloud.data_types import (
    array,
    boolean,
    category,
    directory,
    file,
    image,
    image_bounding_box,
    image_landmarks,
    image_point,
    number,
    segmentation,
    text,
    vector,
)
from modelcloud.errors import InvalidInput, ModelLoadError
from modelcloud.sdk.data_types import MISSING, TYPES, DataType, as_type, to_builtin
from modelcloud.sdk.data_types.base import describe
from modelcloud.sdk.data_types.images import FORMATS

HALF = 0.5
PIXEL = image(width=1, height=1).example()

#: type → JSON that is accepted, JSON that is refused.
CASES: list[tuple[DataType, list[str], list[str]]] = [
    (
        number(),
        ["0", "-1.5", "1e3", "123456789012345678901"],
        ["true", '"1"', "null", "[1]", "NaN", "Infinity", "-Infinity", "1e999"],
    ),
    (
        number(min=0, max=40),
        ["0", "40", "40.0", "0.5"],
        ["-1", "41", "40.5", "-0.001", "100000000000000000000", "true"],
    ),
    (number(min=0.5, max=1.5), ["1", "0.5", "1.5"], ["0", "2", "0.4", "1.6"]),
    (number(min=0.2, max=0.8), ["0.2", "0.8"], ["0", "1"]),
    (number(max=-3), ["-3", "-3.5"], ["0", "-2.5"]),
    (number(step=1), ["3", "3.0", "-7"], ["3.5", "true"]),
    (number(min=1, max=9, step=2), ["1", "9", "3.0"], ["2", "0", "11", "3.5"]),
    (number(min=0, max=1, step=0.1), ["0", "1", "0.3", "0.7", "0.1"], ["0.35", "1.1", "0.05"]),
    (number(min=-(2**60)), [str(-(2**60)), "0"], [str(-(2**60) - 1)]),
    (number(default=None), ["null", "1"], ["true"]),
    (text(), ['""', '"é"', '"\\ud83d\\ude00"'], ["1", "null", "true", '["a"]', '"\\ud800x"']),
    (
        text(min_length=2, max_length=3),
        ['"ab"', '"abc"', '"\\ud83d\\ude00b"'],
        ['"a"', '"abcd"', '"\\ud83d\\ude00"'],
    ),
    (boolean(), ["true", "false"], ["0", "1", '"true"', "null", "[]"]),
    (category(["small", "big", 3]), ['"small"', "3"], ['"Small"', "true", "3.0", "4", "null"]),
    (category([1, 0]), ["1", "0"], ["true", "false", "1.0"]),
    (any_type(), ["null", "1", '"a"', '{"a": [1, {}]}'], ["NaN", "1e999", '"\\ud800x"']),
    (array(), ["[]", '[1, "a", null]'], ["{}", '"a"', "null", "1"]),
    (
        array(number(min=0), min_length=1, max_length=2),
        ["[0]", "[0, 1.5]"],
        ["[]", "[1, 2, 3]", "[-1]", "[true]", "[null]", "1"],
    ),
    (array(array(text)), ["[]", '[["a"], []]'], ['["a"]', "[[1]]"]),
    (array(number(default=None)), ["[1, null]"], ['["a"]']),
    (array(number(step=5)), ["[5, 10]"], ["[5, 6]"]),
    (
        vector(2),
        ["[1, 2.5]", "[3e38, 0]"],
        [
            "[1]",
            "[1, 2, 3]",
            "[1, true]",
            '[1, "a"]',
            "[4e38, 0]",
            "[[1], [2]]",
            "null",
            f"[1{'0' * 60}, 0]",
        ],
    ),
    (
        image_point(),
        ["[0, 1]", "[0.25, 1.0]"],
        ["[0]", "[0, 1.1]", "[-0.1, 0]", "[0, true]", "null"],
    ),
    (
        image_bounding_box(),
        ["[0, 0, 1, 1]", "[0.5, 0.5, 0.5, 0.5]"],
        ["[0, 0, 1]", "[0.6, 0, 0.5, 1]", "[0, 0.6, 1, 0.5]", "[0, 0, 1, 2]"],
    ),
    (
        image_landmarks(2),
        ["[[0, 1], [0.5, 0.5]]"],
        ["[[0, 1]]", "[[0, 1], [0.5]]", "[[0, 1], [2, 0]]", "[0, 1]"],
    ),
    (image(), [f'"{PIXEL}"'], ["1", "null", '""', '"abc"', '"data:image/png;base64,AAAA"']),
    (image(default=None), ["null", f'"{PIXEL}"'], ["1"]),
    (segmentation({"sky": 0}), [f'"{segmentation({"sky": 0}).example()}"'], ["1", "null"]),
    (file(), ['"data:;base64,AAAA"'], ["1", "null", '""', '"data:,plain"', '"data:;base64,A"']),
    (directory(), [], ["1", "null", '"data:;base64,AAAA"', '"https://example.org/a.tar"']),
]

ACCEPTED = [
    pytest.param(kind, value, id=f"{kind.type_name} {value[:30]}")
    for kind, values, _ in CASES
    for value in values
]
REFUSED = [
    pytest.param(kind, value, id=f"{kind.type_name} {value[:30]}")
    for kind, _, values in CASES
    for value in values
]
ALL = [
    pytest.param(kind, id=f"{index} {kind.type_name}") for index, (kind, _, _) in enumerate(CASES)
]

NAMES = [
    "any",
    "array",
    "boolean",
    "category",
    "directory",
    "file",
    "image",
    "image_bounding_box",
    "image_landmarks",
    "image_point",
    "number",
    "segmentation",
    "text",
    "vector",
]


def deserialized(kind: DataType, json: str) -> Anything:
    """As a request's field goes: typed decoding, then `deserialize` where the flag asks for it."""
    value = msgspec.json.decode(json, type=kind.json_type())
    return kind.deserialize(value) if kind.converts_in else value


def same(one: Anything, other: Anything) -> bool:
    if type(one).__module__.startswith("PIL"):
        return bool(one.mode == other.mode and one.tobytes() == other.tobytes())
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and np.array_equal(one, other))
    if isinstance(one, str) and one.startswith("/"):
        return True  # two temporary files
    return repr(one) == repr(other)


def test_the_module_offers_exactly_the_documented_types() -> None:
    assert data_types.__all__ == NAMES
    for name in NAMES:
        kind = getattr(data_types, name)
        assert kind.type_name == name
        assert TYPES[name] is kind


def test_importing_them_pulls_in_neither_numpy_nor_pillow_nor_network_libraries() -> None:
    check = (
        "import sys, modelcloud.data_types as d\n"
        "d.image(width=8).example(); d.segmentation({'a': 0}).to_dict(); d.vector(3).json_type()\n"
        "d.array(d.file).json_schema()\n"
        "print({'numpy', 'PIL', 'ssl', 'http', 'tempfile', 'asyncio'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


@pytest.mark.parametrize(("kind", "json"), ACCEPTED)
def test_typed_decoding_and_deserialize_accept_the_same_values(kind: DataType, json: str) -> None:
    alone = kind.deserialize(msgspec.json.decode(json))
    assert same(deserialized(kind, json), alone)


@pytest.mark.parametrize(("kind", "json"), REFUSED)
def test_typed_decoding_and_deserialize_refuse_the_same_values(kind: DataType, json: str) -> None:
    with pytest.raises((msgspec.MsgspecError, InvalidInput)):
        deserialized(kind, json)
    try:
        value = msgspec.json.decode(json)
    except msgspec.MsgspecError:
        return  # no JSON at all
    with pytest.raises(InvalidInput) as refused:
        kind.deserialize(value)
    assert refused.value.fields["accepted"]


@pytest.mark.parametrize(("kind", "json"), ACCEPTED)
def test_the_json_schema_accepts_what_is_accepted(kind: DataType, json: str) -> None:
    Draft202012Validator.check_schema(kind.json_schema())
    assert Draft202012Validator(kind.json_schema()).is_valid(msgspec.json.decode(json))


@pytest.mark.parametrize("kind", ALL)
def test_the_example_is_accepted_and_comes_back(kind: DataType) -> None:
    if kind.type_name == "directory":
        return  # no directory is sure to be there
    example = kind.example()
    value = deserialized(kind, msgspec.json.encode(example).decode())
    again = kind.serialize(value)
    assert same(kind.deserialize(again), value) or kind.type_name == "image"  # JPEG is lossy
    msgspec.json.encode(again)


@pytest.mark.parametrize("kind", ALL)
def test_a_description_is_plain_json_and_names_the_type(kind: DataType) -> None:
    described = kind.to_dict()
    assert described["type"] == kind.type_name
    assert msgspec.json.decode(msgspec.json.encode(described)) == described
    assert not [key for key in described if "_" in key]
    assert ("default" in described) is not kind.required


@pytest.mark.parametrize("kind", ALL)
def test_a_type_survives_being_sent_to_another_process(kind: DataType) -> None:
    for copied in (pickle.loads(pickle.dumps(kind)), cloudpickle.loads(cloudpickle.dumps(kind))):
        assert copied.required is kind.required
        assert (copied.default is MISSING) is (kind.default is MISSING)
        assert copied.to_dict() == kind.to_dict()


def test_descriptions_hold_the_limits_in_camel_case() -> None:
    assert number(min=0, max=1, step=0.5, default=1, description="how much").to_dict() == {
        "type": "number",
        "description": "how much",
        "min": 0,
        "max": 1,
        "step": 0.5,
        "default": 1,
    }
    assert text(min_length=2, max_length=3).to_dict() == {
        "type": "text",
        "description": None,
        "minLength": 2,
        "maxLength": 3,
    }
    assert category(["a", "b"]).to_dict() == {
        "type": "category",
        "description": None,
        "oneOf": ["a", "b"],
        "default": "a",
    }
    assert array(text, min_length=1).to_dict() == {
        "type": "array",
        "description": None,
        "minLength": 1,
        "itemType": {"type": "text", "description": None, "minLength": 0},
    }
    assert vector(3, sampling_mean=1, sampling_std=2).to_dict() == {
        "type": "vector",
        "description": None,
        "length": 3,
        "samplingMean": 1,
        "samplingStd": 2,
    }
    assert image_landmarks(2, labels=["a", "b"], connections=[("a", "b")]).to_dict() == {
        "type": "image_landmarks",
        "description": None,
        "length": 2,
        "labels": ["a", "b"],
        "connections": [["a", "b"]],
    }


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        (number, {"min": 5, "max": 1}, "number: min 5 is over max 1"),
        (number, {"min": math.nan}, "number: min is the number nan; accepted: a finite number"),
        (number, {"max": True}, "number: max is true"),
        (number, {"max": "9"}, "number: max is the text '9'"),
        (number, {"step": 0}, "number: step is the number 0; accepted: a number over 0"),
        (number, {"default": "x"}, "number: default is the text 'x'; accepted: a number"),
        (number, {"max": 3, "default": 4}, "number: default is the number 4"),
        (text, {"min_length": -1}, "text: min_length is the number -1"),
        (text, {"min_length": 1.0}, "text: min_length is the number 1.0"),
        (text, {"min_length": 3, "max_length": 2}, "text: min_length 3 is over max_length 2"),
        (text, {"default": 7}, "text: default is the number 7; accepted: text"),
        (text, {"description": 7}, "text: description is the number 7"),
        (boolean, {"default": 0}, "boolean: default is the number 0; accepted: true or false"),
        (category, {}, "category: choices is missing"),
        (category, {"choices": []}, "category: choices is an array of 0"),
        (category, {"choices": "abc"}, "category: choices is the text 'abc'"),
        (category, {"choices": ["a", "a"]}, "category: choices names one twice"),
        (category, {"choices": [1.5]}, "category: a choice is the number 1.5"),
        (any_type, {"default": {1j}}, "any: default is set; accepted: any JSON value"),
        (array, {"item_type": str}, "array: item_type: got `str` (meant text?)"),
        (array, {"item_type": number, "default": [1, "a"]}, "array: default[1] is the text 'a'"),
        (array, {"min_length": 2, "max_length": 1}, "array: min_length 2 is over max_length 1"),
        (vector, {}, "vector: length is missing; accepted: vector(length=512)"),
        (vector, {"length": 0}, "vector: length is the number 0"),
        (vector, {"length": 2, "default": [1]}, "vector: default is an array of 1"),
        (vector, {"length": 2, "sampling_std": -1}, "vector: sampling_std is the number -1"),
        (image, {"channels": 2}, "image: channels is the number 2; accepted: 1, 3 or 4"),
        (image, {"width": 0}, "image: width is the number 0"),
        (image, {"width": 9, "max_width": 8}, "image: width 9 is over max_width 8"),
        (image, {"min_height": 9, "max_height": 8}, "image: min_height 9 is over max_height 8"),
        (image, {"width": 10**5, "height": 10**5}, "image: the size is at least 100000x100000"),
        (image, {"channels": 4, "default_output_format": "JPEG"}, "with 4 channels"),
        (image, {"default": "abc"}, "image: default is text that is no data URI"),
        (segmentation, {}, "segmentation: label_to_id is missing"),
        (segmentation, {"label_to_id": {"a": 256}}, "segmentation: label_to_id has the text 'a'"),
        (
            segmentation,
            {"label_to_id": {"a": 1, "b": 1}},
            "segmentation: label_to_id has an id twice",
        ),
        (
            segmentation,
            {"label_to_id": {"a": 1}, "label_to_color": {"b": [0, 0, 0]}},
            "accepted: 'a'",
        ),
        (
            segmentation,
            {"label_to_id": {"a": 1}, "default_label": "b"},
            "default_label is the text 'b'",
        ),
        (image_landmarks, {}, "image_landmarks: length is missing"),
        (
            image_landmarks,
            {"length": 2, "labels": ["a"]},
            "image_landmarks: labels is an array of 1",
        ),
        (
            image_landmarks,
            {"length": 1, "labels": ["a"], "connections": [["a", "b"]]},
            "pairs of names",
        ),
        (image_landmarks, {"length": 1, "connections": [["a", "b"]]}, "pairs of names"),
        (category, {"choices": ["a"], "default": "b"}, "category: default is the text 'b'"),
        (image, {"default_output_format": "GIF"}, "default_output_format is the text 'GIF'"),
        (segmentation, {"label_to_id": {"a": 1}, "label_to_color": {"a": [0]}}, "is [0]; accepted"),
        (file, {"extension": "../x"}, "file: extension is the text '../x'"),
        (file, {"max_bytes": 0}, "file: max_bytes is the number 0"),
        (file, {"default": 3}, "file: default is the number 3"),
        (directory, {"default": ""}, "directory: default is the text ''"),
    ],
)
def test_what_makes_no_sense_is_refused_when_declared(
    kind: Anything, arguments: dict[str, Anything], said: str
) -> None:
    with pytest.raises(ModelLoadError) as refused:
        kind(**arguments)
    assert said in refused.value.message
    assert "accepted: " in refused.value.message


def test_a_default_may_be_given_in_python_form() -> None:
    assert number(default=np.float32(0.5)).default == HALF
    assert type(number(default=np.int64(3)).default) is int
    assert array(number, default=(1, 2)).default == [1, 2]
    assert vector(default=np.array([1, 2])).default == [1.0, 2.0]
    assert any_type(default=(1, {"a": np.int8(2)})).default == [1, {"a": 2}]
    assert image_point(default=(0, 1)).default == [0.0, 1.0]


def test_each_call_gets_a_default_of_its_own() -> None:
    for kind in (any_type(default={"a": []}), array(default=[[]]), vector(default=[1, 2])):
        first, second = kind.default_value(), kind.default_value()
        assert first is not second
    changed = (kind := any_type(default={"a": []})).default_value()
    changed["a"].append(1)
    assert kind.default_value() == {"a": []}


def test_with_a_default_of_none_a_field_may_be_null_or_left_out() -> None:
    kind = image_point(default=None)
    assert not kind.required
    assert kind.deserialize(None) is kind.serialize(None) is kind.default_value() is None
    assert kind.accepted.endswith(", or null")
    assert Draft202012Validator(kind.json_schema()).is_valid(None)
    assert not Draft202012Validator(image_point().json_schema()).is_valid(None)
    assert kind.example() == [0.5, 0.5]


def test_whole_numbers_stay_whole_and_fractions_stay_fractions() -> None:
    assert repr(number().deserialize(3)) == "3"
    assert repr(number().deserialize(3.0)) == "3.0"
    assert repr(number(step=1).deserialize(3.0)) == "3"
    assert repr(number(min=0.5, step=1).deserialize(2.5)) == "2.5"


@pytest.mark.parametrize(
    ("step", "value"), [(0.5, 10**400), (1e-300, 1e308)], ids=["huge", "tiny step"]
)
def test_a_number_where_floats_have_no_grid_is_refused(step: float, value: float) -> None:
    with pytest.raises(InvalidInput):
        number(step=step).deserialize(value)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (number(), "a number"),
        (number(min=0, max=40), "a number from 0 to 40"),
        (number(min=0), "a number of at least 0"),
        (number(max=1.5), "a number of at most 1.5"),
        (number(min=1, step=1), "a whole number of at least 1"),
        (number(min=0, max=1, step=0.25), "a number from 0 to 1 in steps of 0.25"),
        (text(min_length=2, max_length=5), "text of 2 to 5 characters"),
        (text(max_length=5), "text of at most 5 characters"),
        (category(["a", 2]), "one of 'a', 2"),
        (array(number, min_length=3, max_length=3), "an array of 3 items, each a number"),
        (
            image(width=512, min_height=2),
            "an image 512 pixels wide and at least 2 pixels high as a base64 data URI of "
            + ", ".join(FORMATS),
        ),
    ],
)
def test_what_is_accepted_is_said_in_words(kind: DataType, said: str) -> None:
    assert kind.accepted == said


def test_an_error_says_where_inside_an_array_what_came_and_what_is_accepted() -> None:
    with pytest.raises(InvalidInput) as refused:
        array(array(number(max=1))).deserialize([[0], [1, 2]])
    assert refused.value.fields == {
        "field": "[1][1]",
        "got": "the number 2",
        "accepted": "a number of at most 1",
    }


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "null"),
        (True, "true"),
        (-3, "the number -3"),
        (10**100, "a number of 333 bits"),
        ("a\n\x1b", "the text 'a\\n\\x1b'"),
        ("x" * 99, f"the text '{'x' * 40}' … (99 characters)"),
        ([1], "an array of 1"),
        ({"a": 1}, "an object of 1"),
        (np.zeros((2, 3), np.int16), "ndarray of shape (2, 3) and type int16"),
        (object(), "object"),
    ],
)
def test_what_came_is_said_shortly_and_without_control_characters(
    value: Anything, said: str
) -> None:
    assert describe(value) == said


@pytest.mark.parametrize(
    ("kind", "written", "value"),
    [
        (number(), "25", 25),
        (number(), " -2.5 ", -2.5),
        (number(), "1e3", 1000.0),
        (number(), "+.5", 0.5),
        (text(), "25", "25"),
        (boolean(), "True", True),
        (boolean(), "off", False),
        (category([1, "a"]), "1", 1),
        (any_type(), '{"a": 1}', {"a": 1}),
        (any_type(), "hello", "hello"),
        (array(number), "[1, 2]", [1, 2]),
        (vector(2), "[1, 2]", [1, 2]),
        (image_point(), "[0, 1]", [0, 1]),
    ],
)
def test_text_of_a_query_is_read_by_its_type(kind: DataType, written: str, value: Anything) -> None:
    assert repr(kind.from_text(written)) == repr(value)
    kind.deserialize(kind.from_text(written))


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (number(), "nan"),
        (number(), "inf"),
        (number(), "0x10"),
        (number(), "1_000"),
        (number(), "٣"),
        (number(), ""),
        (number(), "1" * 5000),
        (boolean(), "maybe"),
        (category(["a"]), "b"),
        (array(), "1,2"),
        (array(), "[" * 100_000),
        (vector(2), "[1e999, 2]"),
    ],
)
def test_text_that_does_not_read_as_the_type_is_refused(kind: DataType, written: str) -> None:
    with pytest.raises(InvalidInput):
        kind.from_text(written)


def test_a_type_may_be_given_as_class_or_instance() -> None:
    given = text(max_length=3)
    assert as_type(given) is given
    assert isinstance(as_type(text), text)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (str, "got `str` (meant text?)"),
        (float, "got `float` (meant number?)"),
        (builtins.any, "got `any` (meant any (import it: from modelcloud.data_types import any)?)"),
        ("number", "got the text 'number' (meant number?)"),
        (3, "got the number 3; accepted: a data type, as class or instance (any, array, "),
        ([text], "got an array of 1"),
        (DataType, "got `DataType`"),
        (vector, "vector: length is missing; accepted: vector(length=512)"),
    ],
)
def test_what_is_no_type_is_refused_with_place_and_what_is_accepted(
    given: Anything, said: str
) -> None:
    with pytest.raises(ModelLoadError) as refused:
        as_type(given, "command 'fib', input 'n'")
    assert refused.value.message.startswith("command 'fib', input 'n': ")
    assert said in refused.value.message


def test_numpy_values_that_a_model_returns_serialise() -> None:
    assert repr(number().serialize(np.float32(0.5))) == "0.5"
    assert repr(number().serialize(np.int64(7))) == "7"
    assert repr(number().serialize(np.array(7))) == "7"
    assert boolean().serialize(np.bool_(True)) is True
    assert type(text().serialize(np.str_("a"))) is str
    assert array(number).serialize(np.arange(3)) == [0, 1, 2]
    assert array(array(number)).serialize(np.eye(2)) == [[1.0, 0.0], [0.0, 1.0]]
    assert vector(2).serialize(np.array([1, 2], np.float16)) == [1.0, 2.0]
    assert any_type().serialize({"a": (np.float64(1), np.arange(2))}) == {"a": [1.0, [0, 1]]}
    assert image_landmarks(1).serialize(np.array([[0, 1]])) == [[0.0, 1.0]]


def test_a_nan_that_a_model_returns_is_left_to_the_encoder() -> None:
    assert math.isnan(number(min=0).serialize(math.nan))
    assert msgspec.json.encode(vector(2).serialize([math.nan, 1])) == b"[null,1.0]"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (number(), "1"),
        (number(), True),
        (number(max=1), 2),
        (number(), np.arange(2)),
        (text(), 1),
        (boolean(), 1),
        (category(["a"]), "b"),
        (any_type(), object()),
        (any_type(), 1j),
        (array(), {"a": 1}),
        (array(), "abc"),
        (array(text), ["a", 1]),
        (vector(2), np.zeros((1, 2))),
        (vector(2), [1, "a"]),
        (vector(1), [10**100]),
        (image_point(), [640, 480]),
        (image_bounding_box(), [1, 1, 0, 0]),
    ],
)
def test_what_a_model_returns_against_its_type_is_refused(kind: DataType, value: Anything) -> None:
    with pytest.raises(InvalidInput):
        kind.serialize(value)


class Name(str):
    """Text with a class of its own."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (np.float32(0.5), b"0.5"),
        (np.longdouble(0.5), b"0.5"),
        (np.int8(-3), b"-3"),
        (np.uint64(2**64 - 1), b"18446744073709551615"),
        (np.bool_(False), b"false"),
        (np.str_("a"), b'"a"'),
        (np.array([[1, 2]]), b"[[1,2]]"),
        (np.array([0.5], np.longdouble), b"[0.5]"),
        (np.array(5), b"5"),
        (np.array([math.nan]), b"[null]"),
        (std_array.array("d", [1.5]), b"[1.5]"),
        (Name("a"), b'"a"'),
    ],
)
def test_the_encoders_hook_writes_numpy_values_without_importing_it(
    value: Anything, json: bytes
) -> None:
    assert msgspec.json.encode(value, enc_hook=to_builtin) == json


def test_the_encoders_hook_refuses_what_has_no_json_form() -> None:
    with pytest.raises(TypeError, match="complex has no JSON form"):
        msgspec.json.encode(np.array([1j]), enc_hook=to_builtin)


def test_a_vector_is_a_float32_array_in_the_function() -> None:
    value = vector(3).deserialize([1, 2.5, -3])
    assert value.dtype == np.float32
    assert value.tolist() == [1.0, 2.5, -3.0]


def test_plain_types_need_no_conversion_beside_typed_decoding() -> None:
    plain = [
        number(),
        number(min=0, max=1),
        text(max_length=3),
        boolean(),
        category(["a"]),
        any_type(),
        array(number(max=3), max_length=9),
        array(array(text)),
        image_point(),
        image_landmarks(3),
    ]
    assert not [kind for kind in plain if kind.converts_in or kind.converts_out]
    in_by_hand: tuple[DataType, ...] = (
        number(step=1),
        number(max=2**60),
        array(image),
        vector(1),
        image_bounding_box(),
    )
    out_by_hand: tuple[DataType, ...] = (
        image(),
        array(image),
        file(),
        segmentation({"a": 0}),
        vector(1),
    )
    assert all(kind.converts_in for kind in in_by_hand)
    assert all(kind.converts_out for kind in out_by_hand)
