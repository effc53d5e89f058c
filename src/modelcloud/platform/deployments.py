"""What is online: deployments, their traffic and rollouts, what they log and how they fare.

Must never: repeat by itself a request that changes something.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from modelcloud import errors
from modelcloud.platform.connection import Connection, Record, given, part, version_path

#: For a platform to bring a rollout to its end; it gives up before by itself.
ROLLOUT_S = 3600.0
#: Of a new deployment; every platform begins with a type of this name.
INSTANCE_TYPE = "small"


class Deployments:
    """Deployments, traffic, rollouts, logs and metrics."""

    _api: Connection

    def deployments(self, service: str) -> list[Record]:
        """What of a service is, or was, online."""
        return self._api.whole(f"/services/{part(service)}/deployments")

    def deployment(self, service: str, version: int) -> Record:
        """The deployment of a version."""
        return self._api.record("GET", _deployment(service, version))

    def deploy(
        self,
        service: str,
        version: int,
        *,
        replaces: int | None = None,
        instance_type: str | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Record:
        """Bring a version online, beside the others or in place of one that is.

        Args:
            service: its name.
            version: to deploy.
            replaces: the version online whose place it takes, live; None: one more version.
            instance_type: resources of one replica; else `small`, or as what it replaces has it.
            idempotency_key: see `Platform`.
            fields: `replicas`, `dispatch`, `strategy`, `options`, `threads`, `keep_warm_s`,
                `label`, `weight`, `engine`; what is left out is as in what it replaces.

        Returns:
            `deployment` and `rollout`; `wait` for the latter.
        """
        mode = "new" if replaces is None else "replace"
        if mode == "new":
            instance_type = instance_type or INSTANCE_TYPE
        body = {"version": version, "mode": mode, "replaces": replaces,
                "instance_type": instance_type, **fields}  # fmt: skip
        place = f"/services/{part(service)}/deployments"
        return self._api.record("POST", place, given(body), key=idempotency_key)

    def redeploy(self, service: str, version: int, *, idempotency_key: str | None = None) -> Record:
        """Start a version's workers anew, as a rollout; the answer is as of `deploy`."""
        return self._act(service, version, "redeploy", key=idempotency_key)

    def start(self, service: str, version: int, *, idempotency_key: str | None = None) -> Record:
        """Bring an offline version online again; the answer is as of `deploy`."""
        return self._act(service, version, "start", key=idempotency_key)

    def stop(self, service: str, version: int) -> Record:
        """Take a version offline; it can be started again."""
        return self._act(service, version, "stop")

    def update(
        self,
        service: str,
        version: int,
        options: Record,
        strategy: Any = None,
        *,
        revision: int | None = None,
        idempotency_key: str | None = None,
    ) -> Record:
        """Change options of a version that is online, as a live update.

        The answer is as of `deploy`; `rollout` is None where no option differs.
        """
        body = given({"options": options, "strategy": strategy})
        return self._act(service, version, "update", body, revision=revision, key=idempotency_key)

    def rollback(
        self,
        service: str,
        version: int,
        strategy: Any = None,
        *,
        idempotency_key: str | None = None,
    ) -> Record:
        """Go back: out of a running update, else to what served before."""
        body = given({"strategy": strategy})
        return self._act(service, version, "rollback", body, key=idempotency_key)

    def scale(
        self, service: str, version: int, replicas: int, *, revision: int | None = None
    ) -> Record:
        """Change the number of replicas, live."""
        return self._act(service, version, "scale", {"replicas": replicas}, revision=revision)

    def undeploy(self, service: str, version: int | None = None) -> Record:
        """Delete the deployment of a version, or all; the versions stay registered."""
        if version is None:
            return self._api.record("DELETE", f"/services/{part(service)}/deployments")
        return self._api.record("DELETE", _deployment(service, version))

    def traffic(self, service: str) -> Record:
        """Weights, labels, shadows and what keeps a client at one version."""
        return self._api.record("GET", f"/services/{part(service)}/traffic")

    def set_traffic(self, service: str, *, revision: int | None = None, **changes: Any) -> Record:
        """Change `weights`, `labels`, `shadow` or `sticky`; what is not named stays."""
        path = f"/services/{part(service)}/traffic"
        return self._api.record("PUT", path, changes, revision=revision)

    def rollouts(self, limit: int = 100, **filters: Any) -> list[Record]:
        """Recorded rollouts, newest first, at most so many; by `service`, `state`."""
        return self._api.first(limit, "/rollouts", filters)

    def rollout(self, rollout_id: int | str) -> Record:
        """One of them."""
        return self._api.record("GET", f"/rollouts/{part(rollout_id)}")

    def wait(
        self,
        rollout_id: int | str,
        on_change: Callable[[Record], None] | None = None,
        timeout_s: float = ROLLOUT_S,
    ) -> Record:
        """The rollout once it has ended, however it did.

        Args:
            rollout_id: of the answer of `deploy` and the like.
            on_change: called with each record on the way.
            timeout_s: longest wait; the rollout goes on.

        Raises:
            DeadlineExceeded: it had not ended by then.
        """
        end = time.monotonic() + timeout_s
        last = None
        for record in self._api.events(f"/rollouts/{part(rollout_id)}/events", end=end):
            if on_change is not None and record != last:
                on_change(record)
            if record["finished_at"] is not None:
                return record
            last = record
        raise errors.DeadlineExceeded(
            f"rollout {rollout_id} has not ended within {timeout_s:g} s; it goes on"
        )

    def logs(self, service: str, version: int | None = None, **query: Any) -> Record:
        """Lines of the deployment log, or of a version's application log.

        Args:
            service: its name.
            version: None for the deployment log.
            query: `lines`, `before`, `after`, `replica`, `q`.

        Returns:
            `lines` (each `at`, `source`, `text`), and the cursors `before` and `after`.
        """
        return self._api.record("GET", _log(service, version), query=query)

    def follow_logs(
        self, service: str, version: int | None = None, **query: Any
    ) -> Iterator[Record]:
        """The last lines, or those after the cursor `after`, then all that are written.

        It ends by an error only: the log may no longer be read, or the platform is gone.
        """
        return self._api.events(_log(service, version), {**query, "follow": "true"})

    def metrics(self, service: str, version: int | None = None, **query: Any) -> Record:
        """What a service, or one version of it, did over time.

        Args:
            service: its name.
            version: None for all versions together.
            query: `since` and `until` (ISO 8601, or seconds since the epoch), and `span`, the
                seconds of a point.

        Returns:
            `span_s` and `points`.
        """
        place = f"/services/{part(service)}" if version is None else version_path(service, version)
        return self._api.record("GET", f"{place}/metrics", query=query)

    def _act(
        self, service: str, version: int, action: str, body: Record | None = None, **how: Any
    ) -> Record:
        return self._api.record("POST", f"{_deployment(service, version)}/{action}", body, **how)


def _deployment(service: str, version: int) -> str:
    return f"/services/{part(service)}/deployments/{version}"


def _log(service: str, version: int | None) -> str:
    place = f"/services/{part(service)}" if version is None else version_path(service, version)
    return f"{place}/logs"
