"""The work as a modelcloud model."""

import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import work

import modelcloud
from modelcloud.data_types import category, number, vector


@modelcloud.setup(
    options={
        "work": category(choices=["pisqrt", "linear", "batch"]),
        "load_s": number(default=0),
    }
)
def setup(options):
    time.sleep(options["load_s"])
    return work.Linear() if options["work"] == "linear" else None


@modelcloud.command("pisqrt", inputs={"a": number}, outputs={"result": number})
def pisqrt(model, inputs):
    return work.pisqrt(inputs["a"])


@modelcloud.command(
    "linear", inputs={"x": vector(length=work.FEATURES)}, outputs={"result": number}
)
def linear(model, inputs):
    return model(inputs["x"])


@modelcloud.command(
    "batch",
    inputs={"a": number},
    outputs={"result": number},
    batch=modelcloud.Batch(max_size=32),
)
def batch(model, items):
    return work.batch([inputs["a"] for inputs in items])
