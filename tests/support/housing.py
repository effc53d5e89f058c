"""Models that arrive: who trains them on real data, who serves them, and who asks all the time.

Each answer tells which model it is of.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import SGDRegressor
from sklearn.preprocessing import StandardScaler

from support.load import Load, Sample, failures, load, mixed, steady
from support.monitored import ARCHIVE, DONE, MODEL, Place, tarred
from support.onnx_model import BY_GRAPH, BY_WEIGHTS, write_line
from support.server import Server, serve, wait_for

#: Of one model, from its done-file to its first answer; a machine may be busy.
ARRIVAL_S = 120.0


def table() -> tuple[Any, Any]:
    """Rows of numbers and what is to be predicted; of the diabetes data, which come along."""
    data = load_diabetes()
    return StandardScaler().fit_transform(data.data), data.target


class Trainer(Protocol):
    """What trains."""

    def train(self, number: int) -> float:
        """One pass more over `table`, for the model of a number; the price of its first row."""

    def files(self) -> dict[str, bytes]:
        """That model, which is served without code: the files of its folder, by their names.

        Its outputs are `price`, and its number by both of its files: `BY_GRAPH`, `BY_WEIGHTS`.
        """


class Line:
    """A linear model of scikit-learn, kept as ONNX."""

    def __init__(self) -> None:
        self._rows, self._targets = table()
        self._line = SGDRegressor(learning_rate="constant", eta0=1e-4, random_state=0)
        self._number = 0

    def train(self, number: int) -> float:
        """See `Trainer.train`."""
        self._line.partial_fit(self._rows, self._targets)
        self._number = number
        return float(self._line.predict(self._rows[:1])[0])

    def files(self) -> dict[str, bytes]:
        """See `Trainer.files`."""
        weights, bias = self._line.coef_.tolist(), float(self._line.intercept_[0])
        with tempfile.TemporaryDirectory() as temporary:
            write_line(Path(temporary), self._number, weights, bias)
            return {file.name: file.read_bytes() for file in sorted(Path(temporary).iterdir())}


class Producer:
    """Makes one model after the other, numbered from 0 on.

    Attributes:
        number: of the newest model.
        expected: number of a model → the price that it gives.
        question: a request's body, which asks for that.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.number = -1
        self.expected: dict[int, float] = {}
        self.question = {"inputs": table()[0][:1].tolist()}
        self._trainer = trainer
        self.train()

    def train(self) -> int:
        """The next model; its number."""
        self.number += 1
        self.expected[self.number] = self._trainer.train(self.number)
        return self.number

    def files(self) -> dict[str, bytes]:
        """The newest model's, by their names."""
        return self._trainer.files()

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

    def whole(self, outputs: Any) -> int:
        """Which model gave this answer.

        Raises:
            AssertionError: none alone: its parts are of two models, or it is not what one says.
        """
        names = (BY_GRAPH, BY_WEIGHTS, "price")
        graph, weights, price = (float(np.ravel(outputs[name])[0]) for name in names)
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
        self._load: Load | None = None

    def answers(self) -> int:
        """Which model answers now."""
        answer = self.server.post("/predict", self.producer.question)
        assert answer.status_code == 200, answer.text
        return self.producer.whole(answer.json()["outputs"])

    def wait_for(self, number: int) -> None:
        """Until this model answers, also to who asks all the time."""
        wait_for(f"model {number} to serve", lambda: self.answers() == number, ARRIVAL_S)
        if self._load is not None:
            samples = self._load.samples
            wait_for(f"model {number} to be asked", lambda: self._is_of(samples[-1], number))

    def _is_of(self, sample: Sample, number: int) -> bool:
        return bool(sample.error) or self.producer.whole(sample.answer) == number

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
            steady(running)
            self._load = running
            yield
            self._load = None
            steady(running)
        assert failures(running.samples) == []
        self.samples += running.samples
        assert mixed(self.samples) == []
        self.producer.by_generation(self.samples)


@contextlib.contextmanager
def served(folder: Path, trainer: Trainer | None = None, *more: str | Path) -> Iterator[Served]:
    """A server as in the seed's story, in this folder; `more` goes on its command line."""
    producer = Producer(trainer or Line())
    (folder / MODEL).mkdir(parents=True)
    for name, data in producer.files().items():
        (folder / MODEL / name).write_bytes(data)
    with serve("--model", MODEL, "--thread", "10", *more, cwd=folder) as server:
        yield Served(folder, server, producer)
