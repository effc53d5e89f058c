"""The work as a bare RSGI handler under granian: no validation, no metrics, no framework."""

import json
import os

import work

WORK = os.environ["WORK"]
model = work.Linear() if WORK == "linear" else None


async def app(scope, protocol):
    body = json.loads(await protocol())
    if WORK == "batch":
        value = work.batch([body["a"]])[0]
    elif WORK == "linear":
        value = model(body["x"])
    else:
        value = work.pisqrt(body["a"])
    protocol.response_str(
        200, [("content-type", "application/json")], json.dumps({"result": value})
    )
