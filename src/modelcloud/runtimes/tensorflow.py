"""TensorFlow's SavedModel.

Must never: import tensorflow when imported; it is there only in the worker of such a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from modelcloud.errors import InvalidInput, ModelLoadError
from modelcloud.runtimes import protobuf
from modelcloud.runtimes.model import Told, needed
from modelcloud.runtimes.protobuf import Span
from modelcloud.runtimes.tensors import FREE, Tensor, Values

#: types.proto: DataType
_DATATYPES = {
    1: "FP32", 2: "FP64", 3: "INT32", 4: "UINT8", 5: "INT16", 6: "INT8", 7: "BYTES", 9: "INT64",
    10: "BOOL", 17: "UINT16", 19: "FP16", 22: "UINT32", 23: "UINT64",
}  # fmt: skip
#: Written by TensorFlow itself, for its own use.
_INTERNAL = "__saved_model_init_op"
DEFAULT = "serving_default"


# Field numbers are those of saved_model.proto and meta_graph.proto.


def peek(main: Path, options: Mapping[str, Any]) -> Told:
    """Inputs and outputs of the chosen signature.

    Raises:
        ModelLoadError: the file is damaged.
        InvalidInput: there is no such signature.
    """
    found: dict[str, Told] = {}
    try:
        with main.open("rb") as file:
            for graph in list(protobuf.spans(file, protobuf.whole(file), 2)):
                for entry in list(protobuf.spans(file, graph, 5)):
                    name = protobuf.text(file, entry, 1)
                    for signature in list(protobuf.spans(file, entry, 2)):
                        found.setdefault(name, _signature(file, signature))
    except protobuf.Damaged as error:
        raise ModelLoadError(f"{main.name} is no SavedModel, or damaged: {error}") from None
    found.pop(_INTERNAL, None)
    wanted = options.get("signature", DEFAULT)
    if wanted not in found:
        accepted = ", ".join(sorted(found)) or "none; save the model with signatures"
        raise InvalidInput("signature", f"{wanted!r}, which the model does not have", accepted)
    return found[wanted]


def _signature(file: BinaryIO, signature: Span) -> Told:
    inputs, outputs = (
        tuple(sorted(_tensors(file, signature, field), key=lambda tensor: tensor.name))
        for field in (1, 2)
    )
    return Told(inputs, outputs)


def _tensors(file: BinaryIO, signature: Span, field: int) -> Iterator[Tensor]:
    for entry in list(protobuf.spans(file, signature, field)):
        for info in list(protobuf.spans(file, entry, 2)):
            datatype = _DATATYPES.get(protobuf.number(file, info, 2) or 0)
            shape: tuple[int, ...] | None = None
            for sizes in list(protobuf.spans(file, info, 3)):
                if not protobuf.number(file, sizes, 3, 0):
                    dims = list(protobuf.spans(file, sizes, 2))
                    shape = tuple(_size(file, dim) for dim in dims)
            yield Tensor(protobuf.text(file, entry, 1), datatype, shape)


def _size(file: BinaryIO, dimension: Span) -> int:
    size = protobuf.number(file, dimension, 1, 0) or 0
    return FREE if size < 0 else size


def load(main: Path, options: Mapping[str, Any]) -> TensorflowModel:
    """Load it.

    Args:
        main: its `saved_model.pb`.
        options: `signature`: which one to call.
    """
    return TensorflowModel(main, options.get("signature", DEFAULT))


class TensorflowModel:
    """One signature of a SavedModel."""

    def __init__(self, main: Path, signature: str) -> None:
        told = peek(main, {"signature": signature})
        with needed("tensorflow"):
            import tensorflow as tf
        self._model = tf.saved_model.load(str(main.parent))  # what it calls goes with it
        self._call = self._model.signatures[signature]
        self._constant = tf.constant
        self.inputs, self.outputs = told.inputs, told.outputs
        self.library = f"tensorflow {tf.__version__}"

    def run(self, values: Values) -> Values:
        """Call the signature."""
        found = self._call(**{name: self._constant(value) for name, value in values.items()})
        return {name: found[name].numpy() for name in sorted(found)}
