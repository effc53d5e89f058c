"""A small ONNX model in two files, whose answers tell whether both are of one model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

MAIN, WEIGHTS = "model.onnx", "weights.bin"
#: Answers of the model of a number are its multiples.
STEP = 1001.0


def write_model(folder: Path, number: int) -> None:
    """Write the model that answers x = 1 with `number` times `STEP`.

    Its graph adds `number` times 1000, the file beside it holds the rest.
    """
    from onnx import TensorProto, helper, save_model

    folder.mkdir(exist_ok=True)
    (folder / WEIGHTS).write_bytes(np.array([number], "<f4").tobytes())
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": WEIGHTS, "offset": "0", "length": "4"}.items():
        weight.external_data.add(key=key, value=value)
    bias = helper.make_tensor("b", TensorProto.FLOAT, [1], [1000.0 * number])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows"])],
        [weight, bias],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save_model(model, str(folder / MAIN))
