"""Named tensors: what a model says of its inputs and outputs, and values for them.

Must never: need numpy when imported. The words for types are those of the Open Inference Protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

#: Word → numpy's name. `BYTES` is text, or bytes as `{"b64": …}`.
NUMPY = {
    "BOOL": "bool",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64",
    "BYTES": "object",
}  # fmt: skip
WORDS = {name: word for word, name in NUMPY.items()}

#: Of a dimension of any length.
FREE = -1

#: Values by name: numpy arrays, or lists of what no array holds, such as ONNX's maps.
Values = dict[str, Any]


@dataclass(frozen=True)
class Tensor:
    """One input or output.

    Attributes:
        datatype: a word of `NUMPY`; None: whatever JSON holds.
        shape: its dimensions, `FREE` where any length goes; None: not told.
        required: as an input: whether it must be there.
    """

    name: str
    datatype: str | None = None
    shape: tuple[int, ...] | None = None
    required: bool = True

    @property
    def counts_rows(self) -> bool:
        """Whether its first dimension may be of any length."""
        return self.shape is None or self.shape[:1] == (FREE,)

    def to_dict(self) -> dict[str, Any]:
        """As `metadata` shows it."""
        shape = None if self.shape is None else list(self.shape)
        return {"name": self.name, "datatype": self.datatype, "shape": shape}

    def words(self) -> str:
        """What is accepted, in words."""
        kind = self.datatype or "values"
        if self.shape is None:
            return kind
        return f"{kind} of shape [{', '.join('any' if n < 0 else str(n) for n in self.shape)}]"


#: What is told of a model; None where a body may name what it likes.
Tensors = tuple[Tensor, ...] | None

#: The one input of a model of a matrix whose columns have no names.
MATRIX = "x"


def matrix_inputs(names: Sequence[str], count: int, datatype: str) -> tuple[Tensor, ...]:
    """The inputs of a model of a matrix: a column each if they have names, else all as one."""
    if names:
        return tuple(Tensor(name, datatype, (FREE,)) for name in names)
    return (Tensor(MATRIX, datatype, (FREE, count)),)


def matrix_of(values: Values) -> np.ndarray[Any, Any]:
    """The matrix of such inputs; columns are in the order of the model's inputs."""
    import numpy as np

    if values.keys() == {MATRIX} and values[MATRIX].ndim == 2:
        return np.asarray(values[MATRIX])
    return np.column_stack(list(values.values()))


def zeros(inputs: Tensors) -> Values | None:
    """One row of zeros (texts: empty), to try a model with; None where shapes are not told."""
    import numpy as np

    if inputs is None or any(tensor.shape is None for tensor in inputs):
        return None
    values: Values = {}
    for tensor in inputs:
        shape = [1 if n < 0 else n for n in tensor.shape or ()]
        kind = NUMPY[tensor.datatype or "FP64"]
        values[tensor.name] = np.full(shape, "" if tensor.datatype == "BYTES" else 0, dtype=kind)
    return values


def told_by(values: Values) -> tuple[Tensor, ...]:
    """What outputs are, by those of one row; the first dimension is taken to count rows."""
    out = []
    for name, value in values.items():
        dtype = getattr(value, "dtype", None)
        if dtype is None or dtype.kind == "O":  # objects may be anything
            out.append(Tensor(name))
            continue
        word = "BYTES" if dtype.kind in "SU" else WORDS.get(dtype.name)
        out.append(Tensor(name, word, (FREE, *value.shape[1:]) if value.shape else ()))
    return tuple(out)


def schema_of(tensor: Tensor, *, row: bool = False) -> dict[str, Any]:
    """JSON Schema of a tensor, or of one row of it."""
    if tensor.shape is None:
        return {}
    kinds: dict[str, dict[str, Any]] = {
        "FP": {"type": ["number", "null"]}, "IN": {"type": "integer"}, "UI": {"type": "integer"},
        "BO": {"type": "boolean"}, "BY": {"type": ["string", "object"]},
    }  # fmt: skip
    item = kinds.get((tensor.datatype or "")[:2], {})
    for length in reversed(tensor.shape[1:] if row else tensor.shape):
        item = {"type": "array", "items": item}
        if length >= 0:
            item |= {"minItems": length, "maxItems": length}
    return item
