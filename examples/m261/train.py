"""Trains m261 and writes weights.json, metrics.json and history.csv beside it.

    pip install numpy scikit-learn && python examples/m261/train.py

The data are made, the same ones every time: accounts with a dozen numbers that are mostly known
(counts, ages, amounts over several orders of magnitude), and some five hundred counters that are
mostly zero. -65535 stands for what is not known, as in the tables that such data come from. They
go through libsvm's text form, as a real training's would.
"""

import csv
import io
import json
from pathlib import Path

import numpy as np
from sklearn.datasets import dump_svmlight_file, load_svmlight_file
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss, roc_auc_score

FEATURES = 524
MISSING = -65535.0
ROWS, HELD_OUT, STEPS = 8_000, 2_000, 40
HERE = Path(__file__).parent


def accounts(random, rows):
    """Features and labels."""
    x = np.zeros((rows, FEATURES))
    x[:, :12] = random.lognormal(mean=np.linspace(0, 11, 12), sigma=1.2, size=(rows, 12))
    x[:, :5] = np.round(x[:, :5])
    counters = random.random((rows, FEATURES - 12)) < np.geomspace(0.2, 0.01, FEATURES - 12)
    x[:, 12:] = counters * random.poisson(3, size=counters.shape)
    unknown = random.random((rows, FEATURES)) < np.where(np.arange(FEATURES) < 12, 0.1, 0.002)
    unknown[:, -1] = random.random(rows) < 0.6
    truth = np.random.default_rng(261)
    effect = truth.normal(size=FEATURES) * (truth.random(FEATURES) < 0.25)
    effect[:12] = truth.normal(size=12)
    seen = np.log1p(x)
    chance = (seen - seen.mean(axis=0)) / (seen.std(axis=0) + 1e-9) @ effect * 0.5
    chance += unknown[:, -1] * 0.8 + random.logistic(scale=0.8, size=rows)
    x[unknown] = MISSING
    return x, (chance > 0).astype(int)


def through_libsvm(x, y):
    text = io.BytesIO()
    dump_svmlight_file(x, y, text, zero_based=False)
    text.seek(0)
    sparse, y = load_svmlight_file(text, n_features=FEATURES, zero_based=False)
    return sparse.toarray(), y


def inputs(x):
    """Scaled values of what is known, then a 1 for each value that is not."""
    missing = x == MISSING
    known = np.where(missing, 0.0, np.sign(x) * np.log1p(np.abs(x)))
    return np.hstack([known, missing])


def main():
    x, y = through_libsvm(*accounts(np.random.default_rng(1), ROWS + HELD_OUT))
    x = inputs(x)
    train, test = slice(0, ROWS), slice(ROWS, None)
    spread = x[train].std(axis=0) + 0.05
    x = x / spread
    model = SGDClassifier(loss="log_loss", alpha=2e-3, random_state=1, learning_rate="optimal")
    order = np.random.default_rng(2)
    history = []
    for step in range(1, STEPS + 1):
        rows = order.permutation(ROWS)
        model.partial_fit(x[train][rows], y[train][rows], classes=[0, 1])
        loss, held_out = (
            log_loss(y[part], model.predict_proba(x[part])[:, 1]) for part in (train, test)
        )
        history.append([step, round(loss, 5), round(held_out, 5)])

    weights = np.round(model.coef_[0] / spread, 6).tolist()
    (HERE / "weights.json").write_text(
        json.dumps(
            {
                "bias": round(float(model.intercept_[0]), 6),
                "known": weights[:FEATURES],
                "missing": weights[FEATURES:],
            }
        )
        + "\n"
    )
    scores = model.predict_proba(x[test])[:, 1]
    metrics = {
        "auc": round(roc_auc_score(y[test], scores), 4),
        "log_loss": history[-1][2],
        "rows": ROWS,
        "held_out_rows": HELD_OUT,
    }
    (HERE / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    with (HERE / "history.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["step", "loss", "val_loss"], *history])
    print(metrics)


if __name__ == "__main__":
    main()
