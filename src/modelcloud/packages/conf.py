"""The text of a `conf.ini` → what is to run, as plain data.

Must never: read a file or ask a platform; `sources` and `plan` hold it against those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from modelcloud.dataplane.paths import RESERVED_SERVICES
from modelcloud.packages import ini, values
from modelcloud.packages.ini import Block, Problem
from modelcloud.packages.values import Unfit

#: The section of the server itself, and what stands before a package's name.
SERVER, PREFIX = "MODEL SERVE", "algopkg."


class Key(NamedTuple):
    """A key that a section may have: how its text is read, and what it is where it is missing."""

    read: Callable[[str], Any]
    default: Any = None
    needed: bool = False


SERVER_KEYS: Mapping[str, Key] = {
    "port": Key(values.port, 0),
    "name": Key(values.word, ""),
    "engine": Key(values.engine, ""),
}
KEYS: Mapping[str, Key] = {
    "backend": Key(values.identifier, needed=True),
    "model": Key(values.names, ()),
    "replicas": Key(values.replicas, 1),
    "gpu_cost": Key(values.amount, 0.0),
    "route": Key(values.route, needed=True),
    "method": Key(values.method, "GET"),
    "user_config": Key(values.config),
    "requirements": Key(values.file_name),
    "python": Key(values.python, ""),
    "instance_type": Key(values.word, ""),
    "cpu": Key(values.amount, 0.0),
    "memory": Key(values.size, 0),
    "threads": Key(values.threads, 1),
    "strategy": Key(values.strategy, "blue_green"),
    "keep_warm_s": Key(values.seconds, 60.0),
    "engine": Key(values.engine, ""),
}
#: Keys that together name the resources of a replica.
_RESOURCES = ("cpu", "memory", "gpu_cost")


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One package that is to run.

    Attributes:
        name: of the package, and of the service that it becomes.
        line: of the section's head; `lines` of its keys.
        the others: the keys of `KEYS`, read. `user_config` None: none. `requirements` None: the
            package's own file where there is no `python`, and none beside one; "": none.
    """

    name: str
    line: int
    lines: dict[str, int]
    backend: str
    model: tuple[str, ...]
    replicas: int
    gpu_cost: float
    route: str
    method: str
    user_config: Any
    requirements: str | None
    python: str
    instance_type: str
    cpu: float
    memory: int
    threads: int
    strategy: Any
    keep_warm_s: float
    engine: str

    def line_of(self, key: str) -> int:
        """Where a key stands; where it does not, the section's own line."""
        return self.lines.get(key, self.line)


class Conf(msgspec.Struct, frozen=True, kw_only=True):
    """A whole `conf.ini`.

    Attributes:
        file: as it was named.
        port: where the routes are to be had; 0: at the platform's own port.
        port_line: 0 where it is not named.
        name: by which what it made is known; "": by its place.
        sections: in order.
    """

    file: str
    port: int
    port_line: int
    name: str
    sections: tuple[Section, ...]


def parse(text: str, file: str, engine: str = "") -> tuple[Conf, list[Problem]]:
    """What a text asks for, and all that is wrong with it.

    With problems, it is what can be looked at further: a section without what it needs is left out,
    and in place of what cannot be read stands what a missing key means.

    Args:
        text: of the file.
        file: its name, for the problems.
        engine: of sections for which it names none; "": the platform's own choice.
    """
    blocks, problems = ini.read(text, file)
    server = next((block for block in blocks if block.name == SERVER), Block(SERVER, 0, {}))
    given = _values(server, SERVER_KEYS, file, problems)
    sections = []
    for block in blocks:
        name = block.name.removeprefix(PREFIX)
        if block.name == SERVER:
            continue
        if not block.name.startswith(PREFIX) or not is_name(name):
            accepted = (
                f"[{SERVER}], or [{PREFIX}NAME] with the name of a folder below algopkg, which "
                "is none of " + ", ".join(sorted(RESERVED_SERVICES))
            )
            told = f"[{block.name}] is no section; accepted: {accepted}"
            problems.append(Problem(file, block.line, told))
            continue
        found = _values(block, KEYS, file, problems)
        if all(found[key] for key, of in KEYS.items() if of.needed):
            found["engine"] = found["engine"] or given["engine"] or engine
            lines = {key: entry.line for key, entry in block.entries.items()}
            sections.append(Section(name=name, line=block.line, lines=lines, **found))
    problems += _clashes(sections, file)
    port_line = server.entries["port"].line if "port" in server.entries else 0
    conf = Conf(
        file=file,
        port=given["port"] or 0,
        port_line=port_line,
        name=given["name"] or "",
        sections=tuple(sections),
    )
    return conf, problems


def is_name(name: str) -> bool:
    """Whether a package may be called so: it is imported by it, and it becomes a service's name."""
    fits = name.isidentifier() and name.isascii() and name[0] != "_" and len(name) <= 63
    return fits and name.lower() not in RESERVED_SERVICES


def _values(
    block: Block, keys: Mapping[str, Key], file: str, problems: list[Problem]
) -> dict[str, Any]:
    found: dict[str, Any] = {name: key.default for name, key in keys.items()}
    for name, entry in block.entries.items():
        key = keys.get(name)
        if key is None:
            told = f"{name} is no key of [{block.name}]; accepted: {', '.join(keys)}"
            problems.append(Problem(file, entry.line, told))
            continue
        if not entry.text and not key.needed and name not in {"requirements", "model"}:
            continue  # a key that is left empty is as one that is left out
        try:
            found[name] = key.read(entry.text)
        except Unfit as error:
            told = f"{name} is {entry.text[:60]!r}; accepted: {error}"
            if "#" in entry.text or ";" in entry.text:
                told += "; a comment has a line of its own"
            problems.append(Problem(file, entry.line, told))
    missing = [name for name, key in keys.items() if key.needed and name not in block.entries]
    if missing:
        told = f"[{block.name}] has no {' and no '.join(missing)}, which it needs"
        problems.append(Problem(file, block.line, told))
    return found


def _clashes(sections: Iterable[Section], file: str) -> list[Problem]:
    """What two keys, or two sections, cannot both be."""
    problems = []
    routes: dict[str, Section] = {}
    names: dict[str, Section] = {}
    for section in sections:
        other = routes.setdefault(section.route, section)
        if other is not section:
            told = (
                f"route {section.route} is that of [{PREFIX}{other.name}] too, in line "
                f"{other.line_of('route')}; accepted: a route of its own for each section"
            )
            problems.append(Problem(file, section.line_of("route"), told))
        other = names.setdefault(section.name.lower(), section)
        if other is not section and other.name != section.name:
            told = (
                f"[{PREFIX}{section.name}] differs from [{PREFIX}{other.name}] in line "
                f"{other.line} by upper and lower case alone; accepted: different names"
            )
            problems.append(Problem(file, section.line, told))
        both = [key for key in _RESOURCES if key in section.lines and getattr(section, key)]
        if section.instance_type and both:
            told = (
                f"instance_type stands beside {', '.join(both)}; accepted: one instance type, or "
                "the numbers"
            )
            problems.append(Problem(file, section.line_of("instance_type"), told))
    return problems
