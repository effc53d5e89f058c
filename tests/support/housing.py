"""A producer that trains on real data, and whose models tell in each answer which one they are."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import SGDRegressor
from sklearn.preprocessing import StandardScaler

from support.load import Sample
from support.monitored import ARCHIVE, DONE, MODEL, Place, promise, tarred
from support.onnx_model import BY_GRAPH, BY_WEIGHTS, write_line


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

    def packed(self, *, gzipped: bool = True, filling: bytes = b"") -> bytes:
        """The newest model, as `tar` packs it; `filling` is a further file of it."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / MODEL
            self.write(folder)
            files = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
        return tarred(files | ({"filling": filling} if filling else {}), gzipped=gzipped)

    def produce(self, place: Place, *, filling: bytes = b"", says: bool = True) -> int:
        """Train, put the archive, then the done-file; the number of the model.

        Args:
            place: where to.
            filling: see `packed`.
            says: the done-file says what the archive is, else only which model.
        """
        self.train()
        archive = self.packed(filling=filling)
        place.put(ARCHIVE, archive)
        place.put(DONE, promise(archive) if says else f"{self.number}\n".encode())
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

    def answered(self, samples: list[Sample]) -> dict[int, int]:
        """Generation → the one model that it answered with, of all that were answered.

        Raises:
            AssertionError: one was answered by no whole model, or a generation by two.
        """
        found: dict[int, int] = {}
        for sample in samples:
            number = self.whole(sample.answer)
            assert found.setdefault(sample.generation, number) == number
        return found
