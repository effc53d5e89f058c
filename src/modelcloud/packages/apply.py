"""Makes a platform what a `conf.ini` says: reads what runs, has it planned, does it.

Must never: touch a service that is not of this `conf.ini`, or change anything while a problem is
known.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from modelcloud.errors import Conflict, DeadlineExceeded, ModelcloudError, NotFound, UpdateFailed
from modelcloud.packages import conf as confs
from modelcloud.packages import plan, sources
from modelcloud.packages.conf import Conf
from modelcloud.packages.ini import Problem, Refused
from modelcloud.packages.plan import (
    Change,
    Code,
    Deployed,
    Facts,
    Kind,
    Known,
    Roll,
    Settings,
)
from modelcloud.packages.sources import Source
from modelcloud.platform.once import once
from modelcloud.types import Resources

if TYPE_CHECKING:
    from modelcloud.platform import Platform

Record = dict[str, Any]

#: For a deployment to finish what it received, and for a port to be had.
DRAIN_S, PORT_S = 600.0, 5.0
PAUSE_S = 0.1


class Display(Protocol):
    """Where it is shown how it goes."""

    def said(self, text: str) -> None:
        """Take a line."""

    def sent(self, name: str, send: Callable[[Callable[[int, int], None]], Record]) -> Record:
        """Run `send`, and show the bytes sent so far, of all, that it tells."""

    def followed(self, name: str, rollout_id: int) -> Record:
        """The rollout once it has succeeded; raises what else became of it."""


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What one service came to. `error`: why not; "" where all went well."""

    name: str
    kind: Kind
    words: tuple[str, ...] = ()
    version: int = 0
    error: str = ""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a `conf.ini` asks for.

    Attributes:
        source: by which the services it makes are known.
        files: what each section is made of, by name.
        problems: what is wrong with it, whatever the platform; nothing is to be done then.
    """

    conf: Conf
    source: str
    files: dict[str, Source]
    problems: tuple[Problem, ...] = ()


def read(path: Path, text: str, engine: str = "") -> Asked:
    """What a `conf.ini` asks for, with the files that it names.

    `engine`: of the sections for which it names none.
    """
    conf, problems = confs.parse(text, str(path), engine)
    files, missing = sources.read(conf, path.resolve().parent)
    return Asked(
        conf=conf,
        source=source_of(conf, path),
        files=files,
        problems=(*problems, *missing),
    )


def source_of(conf: Conf, path: Path) -> str:
    """By which the services of a `conf.ini` are known: its name, else where it stands."""
    if conf.name:
        return f"conf.ini {conf.name}"
    return f"{socket.gethostname()}:{path.resolve()}"[-500:]


def planned(platform: Platform, asked: Asked, group: str | None, *, adopt: bool) -> list[Change]:
    """What there is to do.

    Raises:
        Refused: with everything that is wrong, for itself and on this platform.
    """
    names = {section.name for section in asked.conf.sections}
    facts = gather(platform, asked.source, names)
    problems = plan.problems(asked.conf, facts, asked.source, group, adopt=adopt)
    if asked.problems or problems:
        raise Refused([*asked.problems, *problems])
    codes = {name: _code(source) for name, source in asked.files.items()}
    return plan.changes(asked.conf, codes, facts, asked.source)


def settle(platform: Platform, asked: Asked, display: Display) -> None:
    """Wait for rollouts that are under way: what comes of them is what there is to change."""
    for record in platform.services():
        if record["source"] != asked.source:
            continue
        for deployment in platform.deployments(record["name"]):
            rollout = deployment["rollout"]
            if rollout is not None and rollout["finished_at"] is None:
                display.said(f"{record['name']}: waiting for rollout {rollout['id']}")
                with contextlib.suppress(UpdateFailed, DeadlineExceeded):
                    platform.wait(rollout["id"])


def gather(platform: Platform, source: str, names: set[str]) -> Facts:
    """A platform, as far as it matters to a `conf.ini` with sections of these names."""
    node, me = platform.node(), platform.whoami()
    types = {
        one["name"]: Resources(cpu=one["cpu"], memory=one["memory"], gpu=one["gpu"])
        for one in platform.instance_types()
    }
    services = {}
    for record in platform.services():
        mine = record["name"] in names or record["source"] == source
        services[record["name"]] = Known(
            name=record["name"],
            group=record["group"],
            source=record["source"],
            route=record["route"],
            method=record["method"],
            route_port=record["route_port"],
            port=record["port"],
            deployed=_deployed(platform, record["name"]) if mine else (),
        )
    return Facts(
        services=services,
        types=types,
        port=node["port"],
        cores=node["capacity"]["cpu"],
        gpus=node["capacity"]["gpu"],
        engines=tuple(node["engines"]),
        may_make_types=me["is_admin"],
    )


def proposed(changes: list[Change]) -> list[Applied]:
    """What there is to do, as records of what is not done."""
    return [
        Applied(name=change.name, kind=change.kind, words=change.words, version=change.replaces)
        for change in changes
    ]


def carry_out(
    platform: Platform, asked: Asked, changes: list[Change], group: str | None, display: Display
) -> list[Applied]:
    """Do it, service after service; one that cannot be done does not keep the others from it."""
    place = group or platform.whoami()["user"]
    done = []
    for change in changes:
        try:
            version = _carry_out(platform, asked, change, place, display)
        except ModelcloudError as error:
            told = Applied(
                name=change.name, kind=change.kind, words=change.words, error=error.message
            )
        else:
            told = Applied(name=change.name, kind=change.kind, words=change.words, version=version)
        done.append(told)
    return done


# ---- reading


def _code(source: Source) -> Code:
    return Code(
        digest=source.digest,
        requirements=source.requirements,
        python=source.python,
        model_path=source.model_path,
    )


def _code_of(record: Record) -> Code:
    return Code(
        digest=record["artifact"],
        requirements=record["requirements"],
        python=record["python"],
        model_path=record["model_path"],
    )


def _deployed(platform: Platform, service: str) -> tuple[Deployed, ...]:
    found = []
    for record in platform.deployments(service):
        serves = record["wanted"] == "online" and record["current"] is not None
        settings = {name: record[name] for name in Settings.__struct_fields__}
        code = None
        if serves:
            with contextlib.suppress(NotFound):  # a version that was deleted meanwhile
                code = _code_of(platform.version(service, record["version"]))
        found.append(
            Deployed(
                version=record["version"],
                serves=serves,
                settings=Settings(**settings),
                code=code,
            )
        )
    return tuple(found)


# ---- doing


def _carry_out(
    platform: Platform, asked: Asked, change: Change, group: str, display: Display
) -> int:
    """Do one change; the version that serves then, 0 for none."""
    if change.kind is Kind.KEEP:
        _port(platform, change.name)
        return change.replaces
    if change.kind is Kind.REMOVE:
        _remove(platform, change.name, display)
        return 0
    settings = change.settings
    assert settings is not None
    if change.make_type:
        resources = msgspec.to_builtins(change.resources)
        with contextlib.suppress(Conflict):  # a section before this one has made it
            platform.create_instance_type(settings.instance_type, **resources)
            display.said(f"instance type {settings.instance_type} made")
    _address(platform, change, group)
    version = change.replaces
    if change.roll in {Roll.NEW, Roll.REPLACE}:
        version = _version(platform, asked.files[change.name], display)
    for old in change.clear:
        platform.undeploy(change.name, old)
    if change.scale:
        platform.scale(change.name, version, settings.replicas)
        _until_ready(platform, change.name, version, settings.replicas)
    if change.roll in {Roll.NEW, Roll.REPLACE, Roll.OPTIONS}:
        _roll(platform, change, version, display)
    if change.others:
        platform.set_traffic(change.name, weights={str(version): 1.0})
        for other in change.others:
            platform.stop(change.name, other)
    _port(platform, change.name)
    return version


def _address(platform: Platform, change: Change, group: str) -> None:
    """Make the service, or give it the address it is to have."""
    if not change.fields:
        return
    try:
        platform.edit_service(change.name, **change.fields)
    except NotFound:
        once(
            lambda key: platform.create_service(
                change.name, group, idempotency_key=key, **change.fields
            )
        )


def _version(platform: Platform, source: Source, display: Display) -> int:
    """The number of the version that is made of a source: an earlier one, else a new one."""
    code = _code(source)
    for record in platform.versions(source.name):
        if record["artifact"] == code.digest and record["enabled"]:
            number = int(record["version"])
            if _code_of(platform.version(source.name, number)) == code:
                return number
    with sources.archive(source) as archive:
        upload = display.sent(source.name, lambda tell: platform.upload(archive, tell))
    display.said(f"{source.name}: importing it, in an environment of its own where it has one")
    try:
        record = once(
            lambda key: platform.register(
                source.name,
                upload=upload["upload"],
                main=source.main,
                requirements=source.requirements,
                python=source.python or None,
                model_path=source.model_path or None,
                idempotency_key=key,
            )
        )
    except ModelcloudError:
        with contextlib.suppress(ModelcloudError):  # it is forgotten after a day all the same
            platform.delete_upload(upload["upload"])
        raise
    return int(record["version"])


def _roll(platform: Platform, change: Change, version: int, display: Display) -> None:
    """Bring a version online, in place of what is, and wait for it."""
    how: Record = msgspec.to_builtins(change.settings)
    how["weight"] = 1.0  # it is to answer, whatever else is online
    if change.replaces:
        how["replaces"] = change.replaces
    answer = once(lambda key: platform.deploy(change.name, version, idempotency_key=key, **how))
    if answer["rollout"] is not None:
        display.followed(change.name, answer["rollout"]["id"])


def _until_ready(platform: Platform, service: str, version: int, replicas: int) -> None:
    """Wait for as many workers as are wanted.

    Raises:
        DeadlineExceeded: there are not.
    """
    end = time.monotonic() + DRAIN_S
    while True:
        record = platform.deployment(service, version)
        if record["ready"] == replicas:
            return
        if time.monotonic() > end:
            raise DeadlineExceeded(
                f"{record['ready']} of {replicas} replicas are ready after {DRAIN_S:g} s: "
                f"{record['degraded'] or 'they may still come'}"
            )
        time.sleep(PAUSE_S)


def _remove(platform: Platform, service: str, display: Display) -> None:
    """Take it offline once it has answered what it received; its versions stay."""
    for deployment in platform.deployments(service):
        if deployment["wanted"] == "online":
            platform.stop(service, deployment["version"])
    end = time.monotonic() + DRAIN_S
    while any(one["state"] == "draining" for one in platform.deployments(service)):
        if time.monotonic() > end:
            raise DeadlineExceeded(f"it has not drained within {DRAIN_S:g} s; it goes on")
        time.sleep(PAUSE_S)
    platform.undeploy(service)
    if platform.service(service)["versions"] == 0:  # its first one was never taken
        platform.delete_service(service)
        return
    platform.edit_service(service, route=None, route_port=0)
    display.said(f"{service}: drained and gone; its versions stay registered")


def _port(platform: Platform, service: str) -> None:
    """Return once the route can be asked for.

    Raises:
        UpdateFailed: its port cannot be had.
    """
    end = time.monotonic() + PORT_S
    while problem := platform.service(service)["port_problem"]:
        if time.monotonic() > end:
            raise UpdateFailed(f"it serves, but not at its route: {problem}")
        time.sleep(PAUSE_S)
