"""The engine that runs workers as replicas of Ray Serve; the one module that imports ray.

Must never: be imported by a node, a gateway or a control plane: ray's client brings threads and
signal handlers of its own, so all this is in a process beside them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any

import msgspec

from modelcloud.codecs.media import Codec
from modelcloud.engines import bridge_process
from modelcloud.engines.bridge import AppState
from modelcloud.engines.frame_client import FrameClient
from modelcloud.engines.replica import Replica
from modelcloud.node.cluster import APP_PREFIX
from modelcloud.types import GenerationSpec

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what runs here is nobody else's business

#: Of the one deployment in an application.
DEPLOYMENT = "replica"
#: How soon Serve notices a replica that died, and how long one that is taken away may serve on.
HEALTH_PERIOD_S, HEALTH_TIMEOUT_S = 2.0, 10.0
LEAVE_S = 300.0
#: Serve's own requests inside one replica; the gateways' are counted by the gateways.
ONGOING = 256
#: For a request that came over Serve's own address.
REQUEST_S = 60.0
#: For the head to take a connection.
KNOCK_S = 5.0


class ServeReplica:
    """What Serve makes a replica of: `engines.replica.Replica`, and Serve's own way to it."""

    async def __init__(self, app: str, bridge: str, secret: str) -> None:  # type: ignore[misc]
        """Ready for Serve once a worker serves: loaded, warmed and checked."""
        self._replica = Replica(app, bridge, secret)
        self._client: FrameClient | None = None
        self._endpoint = ""
        await self._replica.serving.wait()

    async def __call__(self, request: Any) -> Any:
        """A request at Serve's own address: `<route>/<command>`, JSON or a query string."""
        from starlette.responses import Response

        root = request.scope.get("root_path", "")
        command = request.url.path.removeprefix(root).strip("/")
        body = await request.body()
        codec = Codec.JSON
        if not body and request.url.query:
            codec, body = Codec.QUERY, request.url.query.encode("latin-1")
        try:
            client = await self._connected()
            if command not in client.commands:
                known = ", ".join(sorted(client.commands))
                error = {"error": f"no command {command!r} here; there is: {known}"}
                return Response(msgspec.json.encode(error), 404, media_type="application/json")
            answer = await client.call(command, codec, body, REQUEST_S)
        except (OSError, asyncio.TimeoutError):
            error = {"error": "the worker of this replica does not answer; try again"}
            return Response(msgspec.json.encode(error), 503, media_type="application/json")
        kind = "text/plain; charset=utf-8" if answer.codec == Codec.TEXT else "application/json"
        return Response(answer.body, answer.status, media_type=kind)

    async def _connected(self) -> FrameClient:
        replica = self._replica
        if self._client is None or self._endpoint != replica.endpoint:
            if not replica.endpoint:
                raise ConnectionError("no worker serves")
            client = FrameClient()
            await client.connect(replica.endpoint, replica.frames_secret)
            self._client, self._endpoint = client, replica.endpoint
        return self._client

    async def __del__(self) -> None:
        """Serve calls this, once, when it stops the replica gently."""
        await self._replica.leave()


class RayCluster:
    """`engines.bridge.Cluster` over Ray Serve."""

    def connect(self, address: str, http_port: int) -> str:
        """Join as a client; start Serve where it does not run."""
        knock(address)
        import ray
        from ray import serve

        ray.init(
            address=address,
            namespace="modelcloud",
            log_to_driver=False,
            configure_logging=False,
            ignore_reinit_error=True,
        )
        options = {"host": "127.0.0.1", "port": http_port}
        serve.start(proxy_location="EveryNode", http_options=options)
        return str(ray.util.get_node_ip_address())

    def apps(self, prefix: str) -> dict[str, AppState]:
        """Ours, with the replicas that Serve is to have of each."""
        found = {}
        for name, app in self._client().get_serve_details()["applications"].items():
            deployment = app["deployments"].get(DEPLOYMENT, {})
            if not name.startswith(prefix) or app["status"] == "DELETING":
                continue
            failed = app["status"] == "DEPLOY_FAILED"
            failure = deployment.get("message") or app["message"] if failed else ""
            found[name] = AppState(deployment.get("target_num_replicas"), failure)
        return found

    def run(self, app: str, spec: GenerationSpec, replicas: int, bridge: str, secret: str) -> None:
        """One application with one deployment, whose replicas call the bridge."""
        from ray import serve
        from ray.serve.api import RunTarget

        has = spec.resources
        deployment = serve.deployment(
            name=DEPLOYMENT,
            num_replicas=replicas,
            max_ongoing_requests=ONGOING,
            health_check_period_s=HEALTH_PERIOD_S,
            health_check_timeout_s=HEALTH_TIMEOUT_S,
            graceful_shutdown_timeout_s=LEAVE_S,
            graceful_shutdown_wait_loop_s=0.2,
            ray_actor_options={
                "num_cpus": has.cpu,
                "num_gpus": has.gpu,
                **({"memory": has.memory} if has.memory else {}),
            },
        )(ServeReplica)
        target = RunTarget(
            target=deployment.bind(app, bridge, secret),
            name=app,
            route_prefix=f"/{app.removeprefix(APP_PREFIX)}",
            external_scaler_enabled=True,
        )
        serve.run_many(
            [target],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )

    def scale(self, app: str, replicas: int) -> None:
        """By what Serve has for outside scalers: a new `run` would replace every replica."""
        import ray
        from ray.serve._private.common import DeploymentID

        controller = self._client()._controller  # noqa: SLF001 — the other way is the dashboard's REST
        place = DeploymentID(name=DEPLOYMENT, app_name=app)
        ray.get(controller.update_deployment_replicas.remote(place, replicas))

    def delete(self, app: str) -> None:
        """Stop its replicas; returns at once."""
        from ray import serve

        serve.delete(app, _blocking=False)

    @staticmethod
    def _client() -> Any:
        from ray.serve.context import _get_global_client

        return _get_global_client()


def knock(address: str) -> None:
    """See that somebody listens there; ray would look for minutes before it says that nobody does.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()


def main(control_fd: int) -> int:
    """Be the bridge of a node to Ray, over the inherited socket `control_fd`."""
    bridge_process.run(control_fd, RayCluster())
    sys.stderr.flush()
    os._exit(0)  # ray's threads have nothing to say any more
