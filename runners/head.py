"""A linear head over sentence embeddings: which label a text has, learnt in seconds from labelled examples.

Multinomial logistic regression of scikit-learn on the embedder's unit vectors; its strength of regularisation is the
one with the best cross-validated accuracy on the training rows. On one thread: its many small products are eight times
slower on two busy ones (3,075 rows, 77 labels: 0.9 s a fit), and one thread sums in one order. Kept as safetensors and
JSON under a manifest.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.durable import check_manifest, publish_folder, write_json, write_manifest
from rag.errors import BadInput

if TYPE_CHECKING:
    from rag.encoder import Encoder

KIND, WEIGHTS, FACTS = "classifier", "head.safetensors", "head.json"
STRENGTHS = (1.0, 10.0, 100.0)
"""Values of C that are tried: unit vectors want weak regularisation."""
FOLDS = 3
MOST_TRIED = 2_000
"""Rows that cross-validation looks at, drawn by the seed: more change the choice of C little and cost minutes."""
STEPS = 300


@dataclass(frozen=True, slots=True)
class Head:
    """The label of a vector is the one whose row of weights, with its bias, gives the largest sum."""

    labels: tuple[str, ...]
    weights: np.ndarray
    """float32 [labels, dimension]"""
    bias: np.ndarray
    """float32 [labels]"""
    strength: float
    """The C that was chosen."""
    accuracy: float | None
    """Cross-validated on the training rows with that C; None where no label has two rows."""

    def label(self, vectors: np.ndarray) -> list[str]:
        """Return the label of each vector [rows, dimension]."""
        return [self.labels[n] for n in np.argmax(vectors @ self.weights.T + self.bias, axis=1)]


def fit(vectors: np.ndarray, labels: Sequence[str], seed: int = 0) -> Head:
    """Learn a head from vectors [rows, dimension] and their labels; the same rows and seed give the same head.

    ValueError for fewer than two labels.
    """
    from threadpoolctl import threadpool_limits

    names = tuple(sorted(set(labels)))
    if len(names) < 2:
        raise ValueError("a classifier needs two labels")
    y = np.array([names.index(label) for label in labels])
    with threadpool_limits(1):
        accuracies = _cross_validated(vectors, y, seed)
        best = max(STRENGTHS, key=lambda c: (accuracies.get(c, 0.0), -c))
        learnt = _regression(best).fit(vectors, y)
    weights, bias = np.asarray(learnt.coef_, np.float32), np.asarray(learnt.intercept_, np.float32)
    if len(names) == 2:  # of two labels only the second one's row is learnt
        weights, bias = np.vstack([-weights, weights]), np.concatenate([-bias, bias])
    return Head(names, weights, bias, best, accuracies.get(best))


def save(head: Head, folder: Path, embedder: str, facts: dict[str, Any]) -> None:
    """Write a head in place of the one that is there; `embedder` is the fingerprint of what made its vectors."""
    from safetensors.numpy import save_file

    made = folder.with_name(f".{folder.name}.new")
    for old in (made, folder):
        if old.exists():
            shutil.rmtree(old)
    made.mkdir(parents=True)
    save_file({"weights": np.ascontiguousarray(head.weights), "bias": head.bias}, str(made / WEIGHTS))
    learnt = {"labels": list(head.labels), "c": head.strength, "accuracy": head.accuracy}
    write_json(made / FACTS, {"schema": 1, **learnt, "embedder": embedder, **facts})
    write_manifest(made, KIND)
    publish_folder(made, folder)


def load(folder: Path, embedder: Encoder) -> Head:
    """Read a head back, checked; BadInput when it is missing, damaged, or made with another embedder."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    check_manifest(folder, KIND)
    try:
        facts = json.loads((folder / FACTS).read_text("utf-8"))
        arrays = load_file(str(folder / WEIGHTS))
        head = Head(tuple(facts["labels"]), arrays["weights"], arrays["bias"], facts["c"], facts["accuracy"])
        fits = head.weights.shape == (len(head.labels), embedder.dimension) and len(head.bias) == len(
            head.labels
        )
        made_with = facts["embedder"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadInput(
            f"{folder} is damaged: {error!r}", "train it again: tunewise run RUN --resume"
        ) from None
    if made_with != embedder.fingerprint or not fits:
        raise BadInput(
            f"{folder} was made with another embedder", "train it again: tunewise run RUN --overwrite"
        )
    return head


def _cross_validated(vectors: np.ndarray, y: np.ndarray, seed: int) -> dict[float, float]:
    """Mean accuracy of each C on held-out folds; empty where no two labels have two rows each."""
    from sklearn.model_selection import StratifiedKFold

    kept = np.sort(np.random.default_rng(seed).permutation(len(y))[:MOST_TRIED])
    counts = Counter(y[kept].tolist())
    kept = kept[np.array([counts[label] >= 2 for label in y[kept].tolist()])]
    counts = Counter(y[kept].tolist())
    if len(counts) < 2:
        return {}
    folds = StratifiedKFold(min(FOLDS, *counts.values()), shuffle=True, random_state=seed)
    parts = list(folds.split(vectors[kept], y[kept]))
    return {
        c: round(float(np.mean([
            np.mean(_regression(c).fit(vectors[kept][a], y[kept][a]).predict(vectors[kept][b]) == y[kept][b])
            for a, b in parts
        ])), 6)
        for c in STRENGTHS
    }  # fmt: skip


def _regression(c: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, max_iter=STEPS)
