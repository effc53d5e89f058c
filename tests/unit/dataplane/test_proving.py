"""What a candidate must answer before it gets traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelcloud.data_types import any as any_
from modelcloud.data_types import array, number, text
from modelcloud.dataplane.commands import BoundCommand
from modelcloud.dataplane.proving import check_golden, first_difference, warm_up
from modelcloud.errors import ModelLoadError
from modelcloud.sdk.contract import CallKind, Command


class Doubler:
    """A backend of one command."""

    def __init__(self, *, fails: bool = False, times: float = 2, **command: Any) -> None:
        self.calls: list[Any] = []
        self.fails = fails
        self.times = times
        self.command = Command(
            name="double",
            **{"inputs": {"n": number(default=2)}, "outputs": {"result": number()}, **command},
        )

    def handler(self, command: str) -> Any:
        def double(inputs: Any) -> Any:
            self.calls.append(inputs)
            if self.fails:
                raise RuntimeError("no")
            return inputs["n"] * self.times

        return double

    def bound(self) -> list[BoundCommand]:
        return [BoundCommand(self.command, self, max_body=1000, runenv="prod")]  # type: ignore[arg-type]


def test_without_a_file_each_command_is_warmed_up_with_its_defaults(tmp_path: Path) -> None:
    model = Doubler()
    assert warm_up(model.bound(), tmp_path) == []
    assert model.calls == [{"n": 2}]


def test_a_made_up_request_that_raises_is_a_warning(tmp_path: Path) -> None:
    (warning,) = warm_up(Doubler(fails=True).bound(), tmp_path)
    assert "RuntimeError: no" in warning


def test_a_made_up_requests_answer_that_does_not_fit_is_a_warning(tmp_path: Path) -> None:
    (warning,) = warm_up(Doubler(outputs={"result": number(max=3)}).bound(), tmp_path)
    assert "output result: got the number 4; accepted: a number of at most 3" in warning
    assert warm_up(Doubler(outputs={"result": number(max=4)}).bound(), tmp_path) == []


@pytest.mark.parametrize(
    "command",
    [
        {"idempotent": False},
        {"kind": CallKind.GENERATOR},
        {"whole_body": True},
        {"inputs": {"x": any_()}},
    ],
)
def test_nothing_is_made_up_where_it_could_do_harm(command: dict[str, Any]) -> None:
    model = Doubler(**command)
    assert warm_up(model.bound(), None) == []
    assert model.calls == []


def test_a_written_warm_up_request_must_succeed(tmp_path: Path) -> None:
    (tmp_path / "warmup.jsonl").write_text(
        '{"inputs": {"n": 5}}\n\n{"command": "double", "inputs": {}}\n'
    )
    model = Doubler()
    assert warm_up(model.bound(), tmp_path) == []
    assert model.calls == [{"n": 5}, {"n": 2}]
    with pytest.raises(ModelLoadError, match=r"warmup\.jsonl:1: double answered 500"):
        warm_up(Doubler(fails=True).bound(), tmp_path)


@pytest.mark.parametrize("outputs", [{"result": text}, {"result": array(number(max=3))}])
def test_an_answer_that_does_not_fit_its_declaration_fails_a_written_request(
    tmp_path: Path, outputs: dict[str, Any]
) -> None:
    outputs = {name: kind() if isinstance(kind, type) else kind for name, kind in outputs.items()}
    (tmp_path / "warmup.jsonl").write_text('{"inputs": {"n": 5}}\n')
    (tmp_path / "golden.jsonl").write_text('{"inputs": {"n": 5}, "expected": 10}\n')
    with pytest.raises(ModelLoadError, match=r"warmup\.jsonl:1: double: output result: got "):
        warm_up(Doubler(outputs=outputs).bound(), tmp_path)
    with pytest.raises(ModelLoadError, match=r"golden\.jsonl:1: double: output result: got "):
        check_golden(Doubler(outputs=outputs).bound(), tmp_path)


def test_a_nan_that_went_out_as_null_fits(tmp_path: Path) -> None:
    model = Doubler(inputs={"n": number(default=1)}, times=float("inf"))
    (tmp_path / "golden.jsonl").write_text('{"inputs": {"n": 5}, "expected": null}\n')
    assert check_golden(model.bound(), tmp_path) == 1
    assert warm_up(model.bound(), tmp_path) == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "accepted"),
        ('{"inputs": {}, "expected": 1, "typo": 1}', "typo"),
        ('{"inputs": {}}', "accepted"),
        ('{"inputs": {"n": "x"}, "expected": 1}', "answered 400"),
        ('{"command": "halve", "inputs": {}, "expected": 1}', "accepted: double"),
        ('{"inputs": {"n": 2}, "expected": {"result": 5}}', "answer.result is 4, expected 5"),
        ('{"inputs": {"n": 2}, "expected": {"other": 5}}', "answer.other is missing"),
    ],
)
def test_a_golden_line_that_fails_is_named(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "golden.jsonl").write_text(f'{{"inputs": {{}}, "expected": 4}}\n{line}\n')
    with pytest.raises(ModelLoadError) as caught:
        check_golden(Doubler().bound(), tmp_path)
    assert "golden.jsonl:2: " in caught.value.message
    assert says in caught.value.message


def test_golden_requests_are_counted(tmp_path: Path) -> None:
    (tmp_path / "golden.jsonl").write_text('{"inputs": {"n": 1.5}, "expected": {"result": 3}}\n')
    assert check_golden(Doubler().bound(), tmp_path) == 1
    assert check_golden(Doubler().bound(), None) == 0


@pytest.mark.parametrize(
    ("got", "expected", "tolerance", "same"),
    [
        (1.0, 1, 0.0, True),
        (1.05, 1.0, 0.1, True),
        (1.2, 1.0, 0.1, False),
        ([1, 2], [1, 2], 0.0, True),
        ([1, 2], [1], 0.0, False),
        ({"a": 1, "b": 2}, {"a": 1}, 0.0, True),
        (True, 1, 0.0, False),
        ("a", "a", 0.0, True),
        (None, None, 0.0, True),
        (None, 0, 5.0, False),
    ],
)
def test_answers_are_compared_within_a_tolerance(
    got: Any, expected: Any, tolerance: float, same: bool
) -> None:
    assert (first_difference(got, expected, tolerance) == "") is same
