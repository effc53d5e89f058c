"""Values of `conf.ini`, from their text: one reader for each kind.

Must never: read a file; a reader that refuses says what it accepts, and nothing else.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Any

from modelcloud.dataplane.paths import unfit_route
from modelcloud.errors import UsageError
from modelcloud.serve.setup_body import read_strategy

MAX_REPLICAS, MAX_THREADS = 64, 64
MAX_KEEP_WARM_S = 24 * 3600.0
ENGINES = ("local", "ray")
METHODS = {"GET": "GET", "POST": "POST", "ANY": "any"}
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


class Unfit(Exception):
    """The text is no such value; the message says what is accepted."""


def identifier(text: str) -> str:
    """A name of Python."""
    if not text.isidentifier():
        raise Unfit("the name of a class in backend.py")
    return text


def word(text: str) -> str:
    """A name, such as of an instance type."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", text):
        raise Unfit("letters, digits, _ . or -, beginning with a letter or digit")
    return text


def whole(text: str, low: int, high: int) -> int:
    """A whole number from `low` to `high`."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise Unfit(f"a whole number from {low} to {high}")
    return int(text)


def port(text: str) -> int:
    """A TCP port."""
    return whole(text, 1, 65_535)


def replicas(text: str) -> int:
    """A number of workers."""
    return whole(text, 1, MAX_REPLICAS)


def threads(text: str) -> int:
    """Calls that a worker runs at a time."""
    return whole(text, 1, MAX_THREADS)


def amount(text: str) -> float:
    """A number of at least 0."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?|\.[0-9]{1,6}", text):
        raise Unfit("a number of at least 0, such as 0.5")
    return float(text)


def seconds(text: str) -> float:
    """Seconds, up to a day."""
    try:
        found = amount(text)
    except Unfit:
        found = -1.0
    if not 0 <= found <= MAX_KEEP_WARM_S:
        raise Unfit(f"seconds, from 0 to {MAX_KEEP_WARM_S:g}")
    return found


def size(text: str) -> int:
    """Bytes, with the units of 1024 that the command line takes; 0: no limit."""
    found = re.fullmatch(r"([0-9]{1,15})([KMG]?)", text.upper())
    if found is None:
        raise Unfit("bytes, or a number with k, M or G, such as 512M; 0: no limit")
    return int(found[1]) * _UNITS[found[2]]


def names(text: str) -> tuple[str, ...]:
    """Names of files below `Model_ZOO`, separated by commas; none where it is empty."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in found:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or str(path) in {"", "."}:
            raise Unfit("names of files in Model_ZOO, separated by commas, or nothing")
    return tuple(str(PurePosixPath(name)) for name in found)


def route(text: str) -> str:
    """A path without its leading slash."""
    path = text.removeprefix("/")
    accepted = unfit_route(path)
    if accepted:
        raise Unfit(accepted)
    return path


def method(text: str) -> str:
    """How the route is asked."""
    if text.upper() not in METHODS:
        raise Unfit(" or ".join(METHODS.values()))
    return METHODS[text.upper()]


def engine(text: str) -> str:
    """Where workers run."""
    if text not in ENGINES:
        raise Unfit(" or ".join(ENGINES))
    return text


def python(text: str) -> str:
    """The interpreter's place on the machine that serves."""
    if not PurePosixPath(text).is_absolute():
        raise Unfit("the absolute path of a Python interpreter on the machine that serves")
    return text


def file_name(text: str) -> str:
    """A file, from the folder of `conf.ini` on; empty: none."""
    if "\0" in text:
        raise Unfit("the path of a file")
    return text


def config(text: str) -> Any:
    """What `reconfigure` gets, as JSON."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Unfit(f'JSON, such as {{"threshold": 0.5}} ({error})') from None


def strategy(text: str) -> Any:
    """A strategy's name, or an object with its numbers as JSON."""
    given = config(text) if text.startswith("{") else text
    try:
        read_strategy(given)
    except UsageError as error:
        raise Unfit(error.message.partition("accepted: ")[2] or error.message) from None
    return given


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
