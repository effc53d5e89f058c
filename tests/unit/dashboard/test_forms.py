"""What is filled into a form becomes values; what is wrong is shown beside its field."""

from __future__ import annotations

from typing import Any

import pytest

from modelcloud.dashboard.parts.forms import Field, Form
from modelcloud.dashboard.words import Words
from modelcloud.errors import InvalidInput

T = Words("en")


def form(*fields: Field) -> Form:
    return Form("do", "Title", "Submit", list(fields))


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        ("text", " a ", "a"), ("text", "", ""), ("area", " a\n", " a\n"),
        ("password", " a ", " a "),
        ("number", "1.5", 1.5), ("integer", "7", 7), ("range", "0.25", 0.25),
        ("check", True, True), ("check", False, False), ("json", '{"a": [1]}', {"a": [1]}),
        ("select", "b", "b"),
    ],
)  # fmt: skip
def test_a_value_is_read_by_the_kind_of_its_field(kind: str, given: Any, value: Any) -> None:
    assert form(Field(name="x", label="X", kind=kind)).values({"x": given}) == {"x": value}


@pytest.mark.parametrize(
    ("kind", "given", "accepted"),
    [
        ("number", "a", "a number"), ("integer", "1.5", "a whole number"), ("json", "{", "JSON"),
        ("number", "", "a number"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_names_its_field(kind: str, given: str, accepted: str) -> None:
    with pytest.raises(InvalidInput, match=accepted) as caught:
        form(Field(name="x", label="X", kind=kind)).values({"x": given})
    assert caught.value.fields["field"] == "x"


def test_what_is_optional_and_empty_is_left_out() -> None:
    fields = [Field(name=kind, label="X", kind=kind, optional=True) for kind in ("number", "text")]
    assert form(*fields).values({"number": " ", "text": "", "other": "1"}) == {}


def test_what_is_wrong_stands_beside_its_field_and_is_told_with_it() -> None:
    shown = form(Field(name="a.b", label="A", help="how"))
    shown.errors = {"a.b": "too <long>", "other": "no field of its own"}
    drawn = shown.draw(T)
    assert 'aria-describedby="field-a-b-help field-a-b-error"' in drawn
    assert 'aria-invalid="true"' in drawn
    assert ">too &lt;long&gt;</small>" in drawn
    assert "no field of its own" in drawn


def test_a_password_is_never_drawn() -> None:
    drawn = form(Field(name="p", label="P", kind="password", value="secret")).draw(T)
    assert "secret" not in drawn
