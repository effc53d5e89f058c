"""What a Ray cluster says of its machines and of our applications, as one line of JSON.

Must never: start anything in it. A process of its own, for `modelcloud cluster status`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

from modelcloud.engines.ray import knock
from modelcloud.node.cluster import APP_PREFIX


def look(address: str) -> dict[str, Any]:
    """Machines and applications.

    Raises:
        Exception: ray's own, where the cluster cannot be reached.
    """
    knock(address)
    import ray
    from ray import serve

    ray.init(address=address, namespace="modelcloud", log_to_driver=False, configure_logging=False)
    nodes = [
        {
            "address": node["NodeManagerAddress"],
            "state": "alive" if node["Alive"] else "lost",
            "cpus": node["Resources"].get("CPU", 0),
            "gpus": node["Resources"].get("GPU", 0),
            "memory": int(node["Resources"].get("memory", 0)),
        }
        for node in ray.nodes()
    ]
    applications = []
    for name, app in serve.status().applications.items():
        if name.startswith(APP_PREFIX):
            states = [d.replica_states for d in app.deployments.values()]
            applications.append(
                {
                    "name": name,
                    "state": str(getattr(app.status, "value", app.status)).lower(),
                    "replicas": sum(sum(counts.values()) for counts in states),
                    "running": sum(counts.get("RUNNING", 0) for counts in states),
                }
            )
    return {"nodes": nodes, "applications": applications}


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(look(sys.argv[1])).decode() + "\n")
    sys.stdout.flush()
    os._exit(0)  # ray's threads have nothing to say any more
