"""The text of a conf.ini: what it asks for, and everything that is wrong with it, at once."""

from __future__ import annotations

import pytest

from modelcloud.packages.conf import KEYS, Conf, parse

#: As the seed has it.
SEED = """
# fixed section name, don't change
[MODEL SERVE]\x20
# port for model serve REST API
port = 666        \x20

# AlgoExample should be changed by user
[algopkg.AlgoExample]
backend = algo_backend
model = algoexample_model_v1.pb
replicas = 1
gpu_cost = 1
route = extract
method = GET
"""
TWO = """[MODEL SERVE]
port = 8080
[algopkg.One]
backend = A
route = one
[algopkg.Two]
backend = B
route = two
"""


def taken(text: str) -> Conf:
    conf, problems = parse(text, "conf.ini")
    assert problems == []
    return conf


def refused(text: str) -> list[str]:
    return [str(problem) for problem in parse(text, "conf.ini")[1]]


def test_the_file_of_the_seed_is_read_as_it_stands() -> None:
    conf = taken(SEED)
    (section,) = conf.sections
    assert (conf.port, conf.port_line) == (666, 5)
    assert (section.name, section.backend, section.line) == ("AlgoExample", "algo_backend", 8)
    assert (section.model, section.replicas, section.gpu_cost) == (
        ("algoexample_model_v1.pb",), 1, 1.0,
    )  # fmt: skip
    assert (section.route, section.method) == ("extract", "GET")


def test_what_is_left_out_or_left_empty_is_as_documented() -> None:
    conf = taken("[algopkg.X]\nbackend: X\nroute = /a/b\nmodel =\npython =\nstrategy =\n")
    (section,) = conf.sections
    assert conf.port == 0
    assert (section.model, section.replicas, section.gpu_cost, section.method) == (
        (), 1, 0.0, "GET",
    )  # fmt: skip
    assert (section.python, section.requirements, section.user_config) == ("", None, None)
    assert (section.strategy, section.keep_warm_s, section.engine) == ("blue_green", 60.0, "")
    assert section.route == "a/b"


def test_several_models_are_separated_by_commas() -> None:
    conf = taken("[algopkg.X]\nbackend=X\nroute=x\nmodel = a.pb, sub/b.pb ,\n")
    assert conf.sections[0].model == ("a.pb", "sub/b.pb")


def test_a_value_goes_on_in_lines_that_are_indented() -> None:
    text = '[algopkg.X]\nbackend=X\nroute=x\nuser_config = {\n    "threshold": 0.5,\n    "n": 3}\n'
    assert taken(text).sections[0].user_config == {"threshold": 0.5, "n": 3}


def test_keys_of_the_server_hold_for_every_section_that_says_nothing_else() -> None:
    text = TWO.replace("port = 8080", "engine = ray\nname = prod") + "engine = local\n"
    conf = taken(text)
    assert conf.name == "prod"
    assert [section.engine for section in conf.sections] == ["ray", "local"]


def test_a_section_that_is_commented_out_is_not_there() -> None:
    text = TWO.replace("[algopkg.Two]\nbackend = B\nroute = two", "#[algopkg.Two]\n;backend = B")
    assert [section.name for section in taken(text).sections] == ["One"]


@pytest.mark.parametrize(
    ("lines", "line", "words"),
    [
        ("replica = 2", 4, "replica is no key of [algopkg.X]; accepted: backend, model, replicas"),
        ("replicas = 0", 4, "replicas is '0'; accepted: a whole number from 1 to 64"),
        ("replicas = 2 # two", 4, "a comment has a line of its own"),
        ("replicas = 1\nreplicas = 2", 5, "replicas is there already, in line 4"),
        ("gpu_cost = -1", 4, "accepted: a number of at least 0"),
        ("method = PUT", 4, "accepted: GET or POST or any"),
        ("user_config = {a: 1}", 4, "accepted: JSON"),
        ("user_config = NaN", 4, "accepted: JSON"),
        ("strategy = green", 4, "accepted: one of blue_green, rolling, recreate, canary"),
        ("python = bin/python", 4, "absolute path"),
        ("engine = dask", 4, "accepted: local or ray"),
        ("memory = 1T", 4, "such as 512M"),
        ("model = ../secret", 4, "names of files in Model_ZOO"),
        ("keep_warm_s = 1e9", 4, "accepted: seconds, from 0 to 86400"),
        ("cpu = 2\ninstance_type = small", 5, "one instance type, or the numbers"),
        ("what is this", 4, "accepted: [section], or key = value"),
        ("[algopkg.Y]\nbackend = Y\nroute = healthz/x", 6, "does not begin with api, "),
        ("[algopkg.predict]\nbackend = Y\nroute = y", 4, "is none of api, "),
    ],
)
def test_a_wrong_line_is_refused_with_its_number_and_what_is_accepted(
    lines: str, line: int, words: str
) -> None:
    (told,) = refused(f"[algopkg.X]\nbackend = X\nroute = x\n{lines}\n")
    assert told.startswith(f"conf.ini:{line}: ")
    assert words in told


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "6 6 6"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    (told,) = refused(TWO.replace("8080", port))
    assert told.startswith("conf.ini:2: port is ")
    assert "1 to 65535" in told


@pytest.mark.parametrize("route", ["", "/", "a//b", "a b", "../x", "a/" * 8 + "a", "x" * 201])
def test_a_route_that_is_no_path_is_refused(route: str) -> None:
    (told,) = refused(TWO.replace("route = one", f"route = {route}"))
    assert told.startswith("conf.ini:5: route is ")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("[algopkg.One]", "[algopkg.One] is there already, in line 3"),
        ("[algopkg.one]", "upper and lower case alone"),
        ("[MODEL_SERVE]", "accepted: [MODEL SERVE], or [algopkg.NAME]"),
        ("[algopkg.a-b]", "accepted: [MODEL SERVE], or [algopkg.NAME]"),
        ("[algopkg.]", "accepted: [MODEL SERVE], or [algopkg.NAME]"),
    ],
)
def test_a_section_that_cannot_be_one_is_refused_by_its_line(head: str, words: str) -> None:
    told = refused(TWO.replace("[algopkg.Two]", head))
    assert told[0].startswith("conf.ini:6: ")
    assert words in told[0]


def test_two_sections_with_one_route_are_refused_at_the_second() -> None:
    (told,) = refused(TWO.replace("route = two", "route = one"))
    assert told == (
        "conf.ini:8: route one is that of [algopkg.One] too, in line 5; accepted: a route of its "
        "own for each section"
    )


def test_everything_that_is_wrong_is_told_at_once() -> None:
    told = refused("[MODEL SERVE]\nport = x\n[algopkg.X]\nreplicas = y\ncolour = red\n[z]\n")
    assert [text.split(":")[1] for text in told] == ["2", "4", "5", "3", "6"]
    assert "[algopkg.X] has no backend and no route, which it needs" in told[3]


def test_a_section_with_a_mistake_is_there_to_be_looked_at_further() -> None:
    conf, problems = parse(TWO.replace("route = one", "route = one\nreplicas = x\ny = 1"), "f")
    assert [section.name for section in conf.sections] == ["One", "Two"]
    assert len(problems) == 2


def test_every_key_has_a_field() -> None:
    (section, _) = taken(TWO).sections
    assert all(hasattr(section, key) for key in KEYS)
