"""The work as a Ray Serve deployment on a cluster that is there, beside modelcloud's own."""

import os
import time

import ray
from ray import serve
from ray_app import Model

if __name__ == "__main__":
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
    options = {"host": "127.0.0.1", "port": int(os.environ["PORT"])}
    serve.start(proxy_location="EveryNode", http_options=options)
    serve.run(Model.bind(), name="beside", route_prefix="/beside")
    print("READY", flush=True)
    time.sleep(3600)
