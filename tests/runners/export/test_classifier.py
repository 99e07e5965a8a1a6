"""The `classifier` export: its card's lines answer as the classifier does, without tunewise."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.embedding.embedder import Embedder
from runners.classification.files import read_facts, save_classifier
from runners.classification.linear_head import LinearHead
from runners.classification.selection import FeatureKind, TextClassifier
from runners.classification.text_features import TextFeatures
from runners.export.classifier import usage_of
from runners.models.resolve import resolve_model

TEXTS = ("refund my ticket", "the fare back, please", "my bag is lost", "a coat was found", "when open")


@pytest.mark.real
@pytest.mark.parametrize("features", ["tfidf", "both"])
def test_lines_of_the_card_answer_as_the_classifier(
    features: FeatureKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = resolve_model("all-minilm-l6-v2").folder
    encoder = Embedder(folder)
    reader = None if features == "embeddings" else TextFeatures.fit(TEXTS, 3)
    columns = (reader.dimension if reader else 0) + (encoder.dimension if features != "tfidf" else 0)
    weights = np.random.default_rng(1).normal(size=(3, columns)).astype(np.float32)
    head = LinearHead(
        labels=("a", "b", "c"),
        weights=weights,
        bias=np.zeros(3, np.float32),
        strength=1.0,
        accuracy=0.5,
        temperature=2.0,
    )
    made = TextClassifier(head=head, features=features, embedding_weight=2.0, text_features=reader)
    save_classifier(made, tmp_path / "made", encoder.fingerprint, {})
    usage = usage_of(read_facts(tmp_path / "made"), "all-minilm-l6-v2")
    code = re.search(r"```python\n(.*?)```", usage, re.DOTALL)
    assert code
    lines = re.sub(r"^texts = .*$", f"texts = {list(TEXTS)!r}", code[1], flags=re.MULTILINE)
    monkeypatch.chdir(tmp_path / "made")
    names: dict[str, Any] = {"EMBEDDER": str(folder)}
    exec(lines, names)
    scores = made.scores(TEXTS, encoder.encode(TEXTS) if features != "tfidf" else None)
    assert names["labels"] == [head.labels[n] for n in scores.argmax(axis=1)]
    assert "temperature" in usage
