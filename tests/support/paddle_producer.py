"""What trains in Paddle Serving's own example: Paddle, in an environment of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from support.housing import table
from support.onnx_model import BY_GRAPH, BY_WEIGHTS
from support.server import DEADLINE_S

#: For each number that it is given: one pass over the data, a folder as Paddle Serving's
#: `save_model` writes it, and a line with what that model answers.
_PROGRAM = """
import json, os, sys
os.environ["FLAGS_enable_pir_api"] = "0"
import numpy as np, paddle
from paddle import static

FOLDER, BY_GRAPH, BY_WEIGHTS = sys.argv[1:]
paddle.enable_static()
rows, targets = (np.array(table, "float32") for table in json.loads(sys.stdin.readline()))
exe = static.Executor()

def price_of(x):
    return static.nn.fc(x, 1, weight_attr="w", bias_attr="b")

training, startup = static.Program(), static.Program()
with static.program_guard(training, startup):
    x = static.data("x", [None, rows.shape[1]], "float32")
    y = static.data("y", [None, 1], "float32")
    loss = paddle.nn.functional.square_error_cost(price_of(x), y).mean()
    paddle.optimizer.SGD(learning_rate=0.1).minimize(loss)
exe.run(startup)

for number in map(int, sys.stdin):
    exe.run(training, feed={"x": rows, "y": targets[:, None]}, fetch_list=[loss])
    served = static.Program()
    with static.program_guard(served, static.Program()):
        x = static.data("x", [None, rows.shape[1]], "float32")
        weight = static.create_parameter([1], "float32", name="number")
        of_graph, of_weights = paddle.full([1], number, "float32"), weight * 1.0
        outputs = {"price": price_of(x), BY_GRAPH: of_graph, BY_WEIGHTS: of_weights}
    tensor = static.global_scope().var("number").get_tensor()
    tensor.set(np.array([number], "float32"), paddle.CPUPlace())
    static.save_inference_model(f"{FOLDER}/m", [x], [*outputs.values()], exe, program=served)
    os.rename(f"{FOLDER}/m.pdmodel", f"{FOLDER}/__model__")
    os.rename(f"{FOLDER}/m.pdiparams", f"{FOLDER}/__params__")
    with open(f"{FOLDER}/serving_server_conf.prototxt", "w") as conf:
        conf.write('feed_var { name: "x" alias_name: "x" }\\n')
        for alias, output in outputs.items():
            conf.write('fetch_var { name: "%s" alias_name: "%s" }\\n' % (output.name, alias))
    price, = exe.run(served, feed={"x": rows[:1]}, fetch_list=[outputs["price"]])
    print(json.dumps(float(price[0, 0])), flush=True)
"""


class PaddleLine:
    """See `Trainer`. Its process ends with `close`.

    Args:
        python: an interpreter that has Paddle.
        folder: for its models; made.
    """

    def __init__(self, python: Path, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._process = subprocess.Popen(
            [python, "-c", _PROGRAM, folder, BY_GRAPH, BY_WEIGHTS],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        rows, targets = table()
        self._say([rows.tolist(), targets.tolist()])

    def train(self, number: int) -> float:
        """See `Trainer.train`."""
        assert self._process.stdout is not None
        self._say(number)
        said = self._process.stdout.readline()
        assert said, "the process that trains ended"
        return float(json.loads(said))

    def files(self) -> dict[str, bytes]:
        """See `Trainer.files`."""
        return {file.name: file.read_bytes() for file in sorted(self._folder.iterdir())}

    def _say(self, what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=DEADLINE_S)


@contextlib.contextmanager
def paddle_line(python: Path, folder: Path) -> Iterator[PaddleLine]:
    """One, ended in the end."""
    line = PaddleLine(python, folder)
    try:
        yield line
    finally:
        line.close()
