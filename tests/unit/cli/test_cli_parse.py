"""What is typed becomes what it stands for, or a usage error that says what is accepted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from modelcloud.cli import parse
from modelcloud.types import Strategy, StrategySpec


def test_pairs_split_at_the_first_equals_sign() -> None:
    assert parse.pairs(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize("texts", [["a"], ["=1"], [""], ["a=1", "a=2"]])
def test_a_pair_without_a_name_or_given_twice_is_refused(texts: list[str]) -> None:
    with pytest.raises(typer.BadParameter):
        parse.pairs(texts)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("65536", 65536), ("64k", 65536), ("64M", 2**26), ("2G", 2**31)]
)
def test_a_size_is_bytes_or_a_number_with_a_unit(text: str, size: int) -> None:
    assert parse.size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5M", "64MB", "k", "1e3", "٣", "9" * 5000])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="accepted"):
        parse.size(text)


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (parse.whole, "0", 0),
        (parse.count, "1", 1),
        (parse.port, "65535", 65535),
        (parse.span, "0", 0.0),
        (parse.span, "1.5", 1.5),
        (parse.wait, ".5", 0.5),
        (parse.wait, "31536000", 31_536_000.0),
    ],
)
def test_a_number_in_its_range_is_read(
    read: Callable[[str], float], text: str, value: float
) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "texts"),
    [
        (parse.whole, ["", "-1", "1.0", "1e3", "٣", "99999999999"]),
        (parse.count, ["0", "2147483648"]),
        (parse.port, ["-1", "65536", "http"]),
        (parse.span, ["-1", "nan", "inf", "1e3", "31536001", "1h", "."]),
        (parse.wait, ["0", "0.001"]),
    ],
)
def test_a_number_out_of_its_range_is_refused(
    read: Callable[[str], float], texts: list[str]
) -> None:
    for text in texts:
        with pytest.raises(typer.BadParameter, match="accepted"):
            read(text)


def test_a_strategy_takes_its_numbers_and_none_means_none() -> None:
    assert parse.strategy(None, None, None) is None
    assert parse.strategy(Strategy.RECREATE, None, None) == StrategySpec(name=Strategy.RECREATE)
    rolling = parse.strategy(Strategy.ROLLING, 2, 0)
    assert rolling == StrategySpec(name=Strategy.ROLLING, max_surge=2, max_unavailable=0)


@pytest.mark.parametrize(
    ("name", "surge", "unavailable"),
    [
        (None, 1, None),
        (Strategy.BLUE_GREEN, None, 1),
        (Strategy.RECREATE, 1, None),
    ],
)
def test_numbers_that_the_strategy_has_no_use_for_are_refused(
    name: Strategy | None, surge: int | None, unavailable: int | None
) -> None:
    with pytest.raises(typer.BadParameter, match="--max-surge"):
        parse.strategy(name, surge, unavailable)


def test_the_token_leaves_the_environment_so_that_no_child_inherits_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(parse.TOKEN_VARIABLE, "s3cret")
    assert parse.token(None, None) == "s3cret"
    assert parse.TOKEN_VARIABLE not in os.environ
    assert parse.token(None, None) == ""


def test_a_flag_goes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\nsecond line\n")
    monkeypatch.setenv(parse.TOKEN_VARIABLE, "s3cret")
    assert parse.token(None, file) == "from-file"
    assert parse.token("flag", None) == "flag"


def test_a_token_that_cannot_be_had_is_refused_and_never_taken_as_none(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text("\n")
    binary.write_bytes(b"\xff\xfe")
    for text, file in [
        ("", None),
        ("a", empty),
        (None, empty),
        (None, binary),
        (None, tmp_path),
        (None, tmp_path / "missing"),
    ]:
        with pytest.raises(typer.BadParameter):
            parse.token(text, file)


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (parse.amount, "0", 0.0),
        (parse.amount, ".25", 0.25),
        (parse.amount, "3.", 3.0),
        (parse.share, "1", 1.0),
        (parse.memory, "0", 0),
        (parse.memory, "512M", 512 << 20),
        (parse.value, "0.98", 0.98),
        (parse.value, "NaN", "NaN"),
        (parse.value, "v2", "v2"),
    ],
)
def test_numbers_are_what_they_say(read: Callable[[str], Any], text: str, value: Any) -> None:
    assert read(text) == value


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1e3", "", ".", "1_0", "\u0663"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    for read in (parse.amount, parse.share, parse.memory):
        with pytest.raises(typer.BadParameter, match="accepted"):
            read(text)
    with pytest.raises(typer.BadParameter, match="from 0 to 1"):
        parse.share("1.1")
