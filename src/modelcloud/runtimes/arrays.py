"""A value from JSON as the numpy array that an input takes.

Must never: change a value to make it fit: what is no whole number does not go to a whole tensor,
text is no number, and a number too great for its type is refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelcloud.errors import InvalidInput
from modelcloud.runtimes.tensors import FREE, NUMPY, Tensor

if TYPE_CHECKING:
    import numpy as np


def array_of(value: Any, tensor: Tensor) -> np.ndarray[Any, Any]:
    """A value as the array that an input takes.

    Null stands for a missing number, NaN, where the input is of floats.

    Raises:
        InvalidInput: it is of another type or shape, or a number does not fit.
    """
    import numpy as np

    try:
        if tensor.datatype == "BYTES":
            array = _texts(value, tensor)
        else:
            array = np.asarray(value)
            array = (
                _plain(array, value, tensor) if tensor.datatype is None else _cast(array, tensor)
            )
    except (ValueError, TypeError, OverflowError):
        raise InvalidInput(tensor.name, "rows of different lengths", tensor.words()) from None
    shape = tensor.shape
    fits = shape is None or (
        len(shape) == array.ndim
        and all(want in {FREE, got} for want, got in zip(shape, array.shape, strict=True))
    )
    if not fits:
        raise InvalidInput(tensor.name, f"shape {list(array.shape)}", tensor.words())
    return array


def _cast(array: np.ndarray[Any, Any], tensor: Tensor) -> np.ndarray[Any, Any]:
    import numpy as np

    assert tensor.datatype is not None
    wanted = np.dtype(NUMPY[tensor.datatype])
    if array.dtype == wanted:
        return array
    if not array.size:
        return array.astype(wanted)
    kind = array.dtype.kind
    if wanted.kind == "b" or kind not in "iufO":
        raise _unfit(array, tensor)
    if kind == "O":  # with null, with whole numbers of more than 64 bits, or with anything
        plain = (float, int, type(None)) if wanted.kind == "f" else (int,)
        if not all(isinstance(item, plain) and item is not True for item in array.flat):
            raise _unfit(array, tensor)
        array = array.astype(np.float64)
    if wanted.kind == "f":
        with np.errstate(over="ignore"):
            cast = array.astype(wanted)
        fits = np.isfinite(cast) | ~np.isfinite(array)
    else:
        limits = np.iinfo(wanted)
        fits = (array >= limits.min) & (array <= limits.max)
        if array.dtype.kind == "f":
            fits &= array == np.trunc(array)
            fits &= array < float(limits.max)  # which rounds up, of 64 bits
        cast = array.astype(wanted, copy=False) if fits.all() else array
    if not fits.all():
        raise InvalidInput(tensor.name, f"the number {array[~fits][0]}", tensor.words())
    return cast


def _plain(array: np.ndarray[Any, Any], value: Any, tensor: Tensor) -> np.ndarray[Any, Any]:
    """Values of no declared type, each as JSON had it."""
    import numpy as np

    if array.dtype.kind == "U":  # numbers beside text were made text
        array = np.asarray(value, dtype=object)
    if array.dtype.kind == "O":
        kinds = {type(item) for item in array.flat}
        if kinds <= {float, int, type(None)}:
            return array.astype(np.float64)
        if not kinds <= {str, float, int, bool, type(None)}:
            raise _unfit(array, tensor)
    return array


def _texts(value: Any, tensor: Tensor) -> np.ndarray[Any, Any]:
    import numpy as np

    array = np.asarray(value, dtype=object)
    out = np.empty(array.shape, dtype=object)
    for place, item in zip(np.ndindex(array.shape), array.flat, strict=True):
        if is_bytes(item):
            try:
                out[place] = base64.b64decode(item["b64"], validate=True)
            except (binascii.Error, TypeError, ValueError):
                raise InvalidInput(tensor.name, "b64 that is no base64", tensor.words()) from None
        elif isinstance(item, str | bytes):
            out[place] = item
        else:
            raise InvalidInput(tensor.name, kind_of(item), tensor.words())
    return out


def _unfit(array: np.ndarray[Any, Any], tensor: Tensor) -> InvalidInput:
    return InvalidInput(tensor.name, kind_of(next(iter(array.flat), None)), tensor.words())


def is_bytes(value: Any) -> bool:
    """Whether it is `{"b64": …}`, which stands for bytes."""
    return isinstance(value, Mapping) and value.keys() == {"b64"}


def kind_of(value: Any) -> str:
    """What came, in words that are short and safe to show."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return {int: "a number", float: "a number", list: "an array", dict: "an object",
            type(None): "null"}.get(type(value), type(value).__name__)  # fmt: skip
