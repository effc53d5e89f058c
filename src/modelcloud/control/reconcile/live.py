"""The store's records with what is decided and observed beyond it, as they are shown to people.

Must never: ask the store, or change anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from modelcloud.control.deployments import deployments, rollouts
from modelcloud.control.deployments.deployments import DeploymentRecord
from modelcloud.control.deployments.rollouts import RolloutRecord
from modelcloud.control.reconcile.standing import Standing
from modelcloud.control.services.services import ServiceRecord
from modelcloud.types import Observed


class Observing(Protocol):
    """What is needed of the node.

    Attributes:
        refused_ports: ports of services that cannot be had → why.
    """

    refused_ports: Mapping[int, str]

    def observe(self, deployment: str) -> Observed:
        """What is there now of a deployment."""


class Live:
    """Records as they are now.

    Args:
        standing: a deployment and its reconciler, by its key; None when none is known.
    """

    def __init__(self, node: Observing, standing: Callable[[str], Standing | None]) -> None:
        self._node = node
        self._standing = standing

    def service(self, stored: ServiceRecord) -> ServiceRecord:
        """A service."""
        refused = self._node.refused_ports
        problem = refused.get(stored.port or 0) or refused.get(stored.route_port)
        return stored.model_copy(update={"port_problem": problem}) if problem else stored

    def deployment(self, stored: DeploymentRecord) -> DeploymentRecord:
        """A deployment, and its newest rollout."""
        standing = self._standing(stored.key)
        if standing is None:
            return stored
        record = deployments.live(
            stored,
            standing.reconciler.snapshot(),
            self._node.observe(stored.key),
            standing.shown(),
        )
        if record.rollout is None:
            return record
        return record.model_copy(update={"rollout": self.rollout(record.rollout)})

    def rollout(self, stored: RolloutRecord) -> RolloutRecord:
        """A rollout."""
        standing = self._standing(stored.key)
        if standing is not None:
            for rollout in standing.reconciler.rollouts():
                if rollout.id == str(stored.id):
                    kept = standing.reconciler.announced(rollout.id)
                    return rollouts.live(stored, rollout, kept=kept)
        return stored
