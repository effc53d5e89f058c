"""The work as a mosec worker; it answers at /inference only."""

import os

import work
from mosec import Server, Worker

WORK = os.environ["WORK"]


class Model(Worker):
    def __init__(self):
        self.linear = work.Linear() if WORK == "linear" else None

    def forward(self, data):
        if WORK == "batch":
            return [{"result": value} for value in work.batch([item["a"] for item in data])]
        if WORK == "linear":
            return {"result": self.linear(data["x"])}
        return {"result": work.pisqrt(data["a"])}


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Model,
        num=int(os.environ["WORKERS"]),
        max_batch_size=32 if WORK == "batch" else 1,
        max_wait_time=10,
    )
    server.run()
