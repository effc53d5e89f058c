"""The documentation names what there is, all of it, and nothing else."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from modelcloud import data_types, errors
from modelcloud.cli.main import app
from modelcloud.cli.parse import size
from modelcloud.client import ERROR_OF_STATUS
from modelcloud.config import Limits, ServeConfig
from modelcloud.dataplane.messages import Stats
from modelcloud.serve import metrics_text, openapi
from modelcloud.types import Observed, State, Strategy
from support.markdown import (
    ROOT,
    anchors,
    blocks,
    code_words,
    links,
    name_of,
    pages,
    prose,
    rows,
    section,
)

REFERENCE = ROOT / "docs" / "reference"
CLI, HTTP, TYPES = REFERENCE / "cli.md", REFERENCE / "http.md", REFERENCE / "data-types.md"
OBSERVE = ROOT / "docs" / "how-to" / "observe.md"

COMMAND_LINE: Any = typer.main.get_command(app)
COMMANDS: dict[str, Any] = {
    "modelcloud": COMMAND_LINE,
    **{f"modelcloud {name}": command for name, command in COMMAND_LINE.commands.items()},
    **{
        f"modelcloud {family} {name}": command
        for family, group in COMMAND_LINE.commands.items()
        for name, command in getattr(group, "commands", {}).items()
    },
}


def documented_flags(command: str) -> dict[str, list[str]]:
    """Flag → the cells of its row, for each table row under the command's heading."""
    found = {}
    for row in rows(section(CLI, command)):
        for flag in code_words(row[0]):
            found[flag.split()[0]] = row
    return found


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_no_link_leads_nowhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_python_block_is_python(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            ast.parse(block.text, f"{name_of(page)}:{block.line}")


def test_every_page_of_the_docs_is_reached_from_the_readme() -> None:
    reached, new = set(), [ROOT / "README.md"]
    while new:
        page = new.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        new += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)
                if not link.startswith("http")]  # fmt: skip
    assert set(pages()) <= reached


def test_the_readme_begins_with_make_run_and_make_test() -> None:
    first = next(blocks(ROOT / "README.md"))
    assert first.text == "$ make run\n$ make test\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_documented_and_no_other(command: str) -> None:
    there = {
        name
        for parameter in COMMANDS[command].params
        if parameter.param_type_name == "option" and parameter.name != "help"
        for name in parameter.opts
    }
    assert set(documented_flags(command)) == there


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_default_is_the_flags_own(command: str) -> None:
    for parameter in COMMANDS[command].params:
        if parameter.param_type_name != "option" or not parameter.default or parameter.is_flag:
            continue
        said = code_words(documented_flags(command)[parameter.opts[0]][1])
        assert said, f"{parameter.opts[0]}: the default {parameter.default} is not documented"
        if isinstance(parameter.default, int | float):
            number = size(said[0]) if said[0][-1] in "kMG" else float(said[0])
            assert number == parameter.default, parameter.opts[0]
        else:
            assert said[0] == parameter.default, parameter.opts[0]


def test_every_setting_has_a_documented_flag() -> None:
    documented = {code_words(row[2])[0] for row in documented_flags("modelcloud serve").values()}
    settings = {*ServeConfig.__struct_fields__, *Limits.__struct_fields__}
    by_position_or_from_python = {"target", "options", "limits"}
    assert documented == settings - by_position_or_from_python


@pytest.mark.parametrize("name", data_types.__all__)
def test_every_data_type_is_documented_with_its_arguments(name: str) -> None:
    documented = {word for row in rows(section(TYPES, name)) for word in code_words(row[0])}
    there = set(inspect.signature(getattr(data_types, name)).parameters)
    assert documented == there - {"description", "default"}


def test_every_address_is_documented_and_no_other() -> None:
    signature: dict[str, Any] = {"commands": [], "options": [], "optionsSchema": {}}
    described = openapi.document(signature, service="s", version=1, token_needed=False)["paths"]
    there = {
        f"{method.upper()} {path.replace('{id}', '<id>')}"
        for path, methods in described.items()
        for method in methods
    }
    cells = " ".join(row[0] for row in rows(section(HTTP, "The server's own")))
    documented = {word for word in code_words(cells) if re.match(r"[A-Z]+ /", word)}
    assert documented == there | {"GET /docs.json", "GET /redoc"}


def test_every_status_of_an_error_is_documented() -> None:
    def statuses(kind: type[errors.ModelcloudError]) -> Iterator[int]:
        yield kind.status
        for child in kind.__subclasses__():
            if child.__module__ == errors.__name__:  # other tests make errors of their own
                yield from statuses(child)

    documented = {row[0] for row in rows(section(HTTP, "Statuses"))}
    assert {str(status) for status in statuses(errors.ModelcloudError)} <= documented
    assert {str(status) for status in ERROR_OF_STATUS} <= documented


def test_every_metric_is_documented_and_no_other() -> None:
    stats = Stats(
        seq=1, gateway_id=0, connections=0, connections_total=0, in_flight=0, queued={},
        rejected={}, retried=0, commands=[],
    )  # fmt: skip
    text, _ = metrics_text.render(
        metrics_text.Sources(
            service="s", gateways=[stats], observed=Observed(), generation=1, version=1,
            worker_restarts=0, rollouts={},
        )
    )  # fmt: skip
    there = set(re.findall(r"^# TYPE (\S+)", text.decode(), re.MULTILINE))
    documented = {word for row in rows(prose(OBSERVE)) for word in code_words(row[0])}
    assert {name for name in documented if name.startswith("modelcloud_")} == there


def test_every_strategy_and_state_is_documented() -> None:
    readme = {word for row in rows(prose(ROOT / "README.md")) for word in code_words(row[0])}
    assert {strategy.value for strategy in Strategy} <= readme
    concepts = prose(ROOT / "docs" / "concepts.md")
    for state in State:
        assert state.value in concepts
