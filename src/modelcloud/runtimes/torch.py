"""PyTorch's models that need no code: TorchScript, and what `torch.export` saved (`.pt2`).

Must never: unpickle a `torch.save` file, which holds weights or objects whose code is elsewhere.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelcloud.errors import ModelLoadError
from modelcloud.runtimes.model import Told, needed
from modelcloud.runtimes.tensors import FREE, NUMPY, Tensor, Values

ACCEPTED = (
    "accepted: a file that torch.jit.save or torch.export.save wrote; one of torch.save needs the "
    "model's code"
)
_OUTPUT = "output"
#: What a TorchScript module is taken to want where nobody says otherwise.
_USUAL = "FP32"


def peek(main: Path, options: Mapping[str, Any]) -> Told:
    """What the option `inputs` says: TorchScript has names at most, the others are to be loaded."""
    return Told(told_inputs(options.get("inputs")))


def told_inputs(given: Any) -> tuple[Tensor, ...] | None:
    """Inputs as the option has them: `[{"name": "x", "datatype": "FP32", "shape": [-1, 13]}]`.

    Raises:
        ModelLoadError: they are not like this.
    """
    if given is None:
        return None
    try:
        out = tuple(Tensor(one["name"], one["datatype"], tuple(one["shape"])) for one in given)
        fits = all(t.datatype in NUMPY and all(type(n) is int for n in t.shape or ()) for t in out)
    except (TypeError, KeyError):
        fits, out = False, ()
    if not fits or not out:
        raise ModelLoadError(
            'the option inputs; accepted: [{"name": "x", "datatype": "FP32", "shape": [-1, 13]}]'
        )
    return out


def load(main: Path, options: Mapping[str, Any]) -> TorchModel:
    """Load it: to a GPU where torch has one, else to the processor.

    Args:
        main: the file.
        options: `inputs`: what a TorchScript module takes, as it does not say so itself.
    """
    with needed("torch"):
        import torch
    device = "cuda" if torch.cuda.is_available() else "cpu"
    names = _names(main)
    if any(name.endswith("/archive_format") for name in names):
        return _exported(torch, main, device)
    if any(name.endswith("/constants.pkl") for name in names):
        return _scripted(torch, main, device, told_inputs(options.get("inputs")))
    raise ModelLoadError(f"{main.name} holds no model that runs by itself; {ACCEPTED}")


def _names(main: Path) -> list[str]:
    try:
        with zipfile.ZipFile(main) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        raise ModelLoadError(f"{main.name} is no whole archive of PyTorch; {ACCEPTED}") from None


def _scripted(torch: Any, main: Path, device: str, told: tuple[Tensor, ...] | None) -> TorchModel:
    module = torch.jit.load(str(main), map_location=device).eval()
    names = [argument.name for argument in module.forward.schema.arguments][1:]
    inputs = told or tuple(Tensor(name, _USUAL) for name in names)
    if len(inputs) != len(names):
        raise ModelLoadError(f"the option inputs names {len(inputs)}; accepted: {len(names)}")
    return TorchModel(torch, module, device, inputs, None)


def _exported(torch: Any, main: Path, device: str) -> TorchModel:
    from torch.utils import _pytree as pytree

    program = torch.export.load(str(main))
    spec = program.call_spec.in_spec
    names = [name for name in program.graph_signature.user_inputs if isinstance(name, str)]
    if len(names) != spec.num_leaves:
        raise ModelLoadError(f"{main.name} takes more than tensors; accepted: tensors alone")
    meta = {node.name: node.meta.get("val") for node in program.graph.nodes}
    module = program.module().to(device)

    def call(*given: Any) -> Any:
        arguments, named = pytree.tree_unflatten(list(given), spec)
        return module(*arguments, **named)

    inputs = tuple(_tensor(torch, name, meta[name]) for name in names)
    found = [meta.get(name) for name in program.graph_signature.user_outputs]
    shaped = pytree.tree_unflatten(found, program.call_spec.out_spec)
    outputs = tuple(_tensor(torch, name, value) for name, value in _named(shaped).items())
    return TorchModel(torch, call, device, inputs, outputs)


def _tensor(torch: Any, name: str, value: Any) -> Tensor:
    """Of a traced value, whose free dimensions are symbols."""
    if value is None:
        return Tensor(name)
    word = {getattr(torch, numpy, None): word for word, numpy in NUMPY.items()}.get(value.dtype)
    return Tensor(name, word, tuple(n if isinstance(n, int) else FREE for n in value.shape))


class TorchModel:
    """A module that is called with tensors, in the order of its inputs.

    A single tensor it gives is `output`, several are `output_0`, `output_1` …, those of a dict
    have its names.
    """

    def __init__(
        self,
        torch: Any,
        call: Any,
        device: str,
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...] | None,
    ) -> None:
        self._torch, self._call, self._device = torch, call, device
        self.inputs, self.outputs = inputs, outputs
        self.library = f"torch {torch.__version__}"

    def run(self, values: Values) -> Values:
        """One call, without gradients."""
        torch = self._torch
        given = [torch.as_tensor(values[one.name], device=self._device) for one in self.inputs]
        with torch.inference_mode():
            found = _named(self._call(*given))
        return {name: _array(torch, value) for name, value in found.items()}


def _named(found: Any) -> dict[str, Any]:
    if isinstance(found, Mapping):
        return dict(found)
    if isinstance(found, Sequence):
        return {f"{_OUTPUT}_{number}": value for number, value in enumerate(found)}
    return {_OUTPUT: found}


def _array(torch: Any, value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    value = value.float() if value.dtype is torch.bfloat16 else value  # which numpy does not know
    return value.cpu().numpy()
