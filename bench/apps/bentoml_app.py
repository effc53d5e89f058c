"""The work as a BentoML service."""

import os

import bentoml
import work

WORK = os.environ["WORK"]


@bentoml.service(workers=int(os.environ["WORKERS"]))
class Model:
    def __init__(self) -> None:
        self.linear_model = work.Linear() if WORK == "linear" else None

    @bentoml.api
    def pisqrt(self, a: float) -> dict:
        return {"result": work.pisqrt(a)}

    @bentoml.api
    def linear(self, x: list[float]) -> dict:
        return {"result": self.linear_model(x)}

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    def batch(self, a: list[float]) -> list[float]:
        return work.batch(a)
