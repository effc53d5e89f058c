"""What is asked for, held against what runs: what is wrong with it, and what there is to do.

Must never: do anything. Facts in, problems or changes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

import msgspec

from modelcloud.packages.conf import Conf, Section
from modelcloud.packages.ini import Problem
from modelcloud.serve.setup_body import read_strategy
from modelcloud.types import LOCAL, Resources, StrategySpec

#: The instance type where nothing is said of resources; every platform begins with it.
SMALL = "small"
#: The option by which `reconfigure` gets the `user_config`.
CONFIG = "config"


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """What a version runs; two that are equal are the same version."""

    digest: str
    requirements: str
    python: str
    model_path: str


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a version is deployed; the names are those of the platform."""

    instance_type: str
    replicas: int
    threads: int
    keep_warm_s: float
    strategy: dict[str, Any]
    options: dict[str, Any]
    engine: str


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that is there. `serves`: it has a proven generation that is wanted."""

    version: int
    serves: bool
    settings: Settings
    code: Code | None = None


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A service that is there."""

    name: str
    group: str
    source: str
    route: str | None
    method: str
    route_port: int
    port: int | None
    deployed: tuple[Deployed, ...] = ()


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A platform, as far as it matters here.

    Attributes:
        services: all that one may see, by name.
        types: the instance types, by name.
        port: its own data-plane port.
        cores, gpus: of its node.
        engines: where workers may run; the first one is where they do unless told.
        may_make_types: whether one may make instance types.
    """

    services: dict[str, Known]
    types: dict[str, Resources]
    port: int
    cores: float
    gpus: float
    engines: tuple[str, ...] = ("local",)
    may_make_types: bool = False


class Kind(str, Enum):
    """What becomes of a service."""

    ADD = "add"
    CHANGE = "change"
    REMOVE = "remove"
    KEEP = "keep"


class Roll(str, Enum):
    """How what runs becomes what is wanted."""

    NONE = "none"
    SCALE = "scale"  # the same workers, more or fewer of them
    OPTIONS = "options"  # a replacement by itself, in which only options differ
    REPLACE = "replace"
    NEW = "new"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done about one service.

    Attributes:
        words: each difference, for people.
        fields: of the service, that are to be made or changed.
        make_type: the instance type has to be made first.
        roll: how the deployment changes.
        scale: the number of replicas is changed first, or alone.
        replaces: the version that is online; 0: none.
        settings: how it is to be deployed.
        resources: of the instance type.
        clear: versions whose deployments have failed and are in the way.
        others: versions that somebody else put online beside it, which are to go.
    """

    name: str
    kind: Kind
    words: tuple[str, ...] = ()
    fields: dict[str, Any] = {}
    make_type: bool = False
    roll: Roll = Roll.NONE
    scale: bool = False
    replaces: int = 0
    settings: Settings | None = None
    resources: Resources = Resources()
    clear: tuple[int, ...] = ()
    others: tuple[int, ...] = ()


# ---- what is wrong


def problems(
    conf: Conf, facts: Facts, source: str, group: str | None, *, adopt: bool
) -> list[Problem]:
    """What of a `conf.ini` this platform cannot do, all of it.

    Args:
        conf: as far as it could be read.
        facts: of the platform.
        source: by which services of this `conf.ini` are known.
        group: where new ones are to be; None: one's own.
        adopt: take over services that are there and are not of this `conf.ini`.
    """
    found = []
    for section in conf.sections:
        for key, text in _of_section(section, conf, facts, source, group, adopt=adopt):
            found.append(Problem(conf.file, section.line_of(key), text))
    for section in _in_turn(conf, facts)[1]:
        told = (
            f"route {section.route} is that of a section that waits for another one's; accepted: a "
            "further route for one of them, and the exchange in a second apply"
        )
        found.append(Problem(conf.file, section.line_of("route"), told))
    owner = next(
        (one.name for one in facts.services.values() if conf.port and one.port == conf.port), ""
    )
    if owner:
        told = f"port {conf.port} is the own one of service {owner!r}; accepted: any other"
        found.append(Problem(conf.file, conf.port_line, told))
    return found


def _of_section(
    section: Section, conf: Conf, facts: Facts, source: str, group: str | None, *, adopt: bool
) -> Iterator[tuple[str, str]]:
    engine = section.engine or facts.engines[0]
    local = engine == LOCAL  # what a cluster has, it knows itself
    if local and section.replicas > facts.cores:
        yield (
            "replicas",
            (
                f"replicas is {section.replicas}, more than the {facts.cores:g} cores of the "
                f"platform's node; accepted: up to {int(facts.cores)}"
            ),
        )
    asked = section.gpu_cost * section.replicas
    if local and asked > facts.gpus:
        yield (
            "gpu_cost",
            (
                f"gpu_cost is {section.gpu_cost:g}, of {section.replicas} replicas {asked:g}, and "
                f"the platform's node has {facts.gpus:g} GPUs; accepted: 0, or what is there"
            ),
        )
    if engine not in facts.engines:
        yield (
            "engine",
            (
                f"engine is {engine}, which this platform was not started with; accepted: "
                + ", ".join(facts.engines)
            ),
        )
    name, resources = _type(section, facts.types)
    if name not in facts.types:
        if section.instance_type or not _asks(section):
            known = ", ".join(facts.types) or "none is there"
            yield "instance_type", f"there is no instance type {name}; accepted: {known}"
        elif not facts.may_make_types:
            key = next(key for key in ("cpu", "memory", "gpu_cost") if key in section.lines)
            yield (
                key,
                (
                    f"no instance type has cpu {resources.cpu:g}, memory {resources.memory} and "
                    f"gpu {resources.gpu:g}; accepted: those of an instance type, or one that an "
                    "administrator makes"
                ),
            )
    for other in facts.services:
        if other != section.name and other.lower() == section.name.lower():
            yield (
                "",
                (
                    f"its name differs from that of the service {other!r} by upper and lower case "
                    "alone; accepted: another name"
                ),
            )
    there = facts.services.get(section.name)
    if there is not None and there.source != source and not adopt:
        whose = f"is kept by {there.source}" if there.source else "was made by hand"
        yield (
            "",
            (
                f"there is a service {there.name!r} that {whose}; accepted: another name, or "
                "--adopt to have it kept by this file"
            ),
        )
    if there is not None and group not in {None, there.group}:
        yield "", f"service {there.name!r} is in group {there.group!r}, and never moves to another"
    yield from (("route", text) for text in _route_problems(section, conf, facts, source))


def _route_problems(section: Section, conf: Conf, facts: Facts, source: str) -> Iterator[str]:
    port = port_of(conf, facts)
    kept = {one.name for one in conf.sections}
    for other in facts.services.values():
        moves = other.name in kept or other.source == source
        if not moves and (other.route, other.route_port) == (section.route, port):
            yield f"route {section.route} is that of service {other.name!r}; accepted: another"
    first = section.route.partition("/")[0].lower()
    taken = {name.lower(): name for name in (*facts.services, *kept)}
    if not port and first in taken:
        yield (
            f"route {section.route} begins with the name of the service {taken[first]!r}, whose "
            f"addresses these are at the platform's port {facts.port}; accepted: another route, "
            "or another port"
        )


# ---- what is to do


def port_of(conf: Conf, facts: Facts) -> int:
    """Where the routes are, as the platform has it: 0 stands for its own port."""
    return 0 if conf.port == facts.port else conf.port


def changes(conf: Conf, codes: Mapping[str, Code], facts: Facts, source: str) -> list[Change]:
    """What there is to do, in order: what goes, goes first.

    Args:
        conf: without problems.
        codes: what each section's files are, by its name.
        facts: of the platform.
        source: by which services of this `conf.ini` are known; those of others are left alone.
    """
    wanted = {section.name for section in conf.sections}
    gone = [
        _removal(service)
        for service in facts.services.values()
        if service.source == source
        and service.name not in wanted
        and (service.deployed or service.route is not None)
    ]
    turn, _ = _in_turn(conf, facts)
    return gone + [_change(one, codes[one.name], conf, facts, source) for one in turn]


def _in_turn(conf: Conf, facts: Facts) -> tuple[list[Section], list[Section]]:
    """The sections, a route being left before it is taken; and those that wait for each other."""
    port = port_of(conf, facts)
    holders = {(one.route, one.route_port): one.name for one in facts.services.values()}
    turn: list[Section] = []
    left = {section.name: section for section in conf.sections}
    while left:
        free = [
            section
            for section in left.values()
            if holders.get((section.route, port)) not in left.keys() - {section.name}
        ]
        if not free:
            break
        turn += free
        for section in free:
            del left[section.name]
    return turn, [*left.values()]


def _removal(service: Known) -> Change:
    online = [deployed.version for deployed in service.deployed]
    what = f"version {', '.join(map(str, online))} drains" if online else "nothing is online"
    route = "" if service.route is None else f"; /{service.route} is free"
    return Change(name=service.name, kind=Kind.REMOVE, words=(what + route,))


def _change(section: Section, code: Code, conf: Conf, facts: Facts, source: str) -> Change:
    name, resources = _type(section, facts.types)
    settings = Settings(
        instance_type=name,
        replicas=section.replicas,
        threads=section.threads,
        keep_warm_s=section.keep_warm_s,
        strategy=_as_told(read_strategy(section.strategy)),
        options={} if section.user_config is None else {CONFIG: section.user_config},
        engine=section.engine or facts.engines[0],
    )
    common: dict[str, Any] = {
        "name": section.name,
        "settings": settings,
        "resources": resources,
        "make_type": name not in facts.types,
    }
    address = {
        "route": section.route,
        "method": section.method,
        "route_port": port_of(conf, facts),
        "source": source,
    }
    there = facts.services.get(section.name)
    if there is None:
        coming = (f"{settings.replicas} of {section.backend} at /{section.route}",)
        return Change(kind=Kind.ADD, words=coming, fields=address, roll=Roll.NEW, **common)
    fields = {key: value for key, value in address.items() if getattr(there, key) != value}
    words = tuple(
        f"{key} {_shown(getattr(there, key))} → {_shown(value)}" for key, value in fields.items()
    )
    serving = [one for one in there.deployed if one.serves]
    now = max(serving, key=lambda one: (one.code == code, one.version), default=None)
    others = tuple(one.version for one in serving if one is not now)
    if now is None:
        clear = tuple(one.version for one in there.deployed)
        words += (f"comes online with {settings.replicas} of {section.backend}",)
        return Change(
            kind=Kind.CHANGE if clear else Kind.ADD,
            words=words, fields=fields, roll=Roll.NEW, clear=clear, **common,
        )  # fmt: skip
    differs = [
        *_code_words(now.code, code),
        *_setting_words(now.settings, settings),
        *(f"version {one} drains" for one in others),
    ]
    roll, scale = _roll(now, code, settings)
    if not fields and roll is Roll.NONE and not others:
        return Change(kind=Kind.KEEP, replaces=now.version, **{**common, "make_type": False})
    return Change(
        kind=Kind.CHANGE,
        words=(*words, *differs),
        fields=fields,
        roll=roll,
        scale=scale,
        replaces=now.version,
        others=others,
        **common,
    )


def _roll(now: Deployed, code: Code, settings: Settings) -> tuple[Roll, bool]:
    """How the one becomes the other, and whether the replicas are changed by themselves."""
    if now.code != code:
        return Roll.REPLACE, False
    same = msgspec.structs.replace(settings, replicas=now.settings.replicas)
    scale = settings.replicas != now.settings.replicas
    if same == now.settings:
        return (Roll.SCALE, True) if scale else (Roll.NONE, False)
    if msgspec.structs.replace(same, options=now.settings.options) == now.settings:
        return Roll.OPTIONS, scale
    return Roll.REPLACE, False


def _code_words(old: Code | None, new: Code) -> Iterable[str]:
    if old is None or old.digest != new.digest:
        yield "code or model files"
    if old is None:
        return
    for key in ("requirements", "python", "model_path"):
        if getattr(old, key) != getattr(new, key):
            yield {"model_path": "model"}.get(key, key)


def _setting_words(old: Settings, new: Settings) -> Iterable[str]:
    for key in Settings.__struct_fields__:
        before, after = getattr(old, key), getattr(new, key)
        if before == after:
            continue
        if key == "options":
            yield "user_config"
        elif key == "strategy":
            yield f"strategy {before.get('name')} → {after['name']}"
        else:
            yield f"{key} {_shown(before)} → {_shown(after)}"


def _as_told(spec: StrategySpec) -> dict[str, Any]:
    """A strategy in the form in which a platform tells it: that of JSON."""
    told: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(spec))
    return told


def _asks(section: Section) -> bool:
    """Whether it names resources in numbers."""
    return bool(section.cpu or section.memory or section.gpu_cost)


def _type(section: Section, types: Mapping[str, Resources]) -> tuple[str, Resources]:
    """The instance type of a section, which may have to be made, and its resources."""
    if section.instance_type:
        return section.instance_type, types.get(section.instance_type, Resources())
    if not _asks(section):
        return SMALL, types.get(SMALL, Resources())
    asked = Resources(cpu=section.cpu, memory=section.memory, gpu=section.gpu_cost)
    for name, resources in types.items():
        if resources == asked:
            return name, asked
    parts = (f"cpu{asked.cpu:g}", f"memory{asked.memory}", f"gpu{asked.gpu:g}")
    return "-".join(parts).replace(".", "_"), asked


def _shown(value: Any) -> str:
    return (
        "none" if value in {None, ""} else f"{value:g}" if isinstance(value, float) else f"{value}"
    )
