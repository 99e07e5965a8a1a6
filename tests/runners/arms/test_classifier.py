"""The classifier arm: labels trained from vectors, stored under a manifest, answered as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.errors import BadInput
from runners.arms import classifier
from runners.data.examples import Example
from runners.plan.schema import parse_plan

TEXTS = {
    "refund": ("money back", "return my fare", "refund the ticket", "give the money back for my fare"),
    "lost": ("lost my bag", "found a coat", "left a bag on board", "my coat is lost on board"),
    "hours": ("when open", "opening hours", "when does the hall open", "hours of the hall"),
}


def rows(labels: Mapping[str, tuple[str, ...]] = TEXTS) -> tuple[Example, ...]:
    """Return labelled examples."""
    pairs = [(text, label) for label, texts in labels.items() for text in texts]
    return tuple(
        Example(({"role": "user", "content": text}, {"role": "assistant", "content": label}), {}, line)
        for line, (text, label) in enumerate(pairs, 1)
    )


def plan(**more: Any) -> Any:
    """Return a plan with a classifier arm."""
    body = {
        "name": "p",
        "choice": "prompting",
        "model": {"name": "m"},
        "data": {"examples": "e", "questions": "q"},
        "steps": [{"kind": "evaluate", "arm": "classifier", "classifier": True}],
        "weights": {"exact_match": 1},
    }
    return parse_plan({**body, **more})


@pytest.mark.parametrize("count", [2, 3])
def test_trained_head_is_loaded_unchanged(words: Any, tmp_path: Path, count: int) -> None:
    examples = rows(dict(list(TEXTS.items())[:count]))
    trained = classifier.train_classifier(plan(), "classifier", examples, words, tmp_path, "one")
    assert (trained["rows"], trained["labels"], trained["left_out"]) == (4 * count, count, 0)
    assert trained["accuracy"] > 1 / count
    chats = [[{"role": "system", "content": "Label it."}, e.messages[0]] for e in examples]
    completions = classifier.load_classifier(tmp_path, "classifier", words).generate(chats, 8)
    assert [completion.text for completion in completions] == [e.reply for e in examples]
    assert {(completion.finish, completion.completion_tokens) for completion in completions} == {("stop", 0)}
    assert completions[0].prompt_tokens == len(examples[0].question.split())
    stream = classifier.load_classifier(tmp_path, "classifier", words).stream(chats[0], 8)
    assert (list(stream), stream.completion.text) == (["refund"], "refund")


def test_unchanged_inputs_are_not_trained_again(words: Any, tmp_path: Path) -> None:
    folder = tmp_path / classifier.CLASSIFIER_FOLDER / "classifier"
    classifier.train_classifier(plan(), "classifier", rows(), words, tmp_path, "one")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    classifier.train_classifier(plan(), "classifier", rows(), words, tmp_path, "one")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert set(before) == {classifier.WEIGHTS, classifier.FACTS, "manifest.json"}
    weights = (folder / classifier.WEIGHTS).read_bytes()
    classifier.train_classifier(plan(), "classifier", rows(), words, tmp_path, "two")
    assert (folder / classifier.WEIGHTS).read_bytes() == weights
    assert json.loads((folder / classifier.FACTS).read_text("utf-8"))["made_from"] == "two"


def test_damaged_head_and_other_embedder_are_refused(words: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no classifier"):
        classifier.load_classifier(tmp_path, "classifier", words)
    classifier.train_classifier(plan(), "classifier", rows(), words, tmp_path, "one")
    folder = tmp_path / classifier.CLASSIFIER_FOLDER / "classifier"

    class Other:
        fingerprint, dimension = "words-2", words.dimension

    with pytest.raises(BadInput, match="another embedder"):
        classifier.load_head(folder, Other())  # type: ignore[arg-type]
    with (folder / classifier.WEIGHTS).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(BadInput, match="damaged"):
        classifier.load_classifier(tmp_path, "classifier", words)


def test_rows_without_label_of_the_plan_are_left_out() -> None:
    checks = [{"kind": "labels", "value": ["refund", "lost"]}]
    more = Example(({"role": "user", "content": "x"}, {"role": "assistant", "content": "lost."}), {}, 99)
    labelled, left_out = classifier.labelled_texts(plan(checks=checks), (*rows(), more))
    assert left_out == len(TEXTS["hours"])
    assert {label for _, label in labelled} == {"refund", "lost"}
    assert ("x", "lost") in labelled


def test_replies_that_are_no_labels_are_refused(examples: tuple[Example, ...]) -> None:
    classifier.check_classifier_plan(plan(), rows())
    with pytest.raises(BadInput, match="36 different texts"):
        classifier.check_classifier_plan(plan(), examples)
    with pytest.raises(BadInput, match="needs labels"):
        classifier.check_classifier_plan(plan(), rows({"refund": TEXTS["refund"]}))


def test_regularisation_is_cross_validated_and_reproducible() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 16))
    y = np.arange(120) % 4
    vectors = (centres[y] + 0.4 * rng.normal(size=(120, 16))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [f"label {n}" for n in y]
    one, two = classifier.fit_head(vectors, names), classifier.fit_head(vectors, names)
    assert one.strength in classifier.INVERSE_REGULARISATION
    assert one.accuracy is not None
    assert one.accuracy > 0.9
    assert np.array_equal(one.weights, two.weights)
    lonely = classifier.fit_head(vectors[:2], names[:2])
    assert (lonely.accuracy, lonely.strength) == (None, classifier.INVERSE_REGULARISATION[0])
    with pytest.raises(ValueError, match="two labels"):
        classifier.fit_head(vectors[:1], names[:1])
