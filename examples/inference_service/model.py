import json
from pathlib import Path


class InferenceService:
    """Scores libsvm rows such as "0 1:0.5 3:2" with the linear model in weights.json."""

    def __init__(self, model_path):
        model = json.loads((Path(model_path) / "weights.json").read_text())
        self.bias = model["bias"]
        self.weights = model["weights"]

    def process_request(self, request):
        if request.get("type") != "libsvm":
            return {"message": "type: accepted: libsvm", "code": 1}
        scores = [self.score(row) for row in request["data"]["insts"].splitlines()]
        return {"message": "SUCCESS", "code": 0, "data": {"insts": scores}}

    def score(self, row):
        features = (pair.split(":") for pair in row.split()[1:])
        return self.bias + sum(
            self.weights.get(index, 0.0) * float(value) for index, value in features
        )
