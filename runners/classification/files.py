"""The files of a classifier: safetensors for numbers, JSON for labels, n-grams and settings, under a manifest. No pickle.

``head.safetensors`` has weights and bias, and the inverse document frequencies of the n-grams; ``head.json`` the labels and
settings; ``vocabulary.json`` the n-grams, where they are read; ``embedder/`` an embedder that was tuned on the labels, a
folder of sentence-transformers. A head of 0.2.0 has neither n-grams nor a temperature.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.errors import BadInput
from rag.files import check_manifest, publish_folder, write_json, write_manifest
from runners.classification.linear_head import LinearHead
from runners.classification.selection import FEATURE_NAMES, TUNED_FEATURES, TextClassifier, TriedFeatures
from runners.classification.text_features import TextFeatures
from runners.models.cards import CARD_FILE

if TYPE_CHECKING:
    from rag.embedding.protocol import Encoder

KIND = "classifier"
WEIGHTS = "head.safetensors"
FACTS = "head.json"
VOCABULARY = "vocabulary.json"
EMBEDDER = "embedder"
_FREQUENCIES = "inverse_frequencies."


def save_classifier(
    classifier: TextClassifier, folder: Path, embedder: str, facts: Mapping[str, Any]
) -> None:
    """Write a classifier into a folder, replacing the one that is there; a tuned embedder is moved into it.

    Args:
        classifier: the classifier.
        folder: the folder.
        embedder: fingerprint of the plan's embedder.
        facts: further keys of head.json.
    """
    from safetensors.numpy import save_file

    new = folder.with_name(f".{folder.name}.new")
    for old in (new, folder):
        if old.exists():
            shutil.rmtree(old)
    new.mkdir(parents=True)
    head, reader = classifier.head, classifier.text_features
    arrays = {"weights": np.ascontiguousarray(head.weights), "bias": np.ascontiguousarray(head.bias)}
    if reader:
        arrays |= {_FREQUENCIES + kind: values for kind, values in reader.inverse_frequencies().items()}
        write_json(new / VOCABULARY, {"schema": 1, "vocabulary": reader.vocabulary()})
    save_file(arrays, str(new / WEIGHTS))
    if classifier.embedder:
        shutil.move(classifier.embedder, new / EMBEDDER)
        embedder = _tuned_embedder(new).fingerprint
    fields = {
        "labels": list(head.labels),
        "c": head.strength,
        "accuracy": head.accuracy,
        "temperature": head.temperature,
        "features": classifier.features,
        "embedding_weight": classifier.embedding_weight,
        "tried": [one.to_json() for one in classifier.tried],
        "untried": list(classifier.untried),
    }
    write_json(new / FACTS, {"schema": 1, **fields, "embedder": embedder, **facts})
    write_manifest(new, KIND)
    publish_folder(new, folder)


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what head.json holds, {} where it cannot be read."""
    try:
        facts = json.loads((folder / FACTS).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def read_classifier(folder: Path, embedder: Callable[[], Encoder]) -> tuple[TextClassifier, Encoder | None]:
    """Read a classifier; return it with its embedder, which is None where it reads no embeddings.

    Args:
        folder: its folder.
        embedder: returns the plan's embedder; called only where the classifier reads its vectors.

    Raises:
        BadInput: it is missing, damaged, or made with another embedder.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    check_manifest(folder, KIND, (CARD_FILE,))  # an export has a card
    try:
        facts = json.loads((folder / FACTS).read_text("utf-8"))
        arrays = load_file(str(folder / WEIGHTS))
        head = LinearHead(
            labels=tuple(facts["labels"]),
            weights=arrays["weights"],
            bias=arrays["bias"],
            strength=facts["c"],
            accuracy=facts["accuracy"],
            temperature=facts.get("temperature"),
        )
        classifier = TextClassifier(
            head=head,
            features=facts.get("features", "embeddings"),
            embedding_weight=facts.get("embedding_weight", 1.0),
            text_features=_read_text_features(folder, arrays),
            tried=tuple(TriedFeatures(**one) for one in facts.get("tried", ())),
            untried=tuple(facts.get("untried", ())),
            embedder=folder / EMBEDDER if facts.get("features") in TUNED_FEATURES else None,
        )
        made_with = facts["embedder"]
        if classifier.features not in FEATURE_NAMES or len(head.bias) != len(head.labels):
            raise ValueError(
                f"features {classifier.features!r}, labels and biases: {len(head.labels)}, {len(head.bias)}"
            )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadInput(
            f"{folder} is damaged: {error!r}", "train it again: tunewise run RUN --resume"
        ) from None
    encoder: Encoder | None = None
    if classifier.embedder:
        encoder = _tuned_embedder(folder)
    elif classifier.embeds:
        encoder = _encoder_of(embedder(), made_with)
    columns = classifier.text_features.dimension if classifier.text_features else 0
    columns += encoder.dimension if encoder else 0
    if (encoder and made_with != encoder.fingerprint) or head.weights.shape != (len(head.labels), columns):
        raise BadInput(
            f"{folder} was made with another embedder", "train it again: tunewise run RUN --overwrite"
        )
    return classifier, encoder


def _read_text_features(folder: Path, arrays: Mapping[str, np.ndarray]) -> TextFeatures | None:
    """Return the n-grams of a classifier, None where it reads none; ValueError or KeyError where they do not fit."""
    if not (folder / VOCABULARY).is_file():
        return None
    vocabulary = json.loads((folder / VOCABULARY).read_text("utf-8"))["vocabulary"]
    return TextFeatures.restore(vocabulary, {kind: arrays[_FREQUENCIES + kind] for kind in vocabulary})


def _tuned_embedder(folder: Path) -> Encoder:
    """Return the embedder that lies in a classifier's folder."""
    from rag.embedding.embedder import Embedder

    return Embedder(folder / EMBEDDER)


def _encoder_of(encoder: Encoder, fingerprint: str) -> Encoder:
    """Return an embedder on the path that a classifier was trained with, where it has that path."""
    from rag.embedding.protocol import Configurable

    # The head may have been trained on vectors of the library's path, which other weights do not share.
    return encoder.matching(fingerprint, "") or encoder if isinstance(encoder, Configurable) else encoder
