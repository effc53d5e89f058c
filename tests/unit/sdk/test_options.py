"""Options as given, completed and converted by their types."""

from __future__ import annotations

import pytest

from modelcloud.data_types import array, number, text
from modelcloud.errors import InvalidInput
from modelcloud.sdk.contract import Signature
from modelcloud.sdk.options import complete_options, given_options, options_from_text
from modelcloud.types import GenerationSpec

SIGNATURE = Signature(
    options={"size": number(min=1, step=1), "name": text(default="n"), "list": array(default=[])}
)


def test_defaults_are_filled_in_and_values_converted() -> None:
    complete = complete_options(SIGNATURE, {"size": 3.0})
    assert complete == {"size": 3, "name": "n", "list": []}
    assert type(complete["size"]) is int


@pytest.mark.parametrize(
    ("given", "field", "accepted"),
    [
        ({"size": 1, "sise": 2}, "sise", "size, name, list"),
        ({}, "size", "a whole number of at least 1 (it has no default)"),
        ({"size": 0}, "size", "a whole number of at least 1"),
        ({"size": 1, "name": 5}, "name", "text"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    given: dict[str, object], field: str, accepted: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        complete_options(SIGNATURE, given)
    assert caught.value.fields["field"] == field
    assert caught.value.fields["accepted"] == accepted


def test_texts_are_read_by_the_type_of_each_option() -> None:
    given = {"size": "3", "name": "3", "list": "[1]"}
    assert options_from_text(SIGNATURE, given) == {"size": 3, "name": "3", "list": [1]}
    for wrong in ({"size": "three"}, {"sise": "3"}):
        with pytest.raises(InvalidInput):
            options_from_text(SIGNATURE, wrong)


def test_an_inherited_option_that_the_code_no_longer_declares_is_dropped() -> None:
    def given(*inherited: str) -> dict[str, object]:
        spec = GenerationSpec(
            service="s", generation=2, version=2, target="m.py", snapshot="", digest="",
            options={"gone": 1, "name": "x"}, options_text={"size": "3"}, inherited=inherited,
        )  # fmt: skip
        return complete_options(SIGNATURE, given_options(SIGNATURE, spec))

    assert given("gone", "name") == {"size": 3, "name": "x", "list": []}
    with pytest.raises(InvalidInput, match="gone"):
        given("name")
