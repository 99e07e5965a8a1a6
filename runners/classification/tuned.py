"""Tune the plan's embedder on the labels where the first candidates leave room, and take it where one split shows a gain.

Two ways are tried (:mod:`rag.training.labels`), each followed by a logistic regression on the tuned vectors. Their held-out
rows are those on which the best of the first candidates is judged too, trained on the same rows. A tuned embedder is a file
of tens of megabytes and minutes of training, so it is chosen only when its gain is larger than half a standard error of
the paired difference; it is then tuned again, on all rows. The temperature is fitted on the held-out rows of the split.

What decides depends on time alone in one way: a candidate that would take too long is left out, and that is said.
"""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag.text.words import count_noun
from rag.training.labels import LabelTuning, StartingHead, TooSlow, tune_on_labels
from rag.types import OnEvent
from runners.classification.linear_head import Folds, HeldOutScores, LinearHead, fit_weights
from runners.classification.selection import (
    FEATURE_NAMES,
    FeatureKind,
    LabelledRows,
    Setting,
    TextClassifier,
    TriedFeatures,
    setting_of,
)
from runners.classification.text_features import TextFeatures

if TYPE_CHECKING:
    from rag.embedding.embedder import Embedder
    from rag.embedding.protocol import Encoder

WAYS: Mapping[FeatureKind, LabelTuning] = {
    "contrastive": LabelTuning(way="contrastive", epochs=3, learning_rate=5e-5),
    "encoder": LabelTuning(way="encoder", epochs=5, learning_rate=1e-4, batch_size=16),
}
"""What is tried, in this order; the settings were chosen on held-out training rows (benchmarks/LOG.md)."""
TUNED_C = 10.0
"""scikit-learn's inverse regularisation C of the regression on tuned vectors."""
ROOM_BELOW = 0.97
"""Held-out share of the best of the first candidates from which on nothing is tuned."""
MIN_ROWS_TO_TUNE = 100
MIN_ROWS_OF_A_LABEL = 4
"""Rows of a label on average under which nothing is tuned: a split leaves it three."""
SPLIT_PARTS = 4
"""One of so many parts of the rows is held out."""
TUNING_SECONDS = 600.0
"""What all tuning of a classifier may take, of all processor cores that torch uses together."""
MIN_STANDARD_ERRORS = 0.5
"""Gain on the split that a tuned embedder needs, in standard errors of the paired difference. Simulated on 193
rows of which 9 % change: an embedder that is two points better is taken in .67 of all splits (.48 with a whole error), one
that is no better in .32 (.17), one that is two points worse in .08 (.03). Either way an answer takes as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """One tuned candidate on the split."""

    result: TriedFeatures
    held_out: HeldOutScores


def with_tuned_embedder(
    first: TextClassifier,
    rows: LabelledRows,
    encoder: Encoder,
    work: Path,
    seed: int = 0,
    seconds: float = TUNING_SECONDS,
    ways: Mapping[FeatureKind, LabelTuning] = WAYS,
    on_event: OnEvent | None = None,
) -> TextClassifier:
    """Return the first classifier, or one on a tuned embedder where that is better on held-out rows.

    Args:
        first: the best of the candidates that tune no embedder.
        rows: the training rows.
        encoder: the plan's embedder.
        work: a folder for the tuned embedders; it is made, and holds the chosen one at the end.
        seed: of the split and of the tuning.
        seconds: what all tuning may take.
        ways: what is tried.
        on_event: receives ``{"event": "classifier.tuning", "reason"}`` before each training.
    """
    if reason := why_not_tuned(first, rows, encoder):
        return replace(first, untried=(reason,))
    from rag.embedding.embedder import Embedder

    assert isinstance(encoder, Embedder)
    train, test = one_split(rows, seed)
    if not len(test) or len(set(rows.y[train].tolist())) < 2:
        return replace(first, untried=("no embedder was tuned: no row can be held out",))
    best_first = max(first.tried, key=lambda one: one.accuracy)
    before = _first_on_split(rows, setting_of(best_first), train, test)
    tuning = _Tuning(
        rows=rows,
        embedder=encoder,
        work=work,
        clock=_processor_clock(encoder),
        seconds=seconds,
        on_event=on_event,
    )
    shutil.rmtree(work, ignore_errors=True)
    tried: list[_Tried] = []
    untried: list[str] = []
    for kind, settings in ways.items():
        try:
            tried.append(tuning.on_split(kind, replace(settings, seed=seed), train, test, before))
        except TooSlow as slow:
            untried.append(_too_slow(kind, slow, len(train), seconds))
    compared = replace(first, tried=(*first.tried, *(one.result for one in tried)), untried=tuple(untried))
    best = max(tried, key=lambda one: one.held_out.right, default=None)
    if best is None:
        shutil.rmtree(work, ignore_errors=True)
        return compared
    if why := _not_chosen(best, before):
        shutil.rmtree(work, ignore_errors=True)
        return replace(compared, untried=(*untried, why))
    return tuning.on_all(compared, best, replace(ways[best.result.features], seed=seed))


def _too_slow(kind: FeatureKind, slow: TooSlow, rows: int, seconds: float) -> str:
    """Return that a way was left out, as a sentence."""
    return (
        f"{FEATURE_NAMES[kind]}: left out, it would take {slow.seconds / 60:.0f} minutes of all cores for "
        f"{count_noun(rows, 'row')}, and {seconds / 60:.0f} are allowed for all of the tuning"
    )


def _not_chosen(best: _Tried, before: HeldOutScores) -> str:
    """Return why the best tuned embedder is not taken, as a sentence; "" where it is."""
    gain, error = gain_on_split(best.held_out, before)
    if gain > max(0.0, MIN_STANDARD_ERRORS * error):
        return ""
    return (
        f"{FEATURE_NAMES[best.result.features]}: not chosen, a gain of {gain:.3f} on "
        f"{count_noun(len(before.y), 'held-out row')} is not above {MIN_STANDARD_ERRORS:g} standard errors of {error:.3f}"
    )


def tuned_texts(rows: int, labels: int) -> float:
    """Return how many texts all tuning of a classifier reads, epochs included; 0 for too few rows.

    Both ways on the split, and the longer one again on all rows; what will leave no room is not known before.
    """
    if rows < MIN_ROWS_TO_TUNE or rows < MIN_ROWS_OF_A_LABEL * labels:
        return 0
    texts = [one.epochs * (2 if one.way == "contrastive" else 1) * (rows + labels) for one in WAYS.values()]
    return sum(texts) * (1 - 1 / SPLIT_PARTS) + max(texts)


def why_not_tuned(first: TextClassifier, rows: LabelledRows, encoder: Encoder) -> str:
    """Return why no embedder is tuned for these rows, as a sentence; "" where one is."""
    from rag.embedding.embedder import Embedder

    accuracy = first.head.accuracy
    if accuracy is None or not first.tried:
        return "no embedder was tuned: too few rows for a held-out share"
    if accuracy >= ROOM_BELOW:
        return f"no embedder was tuned: {accuracy:.2f} right leaves no room (from {ROOM_BELOW} on)"
    count, labels = len(rows.y), len(rows.labels)
    if not tuned_texts(count, labels):
        return (
            f"no embedder was tuned: {count_noun(count, 'row')} of {count_noun(labels, 'label')}, and it takes "
            f"{MIN_ROWS_TO_TUNE} and {MIN_ROWS_OF_A_LABEL} a label"
        )
    if not isinstance(encoder, Embedder):
        return f"no embedder was tuned: {encoder.fingerprint} has no weights in a folder"
    return ""


def one_split(rows: LabelledRows, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return training and held-out rows, each label about evenly, near repeats of a text on one side."""
    from sklearn.model_selection import StratifiedGroupKFold

    way = StratifiedGroupKFold(SPLIT_PARTS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label with fewer rows than parts may be on one side alone
        train, test = next(way.split(rows.y, rows.y, rows.groups))
    return np.asarray(train, int), np.asarray(test, int)


def gain_on_split(after: HeldOutScores, before: HeldOutScores) -> tuple[float, float]:
    """Return how much more of the same rows is right, as a share, and the standard error of that paired difference."""
    gains = (np.argmax(after.scores, axis=1) == after.y).astype(float)
    gains -= np.argmax(before.scores, axis=1) == before.y
    return float(gains.mean()), float(gains.std()) / len(gains) ** 0.5


def _first_on_split(
    rows: LabelledRows, setting: Setting, train: np.ndarray, test: np.ndarray
) -> HeldOutScores:
    """Return the held-out scores of a candidate that tunes nothing, trained on the rows of the split."""
    reader = None
    if setting.features != "embeddings":
        reader = TextFeatures.fit([rows.texts[n] for n in train], len(rows.labels))
    return rows.held_out(setting, Folds(((train, test),), test), [reader])


@dataclass(slots=True, kw_only=True)
class _Tuning:
    """The tunings of one classifier, and what they took so far."""

    rows: LabelledRows
    embedder: Embedder
    work: Path
    clock: Callable[[], float]
    seconds: float
    on_event: OnEvent | None = None
    used: float = 0.0
    slowest: float = 0.0
    """Of the splits so far: what the tuning on all rows has to be kept for."""

    def on_split(
        self,
        kind: FeatureKind,
        settings: LabelTuning,
        train: np.ndarray,
        test: np.ndarray,
        before: HeldOutScores,
    ) -> _Tried:
        """Tune on the training rows of a split and score its held-out rows; raise TooSlow."""
        started = self.clock()
        self._report(
            f"{FEATURE_NAMES[kind]}: on {count_noun(len(train), 'row')}, to be judged on {len(test):,} others"
        )
        # What is tried now may have to be tuned again on all rows, as may what was tried before.
        more = len(self.rows.y) / len(train)
        left = self.seconds - self.used
        allowed = min(left / (1 + more), left - self.slowest * more)
        try:
            tuned = self._tune(settings, train, self.work / kind, max(0.0, allowed))
            weights, bias, known = self._fit(tuned, train)
            scores = np.full((len(test), len(self.rows.labels)), -np.inf, np.float32)
            scores[:, known] = tuned.encode([self.rows.texts[n] for n in test]) @ weights.T + bias
        finally:
            took = self.clock() - started
            self.used += took
            shutil.rmtree(self.work / kind, ignore_errors=True)
        self.slowest = max(self.slowest, took)
        held_out = HeldOutScores(scores=scores, y=self.rows.y[test])
        result = TriedFeatures(
            features=kind,
            c=TUNED_C,
            embedding_weight=1.0,
            label_names=True,
            accuracy=held_out.accuracy,
            seconds=round(took, 2),
            split_rows=len(test),
            first_accuracy=before.accuracy,
        )
        return _Tried(result=result, held_out=held_out)

    def on_all(self, compared: TextClassifier, best: _Tried, settings: LabelTuning) -> TextClassifier:
        """Return the classifier of a way that won the split, tuned on all rows."""
        folder = self.work / "embedder"
        self._report(f"{FEATURE_NAMES[best.result.features]}: the best on the split, now on all rows")
        every = np.arange(len(self.rows.y))
        tuned = self._tune(settings, every, folder, np.inf)
        weights, bias, _ = self._fit(tuned, every)
        head = LinearHead(
            labels=self.rows.labels,
            weights=weights,
            bias=bias,
            strength=TUNED_C,
            accuracy=best.held_out.accuracy,
            temperature=best.held_out.temperature(),
        )
        return TextClassifier(
            head=head,
            features=best.result.features,
            tried=compared.tried,
            untried=compared.untried,
            embedder=folder,
        )

    def _report(self, reason: str) -> None:
        if self.on_event:
            self.on_event({"event": "classifier.tuning", "reason": reason})

    def _tune(self, settings: LabelTuning, rows: np.ndarray, out: Path, allowed: float) -> Embedder:
        """Tune on rows and the names of the labels that they have; return the tuned embedder."""
        from rag.embedding.embedder import Embedder

        texts = [self.rows.texts[n] for n in rows]
        y = self.rows.y[rows]
        known = sorted(set(y.tolist()))
        number = {label: n for n, label in enumerate(known)}
        names = [self.rows.names[label] for label in known]
        head = None
        if settings.way == "encoder":
            vectors = np.vstack([self.rows.vectors[rows], self.rows.name_vectors[known]])
            weights, bias, _ = fit_weights(vectors, np.concatenate([y, known]), TUNED_C)
            head = StartingHead(weights=weights, bias=bias)
        numbers = np.array([*(number[label] for label in y.tolist()), *range(len(known))])
        tune_on_labels(self.embedder, [*texts, *names], numbers, settings, out, head, allowed, self.clock)
        return Embedder(out, device=self.embedder.device)

    def _fit(self, tuned: Embedder, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fit the regression on tuned vectors of rows and of the labels' names."""
        y = self.rows.y[rows]
        known = sorted(set(y.tolist()))
        texts = [*(self.rows.texts[n] for n in rows), *(self.rows.names[label] for label in known)]
        return fit_weights(tuned.encode(texts), np.concatenate([y, known]), TUNED_C)


def _processor_clock(encoder: Embedder) -> Callable[[], float]:
    """Return a clock of the cores' time on a CPU, so that other programs do not decide what is tried; else of the wall."""
    import torch

    if encoder.device != "cpu":
        return time.monotonic
    threads = torch.get_num_threads()
    return lambda: time.process_time() / threads
