"""ONNX, run by onnxruntime.

Must never: import onnxruntime when imported; it is there only in the worker of such a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from modelcloud.errors import ModelLoadError
from modelcloud.runtimes import protobuf
from modelcloud.runtimes.model import Told, needed, threads
from modelcloud.runtimes.protobuf import Span
from modelcloud.runtimes.tensors import FREE, Tensor, Values

#: `onnx.TensorProto.DataType`
_DATATYPES = {
    1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 8: "BYTES",
    9: "BOOL", 10: "FP16", 11: "FP64", 12: "UINT32", 13: "UINT64",
}  # fmt: skip
#: onnxruntime's words.
_WORDS = {
    "float": "FP32", "uint8": "UINT8", "int8": "INT8", "uint16": "UINT16", "int16": "INT16",
    "int32": "INT32", "int64": "INT64", "string": "BYTES", "bool": "BOOL", "float16": "FP16",
    "double": "FP64", "uint32": "UINT32", "uint64": "UINT64",
}  # fmt: skip


# Field numbers are those of onnx.proto (ModelProto.graph, GraphProto.input …).


def peek(main: Path, options: Mapping[str, Any]) -> Told:
    """The graph's inputs and outputs.

    Raises:
        ModelLoadError: the file is no ONNX.
    """
    try:
        with main.open("rb") as file:
            graph = protobuf.first(file, protobuf.whole(file), 7)
            # Before version 4 of the format, weights stood among the inputs too.
            weights = {
                protobuf.text(file, span, 8) for span in list(protobuf.spans(file, graph, 5))
            }
            inputs = tuple(t for t in _tensors(file, graph, 11) if t.name not in weights)
            return Told(inputs, tuple(_tensors(file, graph, 12)))
    except protobuf.Damaged as error:
        raise ModelLoadError(f"{main.name} is no ONNX file, or damaged: {error}") from None


def _tensors(file: BinaryIO, graph: Span, field: int) -> Iterator[Tensor]:
    for info in list(protobuf.spans(file, graph, field)):
        name, datatype, shape = protobuf.text(file, info, 1), None, None
        for kind in list(protobuf.spans(file, info, 2)):
            for tensor in list(protobuf.spans(file, kind, 1)):
                datatype = _DATATYPES.get(protobuf.number(file, tensor, 1) or 0)
                for dims in list(protobuf.spans(file, tensor, 2)):
                    shape = tuple(_dimensions(file, dims))
        yield Tensor(name, datatype, shape)


def _dimensions(file: BinaryIO, shape: Span) -> Iterator[int]:
    for dimension in list(protobuf.spans(file, shape, 1)):
        value = protobuf.number(file, dimension, 1)
        yield FREE if value is None or value < 0 else value


def load(main: Path, options: Mapping[str, Any]) -> OnnxModel:
    """Start a session: on a GPU where onnxruntime has one, else on the processor."""
    return OnnxModel(main)


class OnnxModel:
    """A session of onnxruntime."""

    def __init__(self, main: Path) -> None:
        with needed("onnx"):
            import onnxruntime
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads()
        # Threads that spin between two requests would take processors from the other workers.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(main), settings, providers=onnxruntime.get_available_providers()
        )
        self.inputs = tuple(map(_told, self._session.get_inputs()))
        self.outputs = tuple(map(_told, self._session.get_outputs()))
        self.library = f"onnxruntime {onnxruntime.__version__}"

    def run(self, values: Values) -> Values:
        """One run of the session."""
        names = [tensor.name for tensor in self.outputs]
        return dict(zip(names, self._session.run(names, values), strict=True))


def _told(node: Any) -> Tensor:
    """An input or output of a session: `tensor(float)`, `[None, 4]`."""
    kind = re.fullmatch(r"tensor\((\w+)\)", node.type)
    if kind is None:  # a map or a sequence of them
        return Tensor(node.name)
    shape = tuple(n if isinstance(n, int) and n >= 0 else FREE for n in node.shape)
    return Tensor(node.name, _WORDS.get(kind[1]), shape)
