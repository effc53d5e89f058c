"""What workers are started from: a version and how it is deployed, put together.

Must never: ask the store or look at a file.
"""

from __future__ import annotations

from typing import Any

import msgspec

from modelcloud.control.state import PlatformState
from modelcloud.store.tables import Service, Version
from modelcloud.types import LOCAL, GenerationSpec, Resources

#: Folder of the artifact store, below the data folder.
ARTIFACTS = "artifacts"


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What of the platform's settings and its node goes into every spec.

    Attributes:
        port: where gateways take predictions.
        load_timeout_s, max_body: as `GenerationSpec` has them.
        capacity: resource → what the workers of the node may use together; those missing are not
            limited.
        engine: as `GenerationSpec` has it, where a deployment asks for none.
    """

    port: int = 8080
    load_timeout_s: float = 600.0
    max_body: int = 64 * 1024 * 1024
    capacity: dict[str, float] = {}
    engine: str = ""


def ground_of(state: PlatformState) -> Ground:
    """That of a running platform. What is not above 0 of processors and memory does not limit."""
    config, standing = state.config, state.standing
    has = {"cpu": standing.cpus, "memory": standing.memory}
    return Ground(
        port=standing.port,
        load_timeout_s=config.load_timeout_s,
        max_body=config.limits.body,
        capacity={
            **{name: float(amount) for name, amount in has.items() if amount > 0},
            "gpu": float(standing.gpus),
        },
        engine="" if config.engine == LOCAL else config.engine,
    )


def key_of(service: str, deployment_id: int) -> str:
    """The key of a deployment on the node."""
    return f"{service}/{deployment_id}"


def id_of(key: str) -> int | None:
    """The deployment's id in the store; None where the key is not one of a platform's."""
    number = key.rpartition("/")[2]
    return int(number) if number.isdecimal() else None


def make_spec(
    ground: Ground,
    service: Service,
    version: Version,
    *,
    deployment_id: int,
    generation: int,
    resources: Resources,
    threads: int,
    options: dict[str, Any],
    engine: str,
) -> GenerationSpec:
    """The spec of a generation; `options` are the deployment's, over the version's own."""
    return GenerationSpec(
        service=service.name,
        deployment=key_of(service.name, deployment_id),
        generation=generation,
        version=version.number,
        target=version.main,
        snapshot="",  # follows from the digest, wherever the data folder is by then
        digest=version.artifact,
        options={**version.options, **options},
        port=service.port or ground.port,
        python=version.python,
        model_path=version.model_path,
        requirements=version.requirements,
        resources=resources,
        verify=True,
        threads=threads,
        load_timeout_s=ground.load_timeout_s,
        max_body=ground.max_body,
        engine=engine,
    )
