"""The text of an ini file → its sections, with the line of everything in it.

Must never: know what a section is for, read a file, or stop at the first mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from modelcloud.errors import UsageError

_HEAD = re.compile(r"\[([^\]]*)\]\s*")
_ENTRY = re.compile(r"([^=:]*?)\s*[=:]\s*(.*)")


class Problem(NamedTuple):
    """What is wrong at a place, and what is accepted there. `line` 0: of the file as a whole."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


class Refused(UsageError):
    """Everything that is wrong with a `conf.ini`, in one error; nothing was changed."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("; ".join(map(str, self.problems)))


class Entry(NamedTuple):
    """A value as it stands there, and the line that it begins in."""

    text: str
    line: int


class Block(NamedTuple):
    """A section: its name, the line of its head, and its entries by key, in lower case."""

    name: str
    line: int
    entries: dict[str, Entry]


def read(text: str, file: str) -> tuple[list[Block], list[Problem]]:
    """The sections of a text, in order, and what of it is no section or entry.

    Lines that begin with `#` or `;` are comments. A line that is indented goes on with the value
    above it. As with Python's `configparser`, a comment cannot follow a value in its line.
    """
    blocks: list[Block] = []
    problems: list[Problem] = []
    key: str | None = None
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        content = line.strip()
        if not content or content[0] in "#;":
            continue
        if line[0].isspace() and key is not None:
            entry = blocks[-1].entries[key]
            blocks[-1].entries[key] = entry._replace(text=f"{entry.text}\n{content}".strip())
            continue
        key = None
        if head := _HEAD.fullmatch(content):
            name = head[1].strip()
            earlier = next((block for block in blocks if block.name == name), None)
            if earlier is not None:
                told = f"[{name}] is there already, in line {earlier.line}; accepted: each once"
                problems.append(Problem(file, number, told))
            blocks.append(Block(name, number, {}))
        elif (found := _ENTRY.fullmatch(content)) and found[1] and blocks:
            key = found[1].lower()
            if key in blocks[-1].entries:
                told = f"{key} is there already, in line {blocks[-1].entries[key].line}"
                problems.append(Problem(file, number, f"{told}; accepted: each key once"))
            blocks[-1].entries[key] = Entry(found[2], number)
        else:
            where = "" if blocks else ", below a [section]"
            told = f"{content[:60]!r} is not taken; accepted: [section], or key = value{where}"
            problems.append(Problem(file, number, told))
    return blocks, problems
