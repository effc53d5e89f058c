"""The documentation names what there is, all of it, and nothing else."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import typer

from modelcloud import data_types, errors
from modelcloud.cli.main import app
from modelcloud.cli.parse import size
from modelcloud.client import ERROR_OF_STATUS
from modelcloud.config import Limits, PlatformConfig, ServeConfig
from modelcloud.control.api import docs as api_docs
from modelcloud.control.app import create_app
from modelcloud.control.observe import prometheus
from modelcloud.control.state import PlatformState
from modelcloud.control.web.gate import PUBLIC_PAGES
from modelcloud.dataplane.messages import Stats
from modelcloud.engines.fake import FakeEngine
from modelcloud.node.orders import Counters
from modelcloud.packages.conf import KEYS, SERVER_KEYS, Key
from modelcloud.packages.plan import SMALL
from modelcloud.platform import Platform
from modelcloud.serve import metrics_text, openapi
from modelcloud.types import Observed, State, Strategy
from support.control import standing_of
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
API, CLIENT = REFERENCE / "api.md", REFERENCE / "client.md"
CONF_INI = REFERENCE / "conf-ini.md"
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


#: What is told once, of every command for a platform that has it.
PLATFORM = {
    "modelcloud " + name
    for name, command in COMMAND_LINE.commands.items()
    if command.rich_help_panel == "Platform"
}


def documented_flags(heading: str) -> dict[str, list[str]]:
    """Flag → the cells of its row, for each table row under a heading, such as a command's."""
    found = {}
    for row in rows(section(CLI, heading)):
        for flag in code_words(row[0]):
            if flag.startswith("-"):
                found[flag.split()[0]] = row
    return found


def flags_of(command: str) -> set[str]:
    """The flags that a command has."""
    return {
        name
        for parameter in COMMANDS[command].params
        if parameter.param_type_name == "option" and parameter.name != "help"
        for name in (*parameter.opts, *parameter.secondary_opts)
    }


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
    there = flags_of(command)
    documented = set(documented_flags(command))
    if " ".join(command.split()[:2]) in PLATFORM:
        common = set(documented_flags("Platform commands"))
        assert not documented & common, "told twice"
        documented |= common & there
    assert documented == there


def test_what_is_told_of_all_platform_commands_is_true_of_some() -> None:
    for flag in documented_flags("Platform commands"):
        assert sum(flag in flags_of(command) for command in COMMANDS) > 1, flag


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
            assert said[0] == str(parameter.default), parameter.opts[0]


def test_every_setting_has_a_documented_flag() -> None:
    documented = {code_words(row[2])[0] for row in documented_flags("modelcloud serve").values()}
    settings = {*ServeConfig.__struct_fields__, *Limits.__struct_fields__}
    from_python = {"options", "limits"}
    assert documented == settings - from_python
    of_up = {
        word for row in documented_flags("modelcloud up").values() for word in code_words(row[2])
    }
    found_out_or_no_flag = {"hidden", "database_variables", "limits"}
    limits = set(Limits.__struct_fields__)
    assert of_up - limits == set(PlatformConfig.__struct_fields__) - found_out_or_no_flag
    assert of_up & limits == {"body", "queue", "deadline_s"}


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


# ---- the platform's API, and its client

API_DOCUMENT: dict[str, Any] = api_docs.document(
    create_app(PlatformState(store=cast("Any", None), engine=FakeEngine(), standing=standing_of()))
)
#: `GET /services/{service}` → its operation in the OpenAPI document.
OPERATIONS: dict[str, dict[str, Any]] = {
    f"{method.upper()} {path.removeprefix('/api/v1')}": operation
    for path, methods in API_DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
NOUNS = sorted({operation["tags"][0] for operation in OPERATIONS.values()})
#: The column "how" stands for these parameters.
HOW = {"page": {"limit", "cursor"}, "edit": {"if-match"}, "once": {"idempotency-key"}}


def documented_addresses(heading: str) -> dict[str, list[str]]:
    """Address → the cells of its row."""
    found = {}
    for row in rows(section(API, heading)):
        for word in code_words(row[0]):
            if re.match(r"[A-Z]+ /", word):
                found[word] = row
    return found


def schemas_of(found: Any) -> Iterator[str]:
    """The names of the schemas that a part of the document refers to, and those these refer to."""
    if isinstance(found, dict):
        if "$ref" in found:
            name = found["$ref"].rpartition("/")[2]
            yield name
            yield from schemas_of(API_DOCUMENT["components"]["schemas"][name])
        for part in found.values():
            yield from schemas_of(part)
    elif isinstance(found, list):
        for part in found:
            yield from schemas_of(part)


def fields_of(found: Any) -> set[str]:
    """The fields of all objects that a part of the document refers to."""
    schemas = API_DOCUMENT["components"]["schemas"]
    return {field for name in schemas_of(found) for field in schemas[name].get("properties", ())}


@pytest.mark.parametrize("noun", NOUNS)
def test_every_address_of_the_api_is_documented_and_no_other(noun: str) -> None:
    there = {name for name, operation in OPERATIONS.items() if operation["tags"][0] == noun}
    assert set(documented_addresses(noun.capitalize())) == there


@pytest.mark.parametrize("address", OPERATIONS)
def test_what_an_address_takes_and_answers_is_documented(address: str) -> None:
    operation = OPERATIONS[address]
    _, takes, how, answer = documented_addresses(operation["tags"][0].capitalize())[address]
    parameters = {one["name"] for one in operation.get("parameters", ()) if one["in"] != "path"}
    body = operation.get("requestBody", {}).get("content", {})
    top = [API_DOCUMENT["components"]["schemas"][name] for name in schemas_of(body)][:1]
    fields = {field for schema in top for field in schema["properties"]}
    words = set(re.findall(r"[a-z]+", how))
    assert words <= set(HOW)
    of_how = {parameter for word in words for parameter in HOW[word]}
    assert set(code_words(takes)) | of_how == fields | parameters - {"last-event-id"}
    assert not set(code_words(takes)) & of_how
    (status,) = {*operation["responses"]} - {"default"}
    assert answer.startswith(status)


@pytest.mark.parametrize("noun", NOUNS)
def test_every_field_of_the_api_is_documented(noun: str) -> None:
    text = section(API, noun.capitalize())
    told = {word for words in code_words(text) for word in re.findall(r"[a-z0-9_]+", words)}
    asked = [operation for operation in OPERATIONS.values() if operation["tags"][0] == noun]
    elsewhere = {"items", "next"}  # of every list
    if noun == "deployments":
        elsewhere |= fields_of({"$ref": "/RolloutRecord"})
    assert fields_of([{**operation, "responses": {
        status: answer for status, answer in operation["responses"].items() if status != "default"
    }} for operation in asked]) - elsewhere <= told  # fmt: skip


def test_every_page_beside_the_api_is_documented_and_no_other() -> None:
    files = {page for page in PUBLIC_PAGES if page.startswith("/api/docs/")}
    there = {f"GET {page}" for page in (PUBLIC_PAGES - files) | {"/metrics"}}
    assert set(documented_addresses("Beside the API")) == there


def test_every_word_of_the_platform_client_is_documented_with_its_arguments() -> None:
    def form(name: str) -> str:
        word = inspect.getattr_static(Platform, name)
        if isinstance(word, property):
            return name
        parameters = list(inspect.signature(word).parameters.values())[1:]
        told = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
        return f"{name}{inspect.Signature(told)}".replace("''", '""')

    words = {name for name, _ in inspect.getmembers(Platform) if not name.startswith("_")}
    cells = [row[0] for row in rows(section(CLIENT, "A platform"))]
    assert {word for cell in cells for word in code_words(cell)} == {form(word) for word in words}


def test_every_status_of_an_error_is_documented() -> None:
    def statuses(kind: type[errors.ModelcloudError]) -> Iterator[int]:
        yield kind.status
        for child in kind.__subclasses__():
            if child.__module__ == errors.__name__:  # other tests make errors of their own
                yield from statuses(child)

    of_the_platform = {"412"}
    documented = {row[0] for row in rows(section(HTTP, "Statuses"))} | of_the_platform
    assert {str(status) for status in statuses(errors.ModelcloudError)} <= documented
    assert {str(status) for status in ERROR_OF_STATUS} <= documented
    of_models = {"502"}
    assert documented - of_models == {row[0] for row in rows(section(API, "Errors"))}


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
    text += prometheus.render(
        Counters(seq=1, gateways=[stats], workers=[]), prometheus.Stored({}, {}), {}
    )[0]
    there = set(re.findall(r"^# TYPE (\S+)", text.decode(), re.MULTILINE))
    documented = {word for row in rows(prose(OBSERVE)) for word in code_words(row[0])}
    assert {name for name in documented if name.startswith("modelcloud_")} == there


@pytest.mark.parametrize(
    ("heading", "keys"),
    [("The server", SERVER_KEYS), ("A package", KEYS)],
    ids=["server", "package"],
)
def test_every_key_of_a_conf_ini_is_documented_with_its_default(
    heading: str, keys: Mapping[str, Key]
) -> None:
    documented = {code_words(row[0])[0]: row[1] for row in rows(section(CONF_INI, heading))}
    assert documented.keys() == keys.keys()
    for name, key in keys.items():
        assert (documented[name] == "needed") == key.needed
        if documented[name].startswith("`"):
            assert code_words(documented[name])[0] in {f"{key.default}", f"{key.default:g}"
                                                       if isinstance(key.default, float) else "",
                                                       SMALL}  # fmt: skip


def test_every_strategy_and_state_is_documented() -> None:
    readme = {word for row in rows(prose(ROOT / "README.md")) for word in code_words(row[0])}
    assert {strategy.value for strategy in Strategy} <= readme
    concepts = prose(ROOT / "docs" / "concepts.md")
    for state in State:
        assert state.value in concepts
