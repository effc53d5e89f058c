"""Monitors of a service: what brings its versions from remote places."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import Response

from modelcloud.control.access.permissions import Action, Actor
from modelcloud.control.api import deps
from modelcloud.control.api.deps import ActorDep, ExpectedDep, OnceDep, PageDep, PlatformDep
from modelcloud.control.commands import ACCEPTED
from modelcloud.control.common.records import Listing
from modelcloud.control.deployments.deployments import service_of
from modelcloud.control.monitors import history, monitors
from modelcloud.control.monitors.history import EventRecord
from modelcloud.control.monitors.monitor_forms import MonitorBody, MonitorChanges, check, split
from modelcloud.control.monitors.monitoring import ConnectionRecord, Monitoring
from modelcloud.control.monitors.monitors import MonitorRecord, secrets_of, settings_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

router = deps.router("monitors")

_ALL = "/services/{service}/monitors"
_ONE = _ALL + "/{monitor}"


@router.get("/monitors")
async def list_all_monitors(
    here: PlatformDep, actor: ActorDep, page: PageDep
) -> Listing[MonitorRecord]:
    """The monitors of all services one may read, oldest first."""
    stored = await here.store.read(partial(monitors.readable, actor=actor, page=page))
    live = here.part(Monitoring).live
    return Listing(items=[live(record) for record in stored.items], next=stored.next)


@router.get(_ALL)
async def list_monitors(service: str, here: PlatformDep, actor: ActorDep) -> Listing[MonitorRecord]:
    """The monitors of a service, by name."""
    stored = await here.store.read(partial(monitors.listing, actor=actor, service_name=service))
    live = here.part(Monitoring).live
    return Listing(items=[live(record) for record in stored.items])


@router.post(_ALL, status_code=201)
async def create_monitor(
    service: str,
    body: MonitorBody,
    here: PlatformDep,
    actor: ActorDep,
    once: OnceDep,
    response: Response,
) -> MonitorRecord:
    """Watch a remote place; each model that appears there becomes a version and goes online."""
    part = here.part(Monitoring)
    create = partial(
        monitors.create, actor=actor, rules=part.rules, service_name=service, asked=body
    )
    record = await here.store.transact(once.around(create, 201))
    await part.refresh()
    deps.set_etag(response, record.revision)
    return part.live(record)


@router.post(_ALL + "/test")
async def test_new_monitor(
    service: str, body: MonitorBody, here: PlatformDep, actor: ActorDep
) -> ConnectionRecord:
    """Look once with these settings, and say what came of it; nothing is kept or pulled."""
    part = here.part(Monitoring)
    _, secrets = split(body)
    await here.store.read(lambda tx: service_of(tx, actor, service, Action.MONITOR) and None)
    check(body, secrets, here.config)
    return await part.test(body, secrets)


@router.get(_ONE)
async def get_monitor(
    service: str, monitor: str, here: PlatformDep, actor: ActorDep, response: Response
) -> MonitorRecord:
    """One of them."""
    record = await here.store.read(
        partial(monitors.one, actor=actor, service_name=service, name=monitor)
    )
    deps.set_etag(response, record.revision)
    return here.part(Monitoring).live(record)


@router.patch(_ONE)
async def edit_monitor(
    service: str,
    monitor: str,
    body: MonitorChanges,
    here: PlatformDep,
    actor: ActorDep,
    expected: ExpectedDep,
    response: Response,
) -> MonitorRecord:
    """Change settings; it acts in your name from then on.

    With another place its credentials have to be given anew.
    """
    part = here.part(Monitoring)
    record = await here.store.transact(
        partial(
            monitors.edit,
            actor=actor,
            rules=part.rules,
            service_name=service,
            name=monitor,
            changes=body,
            expected=expected,
        )
    )
    await part.refresh(record.id)
    deps.set_etag(response, record.revision)
    return part.live(record)


@router.delete(_ONE, status_code=204)
async def delete_monitor(
    service: str, monitor: str, here: PlatformDep, actor: ActorDep, expected: ExpectedDep
) -> Response:
    """Watch no more; the versions that it brought stay."""
    await here.store.transact(
        partial(monitors.delete, actor=actor, service_name=service, name=monitor, expected=expected)
    )
    await here.part(Monitoring).refresh()
    return Response(status_code=204)


@router.post(_ONE + "/pause")
async def pause_monitor(
    service: str, monitor: str, here: PlatformDep, actor: ActorDep
) -> MonitorRecord:
    """Have it rest; what it pulls just now is registered all the same."""
    return await _pause(here, actor, service, monitor, paused=True)


@router.post(_ONE + "/resume")
async def resume_monitor(
    service: str, monitor: str, here: PlatformDep, actor: ActorDep
) -> MonitorRecord:
    """Have it go on."""
    return await _pause(here, actor, service, monitor, paused=False)


@router.post(_ONE + "/run", status_code=ACCEPTED)
async def run_monitor(
    service: str, monitor: str, here: PlatformDep, actor: ActorDep
) -> MonitorRecord:
    """Have it look now rather than at its next time."""
    part = here.part(Monitoring)

    def find(tx: Session) -> MonitorRecord:
        monitors.usable(tx, actor, service, monitor)
        return monitors.one(tx, actor, service, monitor)

    record = await here.store.read(find)
    part.wake(record.id)
    return part.live(record)


@router.post(_ONE + "/test")
async def test_monitor(
    service: str, monitor: str, here: PlatformDep, actor: ActorDep
) -> ConnectionRecord:
    """Look once, beside its own looks, and say what came of it; nothing is pulled."""
    part = here.part(Monitoring)

    def find(tx: Session) -> tuple[MonitorBody, dict[str, Any]]:
        row = monitors.usable(tx, actor, service, monitor)
        return settings_of(row), secrets_of(row, part.rules.vault)

    return await part.test(*await here.store.read(find))


@router.get(_ONE + "/events")
async def list_monitor_events(
    service: str, monitor: str, here: PlatformDep, actor: ActorDep, page: PageDep
) -> Listing[EventRecord]:
    """Its looks that did something or failed, newest first."""
    return await here.store.read(
        partial(history.listing, actor=actor, service_name=service, name=monitor, page=page)
    )


async def _pause(
    here: PlatformDep, actor: Actor, service: str, monitor: str, *, paused: bool
) -> MonitorRecord:
    part = here.part(Monitoring)
    record = await here.store.transact(
        partial(monitors.pause, actor=actor, service_name=service, name=monitor, paused=paused)
    )
    await part.refresh(record.id)
    return part.live(record)
