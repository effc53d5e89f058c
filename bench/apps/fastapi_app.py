"""The work as a FastAPI application; uvicorn runs it in as many processes as it is told."""

import os
import time

import work
from fastapi import FastAPI
from pydantic import BaseModel

time.sleep(float(os.environ.get("LOAD_S", "0")))
app = FastAPI()
model = work.Linear() if os.environ["WORK"] == "linear" else None


class One(BaseModel):
    a: float


class Many(BaseModel):
    x: list[float]


@app.post("/pisqrt")
async def pisqrt(body: One) -> dict[str, float]:
    return {"result": work.pisqrt(body.a)}


@app.post("/linear")
async def linear(body: Many) -> dict[str, float]:
    return {"result": model(body.x)}


@app.post("/batch")
async def batch(body: One) -> dict[str, float]:
    # `async def` on purpose: the model occupies its worker, as a real one occupies its device.
    return {"result": work.batch([body.a])[0]}
