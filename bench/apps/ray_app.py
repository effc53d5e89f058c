"""The work as a Ray Serve deployment."""

import os

import ray
import work
from ray import serve
from starlette.requests import Request

WORK = os.environ["WORK"]


@serve.deployment(num_replicas=int(os.environ["WORKERS"]), max_ongoing_requests=64,
                  ray_actor_options={"num_cpus": 0.5})  # fmt: skip
class Model:
    def __init__(self) -> None:
        self.linear = work.Linear() if WORK == "linear" else None

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.005)
    async def many(self, rows):
        return work.batch(rows)

    async def __call__(self, request: Request) -> dict:
        body = await request.json()
        if WORK == "batch":
            return {"result": await self.many(body["a"])}
        if WORK == "linear":
            return {"result": self.linear(body["x"])}
        return {"result": work.pisqrt(body["a"])}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Model.bind(), route_prefix="/", blocking=True)
