"""The classifier arm: labels trained from vectors, stored under a manifest, answered as text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from rag.errors import BadInput
from rag.files import write_json, write_manifest
from runners.arms import classifier
from runners.classification import files
from runners.classification.linear_head import LinearHead
from runners.classification.selection import TextClassifier
from runners.classification.text_features import TextFeatures
from runners.data.examples import Example
from runners.data.questions import Question
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


def write_as_0_2_0(folder: Path, words: Any, labels: tuple[str, ...] = ("hours", "lost")) -> np.ndarray:
    """Write a head as 0.2.0 did, without features and temperature; return its weights."""
    weights = np.random.default_rng(0).normal(size=(len(labels), words.dimension)).astype(np.float32)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file({"weights": weights, "bias": np.zeros(len(labels), np.float32)}, str(folder / files.WEIGHTS))
    facts = {"schema": 1, "labels": list(labels), "c": 10.0, "accuracy": 0.9, "embedder": words.fingerprint}
    write_json(folder / files.FACTS, {**facts, "rows": 8, "left_out": 0, "made_from": "one"})
    write_manifest(folder, files.KIND)
    return weights


def test_head_of_0_2_0_answers_as_it_did(words: Any, tmp_path: Path) -> None:
    weights = write_as_0_2_0(tmp_path / classifier.CLASSIFIER_FOLDER / "classifier", words)
    texts = [text for own in TEXTS.values() for text in own]
    chats = [[{"role": "user", "content": text}] for text in texts]
    completions = classifier.load_classifier(tmp_path, "classifier", lambda: words).generate(chats, 8)
    expected = np.argmax(words.encode(texts) @ weights.T, axis=1)
    assert [c.text for c in completions] == [("hours", "lost")[n] for n in expected]
    assert {c.labels for c in completions} == {()}, "its scores were not calibrated"


def test_classifier_without_embeddings_loads_no_embedder(words: Any, tmp_path: Path) -> None:
    """TF-IDF and its head are read from JSON and safetensors, and answer the same numbers."""
    texts = [text for own in TEXTS.values() for text in own]
    reader = TextFeatures.fit(texts, 2)
    weights = np.random.default_rng(0).normal(size=(2, reader.dimension)).astype(np.float32)
    head = LinearHead(
        labels=("a", "b"),
        weights=weights,
        bias=np.zeros(2, np.float32),
        strength=1.0,
        accuracy=0.5,
        temperature=2.0,
    )
    made = TextClassifier(head=head, features="tfidf", text_features=reader)
    folder = tmp_path / classifier.CLASSIFIER_FOLDER / "classifier"
    files.save_classifier(made, folder, "no embedder", {})
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}

    def embedder() -> Any:
        raise AssertionError("no embedder is needed")

    loaded = classifier.load_classifier(tmp_path, "classifier", embedder)
    chats = [[{"role": "user", "content": text}] for text in [*texts, "", "?!"]]
    completions = loaded.generate(chats, 8)
    expected = head.probabilities(made.scores([*texts, "", "?!"], None)).max(axis=1)
    assert [c.labels[0].probability for c in completions] == [round(float(p), 4) for p in expected]
    assert all(c.estimated for c in completions), "tokens are not counted without a tokenizer"
    (folder / files.VOCABULARY).unlink()
    with pytest.raises(BadInput, match="damaged"):
        classifier.load_classifier(tmp_path, "classifier", embedder)


@pytest.mark.parametrize("count", [2, 3])
def test_trained_head_is_loaded_unchanged(words: Any, tmp_path: Path, count: int) -> None:
    examples = rows(dict(list(TEXTS.items())[:count]))
    trained = classifier.train_classifier(plan(), "classifier", examples, words, tmp_path, "one")
    assert (trained["rows"], trained["labels"], trained["left_out"]) == (4 * count, count, 0)
    assert [one["features"] for one in trained["tried"]] == ["embeddings", "tfidf", "both"]
    assert trained["compared"].count(" s)") == 3
    assert trained["accuracy"] > 1 / count
    chats = [[{"role": "system", "content": "Label it."}, e.messages[0]] for e in examples]
    completions = classifier.load_classifier(tmp_path, "classifier", lambda: words).generate(chats, 8)
    assert [completion.text for completion in completions] == [e.reply for e in examples]
    assert {(completion.finish, completion.completion_tokens) for completion in completions} == {("stop", 0)}
    assert all(c.labels[0].label == c.text and len(c.labels) == count for c in completions)
    assert all(abs(sum(one.probability for one in c.labels) - 1) < 0.001 for c in completions)
    stream = classifier.load_classifier(tmp_path, "classifier", lambda: words).stream(chats[0], 8)
    assert (list(stream), stream.completion.text) == (["refund"], "refund")


def test_unchanged_inputs_are_not_trained_again(words: Any, tmp_path: Path) -> None:
    folder = tmp_path / classifier.CLASSIFIER_FOLDER / "classifier"
    classifier.train_classifier(plan(), "classifier", rows(), words, tmp_path, "one")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    classifier.train_classifier(plan(), "classifier", rows(), words, tmp_path, "one")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert set(before) >= {files.WEIGHTS, files.FACTS, "manifest.json"}
    weights = (folder / files.WEIGHTS).read_bytes()
    classifier.train_classifier(plan(), "classifier", rows(), words, tmp_path, "two")
    assert (folder / files.WEIGHTS).read_bytes() == weights
    assert json.loads((folder / files.FACTS).read_text("utf-8"))["made_from"] == "two"


def test_damaged_head_and_other_embedder_are_refused(words: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no classifier"):
        classifier.load_classifier(tmp_path, "classifier", lambda: words)
    classifier.train_classifier(plan(), "classifier", rows(), words, tmp_path, "one")
    folder = tmp_path / classifier.CLASSIFIER_FOLDER / "classifier"

    write_as_0_2_0(folder, words)

    class Other:
        fingerprint, dimension = "words-2", words.dimension

    with pytest.raises(BadInput, match="another embedder"):
        files.read_classifier(folder, Other)  # type: ignore[arg-type]
    with (folder / files.WEIGHTS).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(BadInput, match="damaged"):
        classifier.load_classifier(tmp_path, "classifier", lambda: words)


def test_rows_without_label_of_the_plan_are_left_out() -> None:
    checks = [{"kind": "labels", "value": ["refund", "lost"]}]
    more = Example(({"role": "user", "content": "x"}, {"role": "assistant", "content": "lost."}), {}, 99)
    labelled, left_out = classifier.labelled_texts(plan(checks=checks), (*rows(), more))
    assert left_out == len(TEXTS["hours"])
    assert {label for _, label in labelled} == {"refund", "lost"}
    assert ("x", "lost") in labelled


def test_replies_that_are_no_labels_are_refused(
    examples: tuple[Example, ...], words: Any, tmp_path: Path
) -> None:
    classifier.check_classifier_plan(plan(), rows())
    with pytest.raises(BadInput, match="36 different texts"):
        classifier.check_classifier_plan(plan(), examples)
    with pytest.raises(BadInput, match="all 4 examples have the label 'refund'"):
        classifier.check_classifier_plan(plan(), rows({"refund": TEXTS["refund"]}))
    with pytest.raises(BadInput, match="all 4 examples have the label 'refund'"):  # a small size of a curve
        classifier.train_classifier(
            plan(), "classifier", rows({"refund": TEXTS["refund"]}), words, tmp_path, "one"
        )


def test_faults_of_the_rows_are_counted_and_said(words: Any, tmp_path: Path) -> None:
    texts = {
        "refund": (*TEXTS["refund"], "  ", "Money back!"),
        "lost": (*TEXTS["lost"], "money back"),
        "refund, lost": ("refund me, my bag is lost", "my coat is lost, money back please"),
    }
    asked = [Question("q1", "open?", reference="hours"), Question("q2", "a bag", reference="lost")]
    trained = classifier.train_classifier(plan(), "classifier", rows(texts), words, tmp_path, "one", asked)
    assert (trained["rows"], trained["labels"]) == (12, 3)
    assert trained["notes"] == [
        "1 example without a text: left out",
        "1 of 2 test questions have a label that no example has ('hours'): a classifier cannot give it",
        "1 text with two labels or more (for example 'lost', 'refund'): one at most can be right",
        "2 examples nearly repeat another: kept in one fold with it",
        "2 replies with several labels (for example 'refund, lost'): each combination is learnt as a label of its own",
        "1 label with fewer rows than 5 ('refund, lost')",
    ]
