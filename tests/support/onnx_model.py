"""Small ONNX models in two files, whose answers tell whether both are of one model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import TensorProto

MAIN, WEIGHTS = "model.onnx", "weights.bin"
#: Answers of the model of a number are its multiples.
STEP = 1001.0
#: Outputs of a line, by which file they come from.
BY_GRAPH, BY_WEIGHTS = "number_in_graph", "number_in_weights"


def write_model(folder: Path, number: int) -> None:
    """Write the model that answers x = 1 with `number` times `STEP`.

    Its graph adds `number` times 1000, the file beside it holds the rest.
    """
    from onnx import helper

    nodes = [
        helper.make_node("Mul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
    ]
    _write(folder, nodes, [], ["y"], b=[1000.0 * number], beside={"w": [number]})


def write_line(folder: Path, number: int, weights: Sequence[float], bias: float) -> None:
    """Write a linear model: from rows `x` to one `price` each.

    The weights are in the file beside the graph, the bias in the graph; each of the two files also
    has the number, and an answer tells both.
    """
    from onnx import helper

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["price"]),
        helper.make_node("Identity", ["g"], [BY_GRAPH]),
        helper.make_node("Identity", ["n"], [BY_WEIGHTS]),
    ]
    beside = {"w": weights, "n": [number]}
    outputs = ["price", BY_GRAPH, BY_WEIGHTS]
    _write(folder, nodes, [len(weights)], outputs, b=[bias], g=[number], beside=beside)


def _write(
    folder: Path, nodes: list[Any], columns: list[int], outputs: list[str],
    *, beside: dict[str, Sequence[float]], **inside: Sequence[float],
) -> None:  # fmt: skip
    """A graph of these nodes, with weights in it and in the file beside it."""
    from onnx import TensorProto, helper, save_model

    folder.mkdir(exist_ok=True)
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, [len(values)], values)
        for name, values in inside.items()
    ]
    data = b""
    for name, values in beside.items():
        weights.append(_external(name, len(values), len(data)))
        data += np.array(values, "<f4").tobytes()
    (folder / WEIGHTS).write_bytes(data)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", *columns])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in outputs],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save_model(model, str(folder / MAIN))


def _external(name: str, count: int, offset: int) -> TensorProto:
    from onnx import TensorProto

    weight = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[count])
    weight.data_location = TensorProto.EXTERNAL
    places = {"location": WEIGHTS, "offset": str(offset), "length": str(4 * count)}
    for key, value in places.items():
        weight.external_data.add(key=key, value=value)
    return weight
