"""Paddle's inference format: `.json` or `.pdmodel` with `.pdiparams`, or a Paddle Serving folder.

Must never: import paddle when imported; it is there only in the worker of such a model.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelcloud.errors import ModelLoadError
from modelcloud.runtimes.model import Told, needed, threads
from modelcloud.runtimes.paddle_program import aliases, read, renamed
from modelcloud.runtimes.tensors import Values

_OLD_PROGRAM, _OLD_WEIGHTS = "__model__", "__params__"


def peek(main: Path, options: Mapping[str, Any]) -> Told:
    """Inputs and outputs, by the names of Paddle Serving where its file stands beside."""
    told, names = read(main), aliases(main.parent)
    return Told(renamed(told.inputs, names), renamed(told.outputs, names))


def load(main: Path, options: Mapping[str, Any]) -> PaddleModel:
    """Make a predictor."""
    return PaddleModel(main)


class PaddleModel:
    """A predictor, and a clone of it for each thread, since one takes one call at a time."""

    def __init__(self, main: Path) -> None:
        with needed("paddle"):
            import paddle
            from paddle import inference
        told, self._own = peek(main, {}), aliases(main.parent)
        self.inputs, self.outputs = told.inputs, told.outputs
        config = _config(inference, main)
        config.disable_glog_info()
        if paddle.device.is_compiled_with_cuda() and paddle.device.cuda.device_count():
            config.enable_use_gpu(100, 0)
        if threads():
            config.set_cpu_math_library_num_threads(threads())
        self._first = inference.create_predictor(config)
        self._cloning = threading.Lock()
        self._local = threading.local()
        self.library = f"paddlepaddle {paddle.__version__}"

    def run(self, values: Values) -> Values:
        """One run of this thread's predictor."""
        import numpy as np

        predictor = self._predictor()
        for own in predictor.get_input_names():
            given = np.ascontiguousarray(values[self._own.get(own, own)])
            predictor.get_input_handle(own).copy_from_cpu(given)
        predictor.run()
        return {
            self._own.get(own, own): predictor.get_output_handle(own).copy_to_cpu()
            for own in predictor.get_output_names()
        }

    def _predictor(self) -> Any:
        if not hasattr(self._local, "predictor"):
            with self._cloning:
                self._local.predictor = self._first.clone()
        return self._local.predictor


def _config(inference: Any, main: Path) -> Any:
    if main.name == _OLD_PROGRAM:
        weights = main.with_name(_OLD_WEIGHTS)
        if not weights.is_file():  # one file for each weight
            return inference.Config(str(main.parent))
    else:
        weights = main.with_suffix(".pdiparams")
        if not weights.is_file():
            raise ModelLoadError(
                f"{weights.name} is not beside {main.name}; accepted: a program with its weights"
            )
    return inference.Config(str(main), str(weights))
