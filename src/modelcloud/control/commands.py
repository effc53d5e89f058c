"""Operations on deployments from their request to what follows of it, for every way to ask.

Must never: know how somebody asked: API, dashboard and data plane come here alike.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from modelcloud.control.access.permissions import Action, Actor
from modelcloud.control.common.idempotency import Once
from modelcloud.control.common.records import Listing
from modelcloud.control.common.revisions import Expected
from modelcloud.control.deployments import deployments, lifecycle
from modelcloud.control.deployments.deploying import Accepted, deploy
from modelcloud.control.deployments.deployment_forms import (
    DeployBody,
    RollbackBody,
    ScaleBody,
    UpdateBody,
)
from modelcloud.control.deployments.deployments import DeploymentRecord
from modelcloud.control.deployments.generation_specs import ground_of
from modelcloud.control.deployments.lifecycle import ANY_REVISION
from modelcloud.control.reconcile.reconcilers import Reconcilers
from modelcloud.control.reconcile.standing import Standing
from modelcloud.control.state import PlatformState

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: Of an answer to what was accepted and goes on.
ACCEPTED = 202


class Commands:
    """What `actor` asks for, of one service.

    Args:
        once: the request's idempotency key.
        expected: the revision of the deployment that an edit is made on.
    """

    def __init__(
        self,
        state: PlatformState,
        actor: Actor,
        service: str,
        *,
        once: Once | None = None,
        expected: Expected = ANY_REVISION,
    ) -> None:
        self._state = state
        self._actor = actor
        self._service = service
        self._once = once
        self._expected = expected
        self._ground = ground_of(state)
        self._reconcilers = state.part(Reconcilers)

    async def deploy(self, asked: DeployBody) -> Accepted:
        """Put a version online."""
        return await self._run(
            partial(
                deploy, actor=self._actor, ground=self._ground, service_name=self._service,
                asked=asked, now=self._state.wall(),
            )
        )  # fmt: skip

    async def redeploy(self, version: int) -> Accepted:
        """Renew a deployment."""
        return await self._run(
            partial(
                lifecycle.redeploy, actor=self._actor, ground=self._ground,
                service_name=self._service, version=version, now=self._state.wall(),
            )
        )  # fmt: skip

    async def start(self, version: int) -> Accepted:
        """Bring a deployment online."""
        return await self._run(
            partial(
                lifecycle.start, actor=self._actor, ground=self._ground,
                service_name=self._service, version=version, now=self._state.wall(),
            )
        )  # fmt: skip

    async def update(self, version: int, asked: UpdateBody) -> Accepted:
        """Change options live."""
        standing = await self._standing(version, Action.UPDATE)
        on = None if standing is None else standing.unsupersedable
        return await self._run(
            partial(
                lifecycle.update, actor=self._actor, ground=self._ground,
                service_name=self._service, version=version, asked=asked, now=self._state.wall(),
                on=None if on is None else int(on.id), expected=self._expected,
            )
        )  # fmt: skip

    async def scale(self, version: int, asked: ScaleBody) -> Accepted:
        """Have another number of replicas."""
        return await self._run(
            partial(
                lifecycle.scale, actor=self._actor, ground=self._ground,
                service_name=self._service, version=version, asked=asked, expected=self._expected,
            )
        )  # fmt: skip

    async def stop(self, version: int) -> Accepted:
        """Take a deployment offline."""
        return await self._run(
            partial(lifecycle.stop, actor=self._actor, service_name=self._service, version=version)
        )

    async def delete(self, version: int) -> Accepted:
        """Take a deployment offline for good."""
        return await self._run(
            partial(
                lifecycle.delete, actor=self._actor, service_name=self._service, version=version
            )
        )

    async def delete_all(self) -> Listing[DeploymentRecord]:
        """Take all deployments offline for good."""
        work = partial(lifecycle.delete_all, actor=self._actor, service_name=self._service)
        records = await self._state.store.transact(work)
        await self._reconcilers.refresh(self._service)
        return records

    async def roll_back(self, version: int, asked: RollbackBody) -> Accepted:
        """Go back: out of the rollout on its way, else to the generation before."""
        standing = await self._standing(version, Action.UPDATE)
        recalled = None
        if standing is not None and standing.recallable is not None:
            reason = f"rolled back by {self._actor.name}"
            recalled = await self._reconcilers.recall(standing.intent.key, reason)
        return await self._run(
            partial(
                lifecycle.roll_back, actor=self._actor, ground=self._ground,
                service_name=self._service, version=version, asked=asked, now=self._state.wall(),
                running=None if recalled is None else int(recalled.id),
                warm=None if standing is None else standing.warm_previous,
            )
        )  # fmt: skip

    async def _run(self, work: Callable[[Session], Accepted]) -> Accepted:
        once = self._once
        return await self._reconcilers.carry_out(
            work if once is None else once.around(work, ACCEPTED)
        )

    async def _standing(self, version: int, action: Action) -> Standing | None:
        """What is known of a deployment beyond the store, for who may do `action` to it."""

        def find(tx: Session) -> str:
            service = deployments.service_of(tx, self._actor, self._service, action)
            return deployments.key(service, deployments.find(tx, service, version).row)

        return self._reconcilers.standing(await self._state.store.read(find))
