"""Which service an address of the data plane is about, and which of its deployments answers for it.

Must never: change anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select

from modelcloud.control.access.permissions import Resource
from modelcloud.control.deployments import deployments
from modelcloud.errors import NotFound
from modelcloud.store.tables import Deployment, Label, Service

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: The label whose deployment these addresses are about.
STABLE = "stable"


class Subject(NamedTuple):
    """The service that is asked about, and the deployment that answers for it.

    Attributes:
        resource: the service, as permissions have it.
        base: what stands before the address: the service's name, or nothing at its own port.
        public: whether reading needs no token.
        version: current version of the deployment; 0 when none is online.
        key: its key.
        chosen: why it is this one, in words.
    """

    service: str
    resource: Resource
    base: str
    public: bool
    version: int
    key: str
    chosen: str
    replicas: int
    created_at: float


def find_subject(tx: Session, path: str, port: int) -> Subject:
    """What a path at a site is about.

    Raises:
        NotFound: there is no such service.
    """
    name = path.split("/")[1]
    where = Service.port == port if port else Service.name == name
    service = tx.scalar(select(Service).where(where))
    if service is None:
        raise NotFound(f"nothing at {path}")
    row, chosen = _speaker(tx, service)
    return Subject(
        service=service.name,
        resource=deployments.resource_of(service),
        base="" if port else f"/{service.name}",
        public=service.group.public_predictions,
        version=0 if row is None else row.version,
        key="" if row is None else deployments.key(service, row),
        chosen=chosen,
        replicas=0 if row is None else row.replicas,
        created_at=service.created_at,
    )


def _speaker(tx: Session, service: Service) -> tuple[Deployment | None, str]:
    """The deployment that these addresses are about, and why it is this one."""
    online = [found.row for found in deployments.standings(tx, service) if found.online]
    if not online:
        return None, "none is online"
    stable = tx.get(Label, (service.id, STABLE))
    for row in online:
        if stable is not None and stable.deployment_id == row.id:
            return row, f"version {row.version} has the label {STABLE}"
    if len(online) == 1:
        return online[0], f"version {online[0].version} is the only one online"
    row = max(online, key=lambda row: (row.weight, -row.id))
    return row, f"version {row.version} has the greatest weight of those online"
