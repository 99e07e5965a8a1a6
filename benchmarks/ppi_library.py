"""Our estimate beside that of the library of prediction-powered inference, ppi-python.

    pip install ppi-python        # in an environment of its own
    python -m benchmarks.ppi_library FOLDER [--draws N]

FOLDER is a checkout of aangelopoulos/ppi_py, whose example ``forest_badmodel`` is the one whose data are in the repository:
1,596 plots, deforested or not, and a poor model's guesses. Labels are drawn as there, uniformly; beside it stand pairs
of simulated arms (:mod:`benchmarks.simulated_judges`). The library has the labelled rows and the others apart, ours has the
judge on all rows, so that our tuning times ``others / all`` is the library's. ``estimate``: the largest difference of both
estimates at one tuning. ``tuning``, ``width`` and ``coverage`` (of the mean of all labels): of each by its own tuning.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.simulated_judges import Cell, simulated_trial
from rag.evaluation.prediction_powered import LabelledDifferences, PredictionPowered, prediction_powered

EXAMPLE = "examples/baselines/forest_badmodel.npz"


def ours(labels: np.ndarray, predicted: np.ndarray, labelled: np.ndarray) -> PredictionPowered:
    """Return our estimate of labels drawn uniformly, each row a question of its own."""
    count = labels.size
    return prediction_powered(
        LabelledDifferences(
            labels=[float(y) if known else None for y, known in zip(labels, labelled, strict=True)],
            predicted=predicted.tolist(),
            chances=[float(labelled.mean())] * count,
            questions=[str(n) for n in range(count)],
            sources=[None] * count,
            weights=[1.0] * count,
        )
    )


def compared(labels: np.ndarray, predicted: np.ndarray, count: int, draws: int) -> dict[str, Any]:
    """Return both estimates of the mean label compared over draws of ``count`` labels."""
    from ppi_py import ppi_mean_ci, ppi_mean_pointestimate

    draw, apart, found = np.random.default_rng(count), 0.0, np.zeros(6)
    for _ in range(draws):
        labelled = draw.permutation(labels.size) < count
        one = ours(labels, predicted, labelled)
        data = (labels[labelled], predicted[labelled].astype(float), predicted[~labelled].astype(float))
        share = 1 - count / labels.size
        same = ppi_mean_pointestimate(*data, lam=one.tuning * share)
        apart = max(apart, abs(float(np.squeeze(same)) - one.difference))
        low, high = (float(np.squeeze(bound)) for bound in ppi_mean_ci(*data, alpha=0.05))
        classical = float(np.squeeze(ppi_mean_pointestimate(*data, lam=0)))
        tuned = float(np.squeeze(ppi_mean_pointestimate(*data)))
        slope = data[2].mean() - data[1].mean()
        tuning = (tuned - classical) / slope if abs(slope) > 1e-9 else 0.0
        mean = labels.mean()
        found += (
            one.tuning * share,
            tuning,
            one.width,
            high - low,
            one.low <= mean <= one.high,
            low <= mean <= high,
        )
    values = [round(float(value), 3) for value in found / draws]
    names = ("tuning", "width", "coverage")
    return {"estimate": float(f"{apart:.1e}")} | {
        name: {"ours": values[2 * n], "library": values[2 * n + 1]} for n, name in enumerate(names)
    }


def main() -> None:
    """Print a row for each data set and number of labels."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=500)
    options = parser.parse_args()
    print(json.dumps({"ppi-python": version("ppi-python")}))
    example = np.load(options.folder / EXAMPLE)
    for count in (50, 100, 200, 500):
        row = compared(example["Y"], example["Yhat"], count, options.draws)
        print(json.dumps({"data": "forest_badmodel", "labels": count} | row), flush=True)
    for accuracy in (0.6, 0.8, 0.95):
        trial = simulated_trial(np.random.default_rng(1), Cell(questions=500, accuracy=accuracy, same=0.0))
        people, judge = trial.people[0] - trial.people[1], trial.judge[0] - trial.judge[1]
        for count in (30, 100):
            row = compared(people, judge, count, options.draws)
            print(json.dumps({"data": "arms", "accuracy": accuracy, "labels": count} | row), flush=True)


if __name__ == "__main__":
    main()
