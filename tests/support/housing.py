"""Models that arrive: who trains them on real data, who serves them, and who asks all the time.

Each answer tells which model it is of.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import SGDRegressor
from sklearn.preprocessing import StandardScaler

from support.load import Sample, failures, load, mixed
from support.monitored import ARCHIVE, DONE, MODEL, Place, tarred
from support.onnx_model import BY_GRAPH, BY_WEIGHTS, write_line
from support.server import Server, serve, wait_for

#: Of one model, from its done-file to its first answer; a machine may be busy.
ARRIVAL_S = 120.0


class Producer:
    """Makes one pass more over the data for each model; number 0 has not seen it yet.

    Attributes:
        number: of the newest model.
        asked: a row to ask its price for.
        expected: number of a model → the price that it gives.
    """

    def __init__(self) -> None:
        table = load_diabetes()
        self._rows = StandardScaler().fit_transform(table.data)
        self._targets = table.target
        self._line = SGDRegressor(learning_rate="constant", eta0=1e-4, random_state=0)
        self.number = -1
        self.asked: list[float] = self._rows[0].tolist()
        self.expected: dict[int, float] = {}
        self.train()

    def train(self) -> int:
        """One pass; the number of the model that it gives."""
        self._line.partial_fit(self._rows, self._targets)
        self.number += 1
        self.expected[self.number] = float(self._line.predict([self.asked])[0])
        return self.number

    def write(self, folder: Path) -> None:
        """The newest model, as a folder that is served without code."""
        write_line(folder, self.number, self._line.coef_.tolist(), float(self._line.intercept_[0]))

    def files(self) -> dict[str, bytes]:
        """The newest model's, by their names."""
        with tempfile.TemporaryDirectory() as temporary:
            self.write(Path(temporary))
            return {file.name: file.read_bytes() for file in sorted(Path(temporary).iterdir())}

    def packed(self, *, gzipped: bool = True, filling: bytes = b"") -> bytes:
        """The newest model, as `tar` packs it; `filling` is a further file of it."""
        more = {"filling": filling} if filling else {}
        return tarred(self.files() | more, gzipped=gzipped)

    def produce(self, place: Place, *, filling: bytes = b"") -> int:
        """Train, put the archive, then the done-file, which is empty; the number of the model."""
        self.train()
        place.put(ARCHIVE, self.packed(filling=filling))
        place.put(DONE, b"")
        return self.number

    @property
    def question(self) -> dict[str, Any]:
        """A request's body."""
        return {"inputs": [self.asked]}

    def whole(self, outputs: Any) -> int:
        """Which model gave this answer.

        Raises:
            AssertionError: none alone: its parts are of two models, or it is not what one says.
        """
        (graph,), (weights,), (price,) = (outputs[name] for name in (BY_GRAPH, BY_WEIGHTS, "price"))
        assert graph == weights, f"torn: a graph of model {graph}, weights of {weights}"
        assert price == pytest.approx(self.expected[int(graph)], rel=1e-4)
        return int(graph)

    def by_generation(self, samples: list[Sample]) -> dict[int, int]:
        """Generation → the one model that it answered with.

        Raises:
            AssertionError: one was answered by no whole model, or a generation by two.
        """
        found: dict[int, int] = {}
        for sample in samples:
            number = self.whole(sample.answer)
            assert found.setdefault(sample.generation, number) == number
        return found


class Served:
    """A server of a folder that a monitor brings models to.

    Attributes:
        folder: the folder that it was started in; the model's is in it.
        server: the process.
        producer: of the models; the first one is there from the start.
        samples: all requests of `under_load` so far.
    """

    def __init__(self, folder: Path, server: Server, producer: Producer) -> None:
        self.folder, self.server, self.producer = folder, server, producer
        self.samples: list[Sample] = []

    def answers(self) -> int:
        """Which model answers now."""
        answer = self.server.post("/predict", self.producer.question)
        assert answer.status_code == 200, answer.text
        return self.producer.whole(answer.json()["outputs"])

    def wait_for(self, number: int) -> None:
        """Until this model answers."""
        wait_for(f"model {number} to serve", lambda: self.answers() == number, ARRIVAL_S)

    def arrive(self, place: Place) -> int:
        """Have the next model produced, and wait until it answers; its number."""
        number = self.producer.produce(place)
        self.wait_for(number)
        return number

    @contextlib.contextmanager
    def under_load(self) -> Iterator[None]:
        """Requests all the time, on schedule; none may fail, and no answer be of an older model.

        Raises:
            AssertionError: one did, or an answer was of no whole model.
        """
        with load(self.server.port, "/predict", self.producer.question, rate=50.0) as running:
            yield
            enough = len(running.samples) + 50
            wait_for("further answers", lambda: len(running.samples) >= enough)
        assert failures(running.samples) == []
        self.samples += running.samples
        assert mixed(self.samples) == []
        self.producer.by_generation(self.samples)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Served]:
    """A server as in the seed's story, in this folder."""
    producer = Producer()
    folder.mkdir(exist_ok=True)
    producer.write(folder / MODEL)
    with serve("--model", MODEL, "--thread", "10", cwd=folder) as server:
        yield Served(folder, server, producer)
