"""The classifier arm: a linear head over sentence embeddings answers with a label, in place of a model that generates.

:class:`Classifier` has the interface of a generator, so that its answers are asked for, journaled and scored
like those of every other arm. It reads only the last user turn, without instructions.
:func:`train_classifier` trains a head from the examples, :func:`load_classifier` loads it.

The head is scikit-learn's multinomial logistic regression on the embedder's unit vectors; its inverse
regularisation C is the one with the best cross-validated accuracy on the training rows. It runs on one
thread: its many small matrix products are eight times slower on two busy threads (3,075 rows, 77 labels: 0.9
s a fit), and one thread always sums in the same order. A head is stored as safetensors and JSON under a
manifest.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.embedding.protocol import Configurable
from rag.errors import BadInput
from rag.files import check_manifest, publish_folder, write_json, write_manifest
from runners.data.examples import Example
from runners.data.formats import Message
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.types import Completion, CompletionStream
from runners.plan.schema import Plan

if TYPE_CHECKING:
    from rag.embedding.protocol import Encoder

KIND = "classifier"
WEIGHTS = "head.safetensors"
FACTS = "head.json"
INVERSE_REGULARISATION = (1.0, 10.0, 100.0)
"""Values of C that are tried; unit vectors need weak regularisation."""
HEAD_CV_FOLDS = 3
MAX_CV_ROWS = 2_000
"""Most rows for cross-validation, drawn by the seed: more rows hardly change the choice of C and cost minutes."""
MAX_ITERATIONS = 300
CLASSIFIER_FOLDER = "classifiers"
MIN_ROWS_PER_LABEL = 2
"""Examples that a label must have on average; with fewer the replies are texts rather than labels."""


@dataclass(frozen=True, slots=True)
class LinearHead:
    """A linear classifier: the label of a vector is the one whose weights and bias give the largest sum."""

    labels: tuple[str, ...]
    weights: np.ndarray
    """float32 [labels, dimension]"""
    bias: np.ndarray
    """float32 [labels]"""
    strength: float
    """The inverse regularisation C that was chosen."""
    accuracy: float | None
    """Cross-validated accuracy on the training rows with that C; None when fewer than two labels have two rows."""

    def label(self, vectors: np.ndarray) -> list[str]:
        """Return the label of each vector [rows, dimension]."""
        return [self.labels[n] for n in np.argmax(vectors @ self.weights.T + self.bias, axis=1)]


class Classifier:
    """A generator that answers each chat with the label of its last turn."""

    def __init__(self, head: LinearHead, encoder: Encoder) -> None:
        """Take a head and the embedder that it was trained with."""
        self._head = head
        self._encoder = encoder

    def generate(
        self,
        chats: Sequence[Sequence[Message]],
        max_new_tokens: int,
        on_batch: Callable[[list[int], list[Completion]], None] | None = None,
        *,
        known: Container[int] = (),
        constraint: OutputConstraint | None = None,
    ) -> list[Completion]:
        """Label every chat in one batch; return, and pass to ``on_batch``, the completions of those not in ``known``.

        A label is no generated token, so the number of completion tokens is 0, and no ``constraint`` is needed.
        """
        if not chats:
            return []
        started = time.perf_counter()
        texts = [chat[-1]["content"] for chat in chats]
        labels = self._head.label(self._encoder.encode(texts))
        seconds = (time.perf_counter() - started) / len(chats)
        positions = [position for position in range(len(chats)) if position not in known]
        completions = [
            Completion(labels[position], self.count_tokens(texts[position]), 0, seconds, "stop")
            for position in positions
        ]
        if on_batch:
            on_batch(positions, completions)
        return completions

    def stream(
        self, chat: Sequence[Message], max_new_tokens: int, *, constraint: OutputConstraint | None = None
    ) -> CompletionStream:
        """Return the label as the only piece of a stream."""
        return CompletionStream.of_whole(lambda: self.generate([chat], max_new_tokens)[0])

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a text for the embedder."""
        return self._encoder.count_tokens(text)


def check_classifier_plan(plan: Plan, examples: Sequence[Example]) -> None:
    """Raise BadInput for a plan with a classifier arm whose examples hold no labels, before anything runs."""
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
    """Return (text, label) of the examples, and how many are left out because their reply is none of the plan's labels."""
    allowed = {str(label) for check in plan.checks if check.kind == "labels" for label in check.value}
    rows = [(e.question, _as_label(e.reply, allowed)) for e in examples if not e.raw]
    labelled = [(text, label) for text, label in rows if not allowed or label in allowed]
    return labelled, len(examples) - len(labelled)


def train_classifier(
    plan: Plan, arm: str, examples: Sequence[Example], encoder: Encoder, run: Path, made_from: str
) -> dict[str, Any]:
    """Train an arm's head from the examples and store it in the run; a head made from the same inputs is not trained again.

    Args:
        plan: the run's plan.
        arm: the arm's name.
        examples: the training examples.
        encoder: the embedder.
        run: the run folder.
        made_from: digest of the inputs.

    Returns:
        Counts, C and accuracy, for the event that reports the training.
    """
    folder = run / CLASSIFIER_FOLDER / arm
    rows, left_out = labelled_texts(plan, examples)
    head = _load_unchanged(folder, encoder, made_from)
    if head is None:
        head = fit_head(encoder.encode([text for text, _ in rows]), [label for _, label in rows], plan.seed)
        facts = {"rows": len(rows), "left_out": left_out, "made_from": made_from}
        save_head(head, folder, encoder.fingerprint, facts)
    counted = {"rows": len(rows), "labels": len(head.labels), "left_out": left_out}
    return {**counted, "c": head.strength, "accuracy": head.accuracy}


def load_classifier(run: Path, arm: str, encoder: Encoder) -> Classifier:
    """Return the classifier that a run holds for an arm; BadInput when it is missing or damaged."""
    folder = run / CLASSIFIER_FOLDER / arm
    if not folder.exists():
        raise BadInput(
            f"the run has no classifier for the arm {arm}", f"finish it with: tunewise run {run} --resume"
        )
    if isinstance(encoder, Configurable):
        # The head may have been trained on vectors of the library's path, which other weights do not share.
        encoder = encoder.matching(_trained_with(folder), "") or encoder
    return Classifier(load_head(folder, encoder), encoder)


def fit_head(vectors: np.ndarray, labels: Sequence[str], seed: int = 0) -> LinearHead:
    """Train a head; the same rows and seed give the same head.

    Args:
        vectors: embeddings [rows, dimension].
        labels: the label of each row.
        seed: seed of the cross-validation.

    Raises:
        ValueError: fewer than two labels.
    """
    from threadpoolctl import threadpool_limits

    names = tuple(sorted(set(labels)))
    if len(names) < 2:
        raise ValueError("a classifier needs two labels")
    y = np.array([names.index(label) for label in labels])
    with threadpool_limits(1):
        accuracies = _cross_validated(vectors, y, seed)
        best = max(INVERSE_REGULARISATION, key=lambda c: (accuracies.get(c, 0.0), -c))
        model = _regression(best).fit(vectors, y)
    weights, bias = np.asarray(model.coef_, np.float32), np.asarray(model.intercept_, np.float32)
    if len(names) == 2:
        # scikit-learn fits one row for two labels, that of the second; the first one's is its negative.
        weights, bias = np.vstack([-weights, weights]), np.concatenate([-bias, bias])
    return LinearHead(names, weights, bias, best, accuracies.get(best))


def cross_validated_rows(vectors: np.ndarray, labels: Sequence[str], seed: int = 0) -> tuple[int, int]:
    """Return how many rows get their own label from a head that was trained on the other folds, and of how many.

    The head is the one that :func:`fit_head` would choose: the best C of a few, which flatters the share a little; it
    learns from two thirds of the rows, which lowers it. At most :data:`MAX_CV_ROWS` rows are judged. A label with one
    row cannot be learnt from the others, so its row counts as wrong.

    Args:
        vectors: embeddings [rows, dimension].
        labels: the label of each row.
        seed: seed of the folds.
    """
    from threadpoolctl import threadpool_limits

    names = sorted(set(labels))
    y = np.array([names.index(label) for label in labels])
    drawn = np.sort(np.random.default_rng(seed).permutation(len(y))[:MAX_CV_ROWS])
    vectors, y = vectors[drawn], y[drawn]
    counts = Counter(y.tolist())
    learnable = sum(count for count in counts.values() if count >= 2)
    with threadpool_limits(1):
        accuracies = _cross_validated(vectors, y, seed)
    return round(max(accuracies.values(), default=0.0) * learnable), len(y)


def save_head(head: LinearHead, folder: Path, embedder: str, facts: dict[str, Any]) -> None:
    """Write a head into a folder, replacing the one that is there.

    Args:
        head: the head.
        folder: the folder.
        embedder: fingerprint of the embedder that made the vectors.
        facts: further keys of head.json.
    """
    from safetensors.numpy import save_file

    new = folder.with_name(f".{folder.name}.new")
    for old in (new, folder):
        if old.exists():
            shutil.rmtree(old)
    new.mkdir(parents=True)
    save_file({"weights": np.ascontiguousarray(head.weights), "bias": head.bias}, str(new / WEIGHTS))
    fields = {"labels": list(head.labels), "c": head.strength, "accuracy": head.accuracy}
    write_json(new / FACTS, {"schema": 1, **fields, "embedder": embedder, **facts})
    write_manifest(new, KIND)
    publish_folder(new, folder)


def load_head(folder: Path, embedder: Encoder) -> LinearHead:
    """Read a head; BadInput when it is missing, damaged, or made with another embedder."""
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


def _trained_with(folder: Path) -> str:
    """Return the fingerprint of the embedder that a head was trained with, "" where it cannot be read."""
    try:
        return str(json.loads((folder / FACTS).read_text("utf-8"))["embedder"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _cross_validated(vectors: np.ndarray, y: np.ndarray, seed: int) -> dict[float, float]:
    """Return the mean accuracy of each C on held-out folds; {} when fewer than two labels have two rows."""
    from sklearn.model_selection import StratifiedKFold

    rows = np.sort(np.random.default_rng(seed).permutation(len(y))[:MAX_CV_ROWS])
    counts = Counter(y[rows].tolist())
    rows = rows[np.array([counts[label] >= 2 for label in y[rows].tolist()])]
    counts = Counter(y[rows].tolist())
    if len(counts) < 2:
        return {}
    folds = StratifiedKFold(min(HEAD_CV_FOLDS, *counts.values()), shuffle=True, random_state=seed)
    parts = list(folds.split(vectors[rows], y[rows]))
    x, y = vectors[rows], y[rows]

    def fold_accuracy(c: float, train: np.ndarray, test: np.ndarray) -> Any:
        return np.mean(_regression(c).fit(x[train], y[train]).predict(x[test]) == y[test])

    return {
        c: round(float(np.mean([fold_accuracy(c, train, test) for train, test in parts])), 6)
        for c in INVERSE_REGULARISATION
    }


def _regression(c: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, max_iter=MAX_ITERATIONS)


def _load_unchanged(folder: Path, encoder: Encoder, made_from: str) -> LinearHead | None:
    """Return the stored head when it was made from the same inputs; None otherwise."""
    path = folder / FACTS
    if not path.is_file() or json.loads(path.read_text("utf-8")).get("made_from") != made_from:
        return None
    return load_head(folder, encoder)


def _as_label(reply: str, allowed: set[str]) -> str:
    """Return a reply as its label, without a final full stop unless one of the plan's labels has it."""
    text = reply.strip()
    return text if text in allowed or not allowed else text.rstrip(".")
