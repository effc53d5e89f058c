"""The work as a LitServe API; it answers at /predict only."""

import os

import litserve
import work

WORK = os.environ["WORK"]


class Api(litserve.LitAPI):
    def setup(self, device):
        self.linear = work.Linear() if WORK == "linear" else None

    def decode_request(self, request):
        return request

    def predict(self, x):
        if WORK == "batch":
            return work.batch([item["a"] for item in x])
        if WORK == "linear":
            return self.linear(x["x"])
        return work.pisqrt(x["a"])

    def batch(self, inputs):
        return inputs

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return {"result": output}


if __name__ == "__main__":
    batching = {"max_batch_size": 32, "batch_timeout": 0.01} if WORK == "batch" else {}
    server = litserve.LitServer(
        Api(**batching), accelerator="cpu", workers_per_device=int(os.environ["WORKERS"])
    )
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False,
               num_api_servers=1, log_level="warning")  # fmt: skip
