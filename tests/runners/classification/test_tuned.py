"""An embedder is tuned where the first candidates leave room, judged on one split, stored whole and loaded the same."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rag.embedding.embedder import Embedder
from rag.training.labels import LabelTuning, TooSlow, label_batches, tune_on_labels
from runners.classification.files import EMBEDDER, read_classifier, read_facts, save_classifier
from runners.classification.linear_head import HeldOutScores
from runners.classification.selection import LabelledRows, TextClassifier, choose_features
from runners.classification.tuned import WAYS, is_surely_better, one_split, with_tuned_embedder
from tests.support import synonyms

FAST = {
    "contrastive": replace(WAYS["contrastive"], epochs=1, learning_rate=1e-3),
    "encoder": replace(WAYS["encoder"], epochs=12, learning_rate=1e-2),
}


def mixed_rows(count: int) -> tuple[list[str], list[str]]:
    """Return texts whose label is told by two words together, and by none alone nor by their neighbours."""
    draw = random.Random(0)
    fillers = [word for word in synonyms.TEMPLATE_WORDS if word.isalpha()]
    texts, labels = [], []
    for _ in range(count):
        first, second = draw.choice(synonyms.GOODS[:2]), draw.choice(synonyms.PIERS[:2])
        between = [draw.choice(fillers) for _ in range(3)]
        texts.append(" ".join([first, *between, second, draw.choice(synonyms.NUMBERS)]))
        labels.append("same" if synonyms.GOODS.index(first) == synonyms.PIERS.index(second) else "other")
    return texts, labels


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return Embedder(synonyms.embedder(tmp_path_factory.mktemp("plain") / "embedder"), device="cpu")


@pytest.fixture(scope="module")
def rows(embedder: Embedder) -> LabelledRows:
    return LabelledRows.of(*mixed_rows(240), embedder)


@pytest.fixture(scope="module")
def first(rows: LabelledRows) -> TextClassifier:
    return choose_features(rows)


def test_encoder(first, rows, embedder, tmp_path):
    made = with_tuned_embedder(first, rows, embedder, tmp_path / "work", ways=FAST)
    print([o.text for o in made.tried], made.untried)
