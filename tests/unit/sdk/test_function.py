"""A plain function: its inputs come from annotations and defaults."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from modelcloud.data_types import any as any_
from modelcloud.data_types import array, boolean, category, number, text
from modelcloud.errors import ModelLoadError
from modelcloud.sdk.contract import CallKind
from modelcloud.sdk.data_types import DataType
from support.projects import Project

EXAMPLE = Path(__file__).parents[3] / "examples" / "pisqrt"


@pytest.mark.parametrize("target", ["server.py:pisqrt", "algo.py:pi_sqrt"])
def test_the_pi_example_takes_json_and_query_text(project: Project, target: str) -> None:
    backend = project.loaded(f"{EXAMPLE}/{target}")
    (command,) = backend.signature.commands
    assert command.name == target.partition(":")[2]
    handler = backend.handler(command.name)
    for a in (25, command.inputs["a"].from_text("25")):
        assert handler({"a": command.inputs["a"].deserialize(a)}) == {"result": 8.86226925452758}


@pytest.mark.parametrize(
    ("parameter", "kind"),
    [
        ("x: float", number()),
        ("x: int", number(step=1)),
        ("x: int | float", number()),
        ("x: str", text()),
        ("x: bool", boolean()),
        ("x: dict", any_()),
        ("x: dict[str, int]", any_()),
        ("x: Any", any_()),
        ("x", any_()),
        ("x=2", number(default=2)),
        ("x=False", boolean(default=False)),
        ("x='a'", text(default="a")),
        ("x: float = 2", number(default=2)),
        ("x: Literal['a', 'b']", category(["a", "b"])),
        ("x: Literal['a', 'b'] = 'b'", category(["a", "b"], default="b")),
        ("x: list", array()),
        ("x: list[str]", array(text)),
        ("x: Sequence[float]", array(number)),
        ("x: number(max=3)", number(max=3)),
        ("x: number(max=3) = 2", number(max=3, default=2)),
        ("x: Annotated[float, number(max=3)]", number(max=3)),
        ("x: Annotated[float, 'metres']", number()),
    ],
)
@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
def test_a_parameter_is_a_data_type(
    project: Project, parameter: str, kind: DataType, future: str
) -> None:
    project.write(
        "model.py",
        f"{future}from collections.abc import Sequence\n"
        "from typing import Annotated, Any, Literal\n"
        f"from modelcloud.data_types import number\ndef f({parameter}): ...\n",
    )
    (command,) = project.backend("model.py:f").signature.commands
    assert [(name, own.to_dict()) for name, own in command.inputs.items()] == [
        ("x", kind.to_dict())
    ]


@pytest.mark.parametrize("annotation", ["int | None", "Optional[int]"])
def test_an_optional_parameter_may_be_left_out_or_null(project: Project, annotation: str) -> None:
    project.write(
        "model.py", f"from typing import Optional\ndef f(x: {annotation} = None): return x\n"
    )
    kind = project.backend("model.py:f").signature.commands[0].inputs["x"]
    assert not kind.required
    assert kind.deserialize(None) is None
    assert kind.deserialize(3) == 3


def test_a_default_that_no_request_can_name_is_left_to_the_function(project: Project) -> None:
    project.write("model.py", "def f(x: int, make=set, *rest, **more): return len(make([x, x]))\n")
    backend = project.loaded("model.py:f")
    assert list(backend.signature.commands[0].inputs) == ["x"]
    assert backend.handler("f")({"x": 1}) == {"result": 1}


@pytest.mark.parametrize(
    ("parameter", "says"),
    [
        ("x: bytes", "parameter 'x': bytes stands for no data type"),
        ("x: list[bytes]", "stands for no data type"),
        ("x: 'Unknown'", "'Unknown' is not defined"),
        ("x: int = 'a'", "parameter 'x': number: default is the text 'a'"),
    ],
)
def test_an_annotation_without_data_type_is_refused_at_the_function(
    project: Project, parameter: str, says: str
) -> None:
    file = project.write("model.py", f"\n\ndef f({parameter}): ...\n")
    file.write_text(f"# comment\n\ndef f({parameter}): ...\n")
    with pytest.raises(ModelLoadError) as caught:
        project.backend("model.py:f")
    assert says in caught.value.message
    assert caught.value.fields == {"file": str(file), "line": 3}


def test_functions_of_every_kind_answer_with_result(project: Project) -> None:
    project.write(
        "model.py",
        """
        def value(x): return {"result": x}
        async def coroutine(x): return x
        def generator(x): yield x
        async def async_generator(x): yield x
        """,
    )

    async def answers(kind: CallKind) -> list[Any]:
        answer = project.loaded(f"model.py:{kind.value}").handler(kind.value)({"x": 1})
        if kind is CallKind.COROUTINE:
            return [await answer]
        if kind is CallKind.ASYNC_GENERATOR:
            return [item async for item in answer]
        return list(answer) if kind is CallKind.GENERATOR else [answer]

    for kind in CallKind:
        expected: dict[str, Any] = {"result": 1}
        if kind is CallKind.VALUE:  # a dict is the result, whatever its keys
            expected = {"result": {"result": 1}}
        assert asyncio.run(answers(kind)) == [expected]
        assert project.backend(f"model.py:{kind.value}").signature.commands[0].kind is kind


def test_callables_that_are_no_plain_functions_answer_too(project: Project) -> None:
    project.write(
        "model.py",
        """
        import functools
        class Adder:
            def __call__(self, a: int, b: int = 1): return a + b
        adder = Adder()
        part = functools.partial(adder.__call__, b=5)
        cached = functools.lru_cache(adder.__call__)
        """,
    )
    assert project.loaded("model.py:adder").handler("adder")({"a": 1, "b": 2}) == {"result": 3}
    assert project.loaded("model.py:part").handler("part")({"a": 1, "b": 5}) == {"result": 6}
    assert project.loaded("model.py:cached").handler("cached")({"a": 1, "b": 2}) == {"result": 3}
    assert project.loaded("math:sqrt").handler("sqrt")({"x": 4}) == {"result": 2}


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        ("", "any"),
        (" -> float", "number"),
        (" -> list[str]", "array"),
        (" -> Iterator[int]", "number"),
        (" -> bytes", "any"),
        (" -> None", "any"),
    ],
)
def test_the_result_is_what_the_annotation_says_else_any(
    project: Project, annotation: str, kind: str
) -> None:
    project.write(
        "model.py", f"from collections.abc import Iterator\ndef f(x){annotation}: yield x\n"
    )
    outputs = project.backend("model.py:f").signature.commands[0].outputs
    assert {name: kind.type_name for name, kind in outputs.items()} == {"result": kind}
