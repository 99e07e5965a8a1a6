"""Choose features and regularisation of a classifier by cross-validation inside the training rows.

Three kinds of features are compared on the same folds: embeddings, TF-IDF of words and characters (no model at all), and
both side by side; the first and the last also with each label's name as one more training row. The highest share of
right labels wins, of equal ones the first in :data:`SETTINGS`. Near repeats of a text are in one fold, and TF-IDF reads its
n-grams in each fold from the training rows alone. The temperature of the chosen head is fitted on the held-out rows, so
that its probabilities are of texts that it has not seen. A tuned embedder may take its place afterwards
(:mod:`runners.classification.tuned`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rag.text.words import count_noun
from runners.classification.linear_head import (
    INVERSE_REGULARISATION,
    Features,
    Folds,
    HeldOutScores,
    LinearHead,
    fit_weights,
    make_folds,
    numbered,
)
from runners.classification.text_features import TextFeatures
from runners.data.duplicates import near_duplicate_groups

if TYPE_CHECKING:
    from rag.embedding.protocol import Encoder

FeatureKind = Literal["embeddings", "tfidf", "both", "contrastive", "encoder"]
FIRST_FEATURES: dict[FeatureKind, str] = {
    "embeddings": "embeddings",
    "tfidf": "TF-IDF of words and characters",
    "both": "both side by side",
}
"""What is compared by cross-validation."""
TUNED_FEATURES: dict[FeatureKind, str] = {
    "contrastive": "embedder tuned contrastively",
    "encoder": "embedder tuned in full under a classification head",
}
"""What is tried on one split afterwards (:mod:`runners.classification.tuned`): embeddings too, of a tuned embedder."""
FEATURE_NAMES: dict[FeatureKind, str] = FIRST_FEATURES | TUNED_FEATURES


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to turn texts into columns, and how strongly their weights are held down."""

    features: FeatureKind
    c: float
    """scikit-learn's inverse regularisation C."""
    embedding_weight: float = 1.0
    """What embeddings are multiplied by where they stand beside TF-IDF, whose rows have length 1."""
    label_names: bool = False
    """Whether the name of each label is one more training row of it."""


SETTINGS: tuple[Setting, ...] = (
    *(Setting(features="embeddings", c=c) for c in INVERSE_REGULARISATION),
    *(Setting(features="embeddings", c=c, label_names=True) for c in INVERSE_REGULARISATION),
    *(Setting(features="tfidf", c=c) for c in (1.0, 10.0)),
    *(Setting(features="both", c=10.0, embedding_weight=weight) for weight in (1.0, 2.0)),
    Setting(features="both", c=10.0, embedding_weight=2.0, label_names=True),
)
"""What is tried, in three folds each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedFeatures:
    """The best setting of one kind of features, and what trying all of its settings took."""

    features: FeatureKind
    c: float
    embedding_weight: float
    label_names: bool
    accuracy: float
    """Share of held-out rows that get their own label."""
    seconds: float
    split_rows: int | None = None
    """Held-out rows of the one split that a tuned embedder was judged on; None for a cross-validation."""
    first_accuracy: float | None = None
    """The same share of the best of the first candidates on the same rows."""

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)

    @property
    def text(self) -> str:
        """It in words, such as ``embeddings and label names 0.81 (2.4 s)``."""
        names = " and label names" * self.label_names
        text = f"{FEATURE_NAMES[self.features]}{names} {self.accuracy:.2f}"
        if self.first_accuracy is not None:
            text += f", the best before {self.first_accuracy:.2f}, on one split of {count_noun(self.split_rows or 0, 'row')}"
        return f"{text} ({self.seconds:.1f} s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextClassifier:
    """A head with the features that it reads."""

    head: LinearHead
    features: FeatureKind
    embedding_weight: float = 1.0
    text_features: TextFeatures | None = None
    """None for embeddings alone."""
    tried: tuple[TriedFeatures, ...] = ()
    """What was compared, in the order of trying; () when there were too few rows, and for heads of 0.2.0."""
    untried: tuple[str, ...] = ()
    """Sentences on what was left out, and why."""
    embedder: Path | None = None
    """Folder of the tuned embedder whose vectors it reads; None for the plan's."""

    @property
    def is_tuned(self) -> bool:
        """Whether it reads the vectors of an embedder that was tuned on the labels."""
        return self.features in TUNED_FEATURES

    @property
    def split_rows(self) -> int | None:
        """Held-out rows of the split that its accuracy is measured on; None for a cross-validation."""
        return next((one.split_rows for one in self.tried if one.features == self.features), None)

    @property
    def embeds(self) -> bool:
        """Whether it needs the vectors of an embedder."""
        return self.features != "tfidf"

    def scores(self, texts: Sequence[str], vectors: np.ndarray | None) -> np.ndarray:
        """Return the scores of texts, float32 [texts, labels]; ``vectors`` are their embeddings where it needs them."""
        sparse = self.text_features.transform(texts) if self.text_features else None
        return self.head.scores(_columns(self.features, self.embedding_weight, sparse, vectors))


def choose_classifier(rows: LabelledRows, seed: int = 0) -> TextClassifier:
    """Train the head with the best features that the plan's embedder and n-grams give; the same rows and seed give the same.

    Args:
        rows: the training rows, each text with a character that is no space.
        seed: seed of the folds.

    Raises:
        ValueError: fewer than two labels.
    """
    if len(rows.labels) < 2:
        raise ValueError("a classifier needs two labels")
    texts, y, names = rows.texts, rows.y, rows.labels
    folds = make_folds(y, seed, rows.groups)
    tried, held_out = _compare(rows, folds) if folds.parts else ((), None)
    best = max(tried, key=lambda one: one.accuracy, default=None)
    setting = SETTINGS[0] if best is None else setting_of(best)
    reader = None if setting.features == "embeddings" else TextFeatures.fit(texts, len(names))
    weights, bias, _ = rows.fit(setting, np.arange(len(y)), reader)
    head = LinearHead(labels=names, weights=weights, bias=bias, strength=setting.c, accuracy=None)
    if held_out is not None:
        head = replace(head, accuracy=held_out.accuracy, temperature=held_out.temperature())
    return TextClassifier(
        head=head,
        features=setting.features,
        embedding_weight=setting.embedding_weight,
        text_features=reader,
        tried=tried,
    )


def label_text(label: str) -> str:
    """Return the name of a label as words: ``card_arrival`` is "card arrival"."""
    return " ".join(re.sub(r"[\W_]+", " ", label).split()) or label


def repeat_groups(texts: Sequence[str]) -> list[int]:
    """Return the number of the group of near repeats that each text belongs to."""
    group_of = [0] * len(texts)
    for number, members in enumerate(near_duplicate_groups(texts)):
        for member in members:
            group_of[member] = number
    return group_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledRows:
    """The training rows as all settings read them."""

    texts: Sequence[str]
    labels: tuple[str, ...]
    """The different labels, in order."""
    y: np.ndarray
    """The label of each row, as its number."""
    groups: Sequence[int]
    """The group of near repeats of each row, by number."""
    vectors: np.ndarray
    names: Sequence[str]
    """The name of each label, as words."""
    name_vectors: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str], labels: Sequence[str], encoder: Encoder) -> LabelledRows:
        """Return rows with the vectors of an embedder."""
        different, y = numbered(labels)
        names = [label_text(name) for name in different]
        return cls(
            texts=texts,
            labels=different,
            y=y,
            groups=repeat_groups(texts),
            vectors=encoder.encode(texts),
            names=names,
            name_vectors=encoder.encode(names),
        )

    def columns(self, setting: Setting, rows: np.ndarray, reader: TextFeatures | None) -> Features:
        """Return the columns of some rows."""
        sparse = reader.transform([self.texts[n] for n in rows]) if reader else None
        return _columns(setting.features, setting.embedding_weight, sparse, self.vectors[rows])

    def fit(
        self, setting: Setting, rows: np.ndarray, reader: TextFeatures | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fit a head on some rows; return what :func:`fit_weights` does."""
        columns, y = self.columns(setting, rows, reader), self.y[rows]
        if setting.label_names:
            sparse = reader.transform(self.names) if reader else None
            more = _columns(setting.features, setting.embedding_weight, sparse, self.name_vectors)
            columns = _stacked(columns, more)
            y = np.concatenate([y, np.arange(len(self.names))])
        return fit_weights(columns, y, setting.c)

    def held_out(
        self, setting: Setting, folds: Folds, readers: Sequence[TextFeatures | None]
    ) -> HeldOutScores:
        """Score every held-out row by a head that was trained on the other folds."""
        blocks = []
        for (train, test), reader in zip(folds.parts, readers, strict=True):
            weights, bias, known = self.fit(setting, train, reader)
            block = np.full((len(test), len(self.names)), -np.inf, np.float32)
            block[:, known] = self.columns(setting, test, reader) @ weights.T + bias
            blocks.append(block)
        return HeldOutScores(scores=np.vstack(blocks), y=self.y[folds.rows])


def _compare(rows: LabelledRows, folds: Folds) -> tuple[tuple[TriedFeatures, ...], HeldOutScores]:
    """Return the best setting of each kind of features, and the held-out scores of the best of all."""
    tried: list[TriedFeatures] = []
    best: HeldOutScores | None = None
    readers: Sequence[TextFeatures | None] = [None] * len(folds.parts)
    for kind in FIRST_FEATURES:
        started = time.monotonic()
        if kind != "embeddings" and readers[0] is None:
            own_texts = ([rows.texts[n] for n in train] for train, _ in folds.parts)
            readers = [TextFeatures.fit(texts, len(rows.names)) for texts in own_texts]
        settings = [one for one in SETTINGS if one.features == kind]
        scored = [(setting, rows.held_out(setting, folds, readers)) for setting in settings]
        setting, scores = max(scored, key=lambda one: one[1].right)
        seconds = round(time.monotonic() - started, 2)
        tried.append(TriedFeatures(**asdict(setting), accuracy=scores.accuracy, seconds=seconds))
        if best is None or scores.right > best.right:
            best = scores
    assert best is not None
    return tuple(tried), best


def _columns(features: FeatureKind, weight: float, sparse: Features, vectors: np.ndarray | None) -> Features:
    """Return the columns of one kind of features: embeddings are dense, the others sparse."""
    if features == "tfidf":
        return sparse
    assert vectors is not None
    if features != "both":
        return vectors
    from scipy.sparse import hstack

    return hstack([sparse, np.float32(weight) * vectors], format="csr")


def _stacked(above: Features, below: Features) -> Features:
    """Return two blocks of rows as one."""
    if isinstance(above, np.ndarray):
        return np.vstack([above, below])
    from scipy.sparse import vstack

    return vstack([above, below], format="csr")


def setting_of(tried: TriedFeatures) -> Setting:
    """Return the setting that was tried."""
    return Setting(
        features=tried.features,
        c=tried.c,
        embedding_weight=tried.embedding_weight,
        label_names=tried.label_names,
    )
