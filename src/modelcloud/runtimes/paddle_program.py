"""What Paddle's programs say of their tensors: `.json` (3.0 on), `.pdmodel`, `__model__`.

Must never: need Paddle; its predictor tells names, and shapes only of what has run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from modelcloud.errors import ModelLoadError
from modelcloud.runtimes import protobuf
from modelcloud.runtimes.model import Told
from modelcloud.runtimes.protobuf import Span
from modelcloud.runtimes.tensors import FREE, Tensor, Tensors

#: framework.proto: VarType.Type
_DATATYPES = {
    0: "BOOL", 1: "INT16", 2: "INT32", 3: "INT64", 4: "FP16", 5: "FP32", 6: "FP64", 20: "UINT8",
    21: "INT8",
}  # fmt: skip
_JSON_TYPES = {"t_f32": "FP32", "t_f64": "FP64", "t_f16": "FP16", "t_i8": "INT8", "t_ui8": "UINT8",
               "t_i16": "INT16", "t_i32": "INT32", "t_i64": "INT64", "t_bool": "BOOL"}  # fmt: skip

#: Written beside a program by Paddle Serving: what clients call its inputs and outputs.
ALIASES = "serving_server_conf.prototxt"


def read(main: Path) -> Told:
    """Inputs and outputs by the program's own names.

    Raises:
        ModelLoadError: it is no program.
    """
    try:
        if main.suffix == ".json":
            return _of_json(main)
        with main.open("rb") as file:
            return _of_protobuf(file)
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError) as error:
        raise ModelLoadError(
            f"{main.name} is no program of Paddle, or damaged", detail=str(error)
        ) from None


def aliases(folder: Path) -> dict[str, str]:
    """A program's names → those that clients use; empty without Paddle Serving's file."""
    try:
        text = (folder / ALIASES).read_text("utf-8")
    except OSError:
        return {}
    pairs = re.findall(r'\bname:\s*"([^"]+)"\s*alias_name:\s*"([^"]+)"', text)
    return dict(pairs)


def _of_json(main: Path) -> Told:
    program = msgspec.json.decode(main.read_bytes())["program"]
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    for operation in program["regions"][0]["blocks"][0]["ops"]:
        kind = operation["#"].rpartition(".")[2]
        if kind not in {"data", "feed", "fetch"}:
            continue
        facts = {given["N"]: given["AT"].get("D") for given in operation["A"]}
        element, shape = operation["O"][0]["TT"]["D"][:2]
        datatype = _JSON_TYPES.get(element["#"].rpartition(".")[2])
        told = Tensor(facts["name"], datatype, _shape(shape))
        (outputs if kind == "fetch" else inputs).append(told)
    return Told(tuple(inputs), tuple(outputs))


# Field numbers are those of framework.proto (ProgramDesc.blocks, BlockDesc.vars …).


def _of_protobuf(file: BinaryIO) -> Told:
    block = protobuf.first(file, protobuf.whole(file), 1)
    known = {tensor.name: tensor for tensor in _variables(file, block)}
    fed: list[Tensor] = []
    fetched: list[Tensor] = []
    for operation in list(protobuf.spans(file, block, 4)):
        kind = protobuf.text(file, operation, 3)
        if kind == "feed":
            fed += [known[name] for name in _arguments(file, operation, 2)]
        elif kind == "fetch":
            fetched += [known[name] for name in _arguments(file, operation, 1)]
    return Told(tuple(fed), tuple(fetched))


def _variables(file: BinaryIO, block: Span) -> Iterator[Tensor]:
    for variable in list(protobuf.spans(file, block, 3)):
        name = protobuf.text(file, variable, 1)
        for kind in list(protobuf.spans(file, variable, 2)):
            for dense in list(protobuf.spans(file, kind, 3)):
                for tensor in list(protobuf.spans(file, dense, 1)):
                    datatype = _DATATYPES.get(protobuf.number(file, tensor, 1) or 0)
                    sizes = [n for _, n in protobuf.fields(file, tensor, 2) if isinstance(n, int)]
                    yield Tensor(name, datatype, _shape(sizes))


def _arguments(file: BinaryIO, operation: Span, field: int) -> Iterator[str]:
    for variable in list(protobuf.spans(file, operation, field)):
        for name in list(protobuf.spans(file, variable, 2)):
            yield protobuf.read_text(file, name)


def _shape(sizes: list[int]) -> tuple[int, ...]:
    return tuple(FREE if size < 0 or size >= 1 << 63 else size for size in sizes)


def renamed(tensors: Tensors, names: Mapping[str, str]) -> Tensors:
    """The same tensors by the names that clients use."""
    return tensors and tuple(
        Tensor(names.get(one.name, one.name), one.datatype, one.shape) for one in tensors
    )
