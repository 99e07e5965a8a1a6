"""The classifier arm: a linear head answers a label as text, in place of a model that generates.

It takes the place of a generator, so that it is asked, journaled and scored as every other arm. Only the last turn is
read, as the user wrote it; instructions are not for it.

A linear head over sentence embeddings: which label a text has, learnt in seconds from labelled examples.

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

from rag.errors import BadInput
from rag.files import check_manifest, publish_folder, write_json, write_manifest

if TYPE_CHECKING:
    from rag.embedding.protocol import Encoder
import time
from collections.abc import Callable, Container
from collections.abc import Generator as Running
from typing import TYPE_CHECKING

from runners.data.examples import Example
from runners.data.formats import Message
from runners.inference.types import Completion, CompletionStream
from runners.plan.schema import Plan

if TYPE_CHECKING:
    from rag.embedding.protocol import Encoder


KIND, WEIGHTS, FACTS = "classifier", "head.safetensors", "head.json"
INVERSE_REGULARISATION = (1.0, 10.0, 100.0)
"""Values of C that are tried: unit vectors want weak regularisation."""
HEAD_CV_FOLDS = 3
MAX_CV_ROWS = 2_000
"""Rows that cross-validation looks at, drawn by the seed: more change the choice of C little and cost minutes."""
MAX_ITERATIONS = 300


@dataclass(frozen=True, slots=True)
class LinearHead:
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


def fit_head(vectors: np.ndarray, labels: Sequence[str], seed: int = 0) -> LinearHead:
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
        best = max(INVERSE_REGULARISATION, key=lambda c: (accuracies.get(c, 0.0), -c))
        learnt = _regression(best).fit(vectors, y)
    weights, bias = np.asarray(learnt.coef_, np.float32), np.asarray(learnt.intercept_, np.float32)
    if len(names) == 2:  # of two labels only the second one's row is learnt
        weights, bias = np.vstack([-weights, weights]), np.concatenate([-bias, bias])
    return LinearHead(names, weights, bias, best, accuracies.get(best))


def save_head(head: LinearHead, folder: Path, embedder: str, facts: dict[str, Any]) -> None:
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


def load_head(folder: Path, embedder: Encoder) -> LinearHead:
    """Read a head back, checked; BadInput when it is missing, damaged, or made with another embedder."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    check_manifest(folder, KIND)
    try:
        facts = json.loads((folder / FACTS).read_text("utf-8"))
        arrays = load_file(str(folder / WEIGHTS))
        head = LinearHead(
            tuple(facts["labels"]), arrays["weights"], arrays["bias"], facts["c"], facts["accuracy"]
        )
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

    kept = np.sort(np.random.default_rng(seed).permutation(len(y))[:MAX_CV_ROWS])
    counts = Counter(y[kept].tolist())
    kept = kept[np.array([counts[label] >= 2 for label in y[kept].tolist()])]
    counts = Counter(y[kept].tolist())
    if len(counts) < 2:
        return {}
    folds = StratifiedKFold(min(HEAD_CV_FOLDS, *counts.values()), shuffle=True, random_state=seed)
    parts = list(folds.split(vectors[kept], y[kept]))
    return {
        c: round(
            float(
                np.mean(
                    [
                        np.mean(
                            _regression(c).fit(vectors[kept][a], y[kept][a]).predict(vectors[kept][b])
                            == y[kept][b]
                        )
                        for a, b in parts
                    ]
                )
            ),
            6,
        )
        for c in INVERSE_REGULARISATION
    }


def _regression(c: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, max_iter=MAX_ITERATIONS)


CLASSIFIER_FOLDER = "classifiers"
MIN_ROWS_PER_LABEL = 2
"""Examples that a label must have on average; fewer, and the replies are texts rather than labels."""


class Classifier:
    """Answers each chat with the label of its last turn."""

    def __init__(self, learnt: LinearHead, encoder: Encoder) -> None:
        """Take a head and the embedder it was learnt with."""
        self._head, self._encoder = learnt, encoder

    def generate(
        self,
        chats: Sequence[Sequence[Message]],
        max_new_tokens: int,
        on_batch: Callable[[list[int], list[Completion]], None] | None = None,
        *,
        known: Container[int] = (),
    ) -> list[Completion]:
        """Label every chat, in one batch, and tell those that are not known.

        A label is no token that was generated, so it counts as none.
        """
        if not chats:
            return []
        started = time.perf_counter()
        texts = [chat[-1]["content"] for chat in chats]
        labels = self._head.label(self._encoder.encode(texts))
        seconds = (time.perf_counter() - started) / len(chats)
        told = [place for place in range(len(chats)) if place not in known]
        made = [
            Completion(labels[place], self.count_tokens(texts[place]), 0, seconds, "stop") for place in told
        ]
        if on_batch:
            on_batch(told, made)
        return made

    def stream(self, chat: Sequence[Message], max_new_tokens: int) -> CompletionStream:
        """Give the label as the only piece."""

        def pieces() -> Running[str, None, Completion]:
            (made,) = self.generate([chat], max_new_tokens)
            yield made.text
            return made

        return CompletionStream(pieces())

    def count_tokens(self, text: str) -> int:
        """Tokens of a text for the embedder."""
        return self._encoder.count_tokens(text)


def check_classifier_plan(plan: Plan, examples: Sequence[Example]) -> None:
    """Refuse a plan with a classifier arm whose examples hold no labels to learn, before anything runs (BadInput)."""
    for arm in plan.arms:
        if not arm.classifier:
            continue
        rows, _ = labelled_texts(plan, examples)
        labels = {label for _, label in rows}
        if len(labels) < 2 or len(rows) < MIN_ROWS_PER_LABEL * len(labels):
            raise BadInput(
                f"the arm {arm.arm} needs labels: the replies of {len(rows)} examples are {len(labels)} different texts",
                f"at least 2 labels with {MIN_ROWS_PER_LABEL} examples each on average, or take {arm.arm} out of the plan",
            )


def labelled_texts(plan: Plan, examples: Sequence[Example]) -> tuple[list[tuple[str, str]], int]:
    """Return (text, label) of the examples, and how many are left out because their reply is no label of the plan."""
    allowed = {str(label) for check in plan.checks if check.kind == "labels" for label in check.value}
    rows = [(e.question, _plain(e.reply, allowed)) for e in examples if not e.raw]
    kept = [(text, label) for text, label in rows if not allowed or label in allowed]
    return kept, len(examples) - len(kept)


def train_classifier(
    plan: Plan, arm: str, examples: Sequence[Example], encoder: Encoder, run: Path, made_from: str
) -> dict[str, Any]:
    """Learn an arm's head from the examples and keep it in the run; one made from the same is not learnt again.

    Return what is to be told of it.
    """
    folder = run / CLASSIFIER_FOLDER / arm
    rows, left_out = labelled_texts(plan, examples)
    learnt = _kept(folder, encoder, made_from)
    if learnt is None:
        learnt = fit_head(encoder.encode([text for text, _ in rows]), [label for _, label in rows], plan.seed)
        facts = {"rows": len(rows), "left_out": left_out, "made_from": made_from}
        save_head(learnt, folder, encoder.fingerprint, facts)
    counted = {"rows": len(rows), "labels": len(learnt.labels), "left_out": left_out}
    return {**counted, "c": learnt.strength, "accuracy": learnt.accuracy}


def load_classifier(run: Path, arm: str, encoder: Encoder) -> Classifier:
    """Return the classifier that a run keeps for an arm; BadInput when it is missing or damaged."""
    folder = run / CLASSIFIER_FOLDER / arm
    if not folder.exists():
        raise BadInput(
            f"the run has no classifier for the arm {arm}", f"finish it with: tunewise run {run} --resume"
        )
    return Classifier(load_head(folder, encoder), encoder)


def _kept(folder: Path, encoder: Encoder, made_from: str) -> LinearHead | None:
    import json

    path = folder / FACTS
    if not path.is_file() or json.loads(path.read_text("utf-8")).get("made_from") != made_from:
        return None
    return load_head(folder, encoder)


def _plain(reply: str, allowed: set[str]) -> str:
    """A reply as its label: a full stop behind it is no part, where the plan's labels have none."""
    text = reply.strip()
    return text if text in allowed or not allowed else text.rstrip(".")
