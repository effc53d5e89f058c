"""The OpenAPI document, held to the specification by a validator that is not ours."""

from __future__ import annotations

from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from modelcloud.data_types import any as any_value
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
from modelcloud.sdk.contract import Command, Signature
from modelcloud.sdk.data_types import TYPES
from modelcloud.serve import openapi
from modelcloud.serve.admin import ADDRESSES
from support.serving import SIGNATURE

EVERY_TYPE = {
    "any": any_value(),
    "array": array(number(min=0), max_length=3),
    "boolean": boolean(),
    "category": category(["a", "b"]),
    "directory": directory(),
    "file": file(extension=".h5"),
    "image": image(width=2, height=2),
    "image_bounding_box": image_bounding_box(),
    "image_landmarks": image_landmarks(2),
    "image_point": image_point(),
    "number": number(min=0, max=10, step=2, default=4),
    "segmentation": segmentation(label_to_id={"no": 0, "yes": 1}),
    "text": text(min_length=1, default=None),
    "vector": vector(3),
}
EMPTY: dict[str, Any] = {"options": [], "optionsSchema": {}, "commands": []}


def document(signature: dict[str, Any], *, token_needed: bool = False) -> dict[str, Any]:
    return openapi.document(signature, service="fib", version=3, token_needed=token_needed)


@pytest.mark.parametrize("token_needed", [False, True])
@pytest.mark.parametrize("signature", [SIGNATURE.to_dict(), EMPTY], ids=["full", "empty"])
def test_it_is_a_valid_openapi_3_1_document(signature: dict[str, Any], token_needed: bool) -> None:
    OpenAPIV31SpecValidator(document(signature, token_needed=token_needed)).validate()


def test_every_data_type_gives_a_valid_document() -> None:
    assert set(EVERY_TYPE) == set(TYPES)
    command = Command(name="all", inputs=EVERY_TYPE, outputs=EVERY_TYPE)
    signature = Signature(options=EVERY_TYPE, commands=(command,))
    OpenAPIV31SpecValidator(document(signature.to_dict())).validate()


def test_a_document_that_is_not_valid_is_caught() -> None:
    broken = document(EMPTY)
    del broken["paths"]["/rollouts/{id}"]["get"]["parameters"]
    with pytest.raises(OpenAPIValidationError, match="id"):
        OpenAPIV31SpecValidator(broken).validate()


def test_it_describes_every_address_of_the_node_but_its_own_pages() -> None:
    described = {
        (path, method.upper()) for path, item in document(EMPTY)["paths"].items() for method in item
    }
    own_pages = {"/docs.json", "/redoc", "/redoc/*"}
    there = {
        (address.path.replace("*", "{id}"), address.method)
        for address in ADDRESSES
        if address.path not in own_pages
    }
    assert described == there | {("/healthz", "GET")}


def test_a_command_has_schemas_an_example_and_a_query_string_form() -> None:
    item = document(SIGNATURE.to_dict())["paths"]["/fib"]
    body = item["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["required"] == ["n"]
    assert body["example"] == {"n": 0, "note": ""}
    answer = item["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer["properties"]["result"]["type"] == "number"
    assert [p["name"] for p in item["get"]["parameters"]] == ["n", "note"]
    assert item["post"]["description"] == "Fibonacci numbers"


def test_a_stream_is_said_and_free_form_commands_take_anything() -> None:
    paths = document(SIGNATURE.to_dict())["paths"]
    assert "text/event-stream" in paths["/draw"]["post"]["responses"]["200"]["content"]
    for free_form in ("/raw", "/page"):
        assert list(paths[free_form]) == ["post"]


def test_only_changes_carry_the_token_and_only_where_one_is_needed() -> None:
    secured = {
        (path, method)
        for path, item in document(SIGNATURE.to_dict(), token_needed=True)["paths"].items()
        for method, operation in item.items()
        if "security" in operation
    }
    assert secured == {
        ("/setup", "post"), ("/rollback", "post"), ("/rollouts", "get"), ("/rollouts/{id}", "get"),
    }  # fmt: skip
    assert "security" not in str(document(SIGNATURE.to_dict()))
