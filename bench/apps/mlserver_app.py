"""The work as an MLServer model (Open Inference Protocol)."""

import os

import work
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

WORK = os.environ["WORK"]


class Model(MLModel):
    async def load(self) -> bool:
        import numpy

        self._np = numpy
        self._linear = work.Linear() if WORK == "linear" else None
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        if WORK == "batch":
            values = work.batch([float(row[0]) for row in rows])
        elif WORK == "linear":
            values = [self._linear(row) for row in rows]
        else:
            values = [work.pisqrt(float(row[0])) for row in rows]
        result = NumpyCodec.encode_output("result", self._np.array(values).reshape(-1, 1))
        return InferenceResponse(model_name=self.name, outputs=[result])
