"""Features are chosen on the training rows alone; the head is reproducible and its probabilities hold on new rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from runners.classification.label_notes import label_notes
from runners.classification.linear_head import (
    INVERSE_REGULARISATION,
    HeldOutScores,
    cross_validated_rows,
    make_folds,
    softmax,
)
from runners.classification.selection import LabelledRows, choose_classifier, label_text, repeat_groups
from runners.classification.text_features import MAX_WEIGHTS, TextFeatures

LABELS = 4


def label_of(number: int) -> int:
    """Return the label of a number, which its digits do not show."""
    return (number * 2_654_435_761 >> 7) % LABELS


class Vectors:
    """An encoder of texts that begin with a number: a noisy point around the centre of the number's label."""

    fingerprint, dimension = "vectors", 16

    def __init__(self, noise: float) -> None:
        """Take the noise beside centres of length about 4."""
        self._centres = np.random.default_rng(0).normal(size=(LABELS, self.dimension))
        self._noise = noise

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return a unit vector for each text, which depends on it alone."""
        numbers = [int(text.split()[0]) if text[:1].isdigit() else None for text in texts]
        rows = [
            np.ones(self.dimension)
            if number is None  # the name of a label says nothing
            else self._centres[label_of(number)]
            + self._noise * np.random.default_rng(number).normal(size=self.dimension)
            for number in numbers
        ]
        vectors = np.array(rows, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def texts_of(rows: range, word: str = "") -> tuple[list[str], list[str]]:
    """Return texts and labels; with a word, a text says its label by it and the label's number."""
    labels = [label_of(n) for n in rows]
    texts = [f"{n} {word}{label}" if word else str(n) for n, label in zip(rows, labels, strict=True)]
    return texts, [f"l{label}" for label in labels]


def test_choice_is_cross_validated_and_reproducible() -> None:
    texts, labels = texts_of(range(120))
    encoder: Any = Vectors(0.4)
    one, two = (
        choose_classifier(LabelledRows.of(texts, labels, encoder)),
        choose_classifier(LabelledRows.of(texts, labels, encoder)),
    )
    assert [tried.features for tried in one.tried] == ["embeddings", "tfidf", "both"]
    assert one.head.accuracy == max(tried.accuracy for tried in one.tried)
    assert one.head.accuracy > 0.9
    assert np.array_equal(one.head.weights, two.head.weights)
    assert one.head.temperature == two.head.temperature
    assert one.head.strength in INVERSE_REGULARISATION
    lonely = choose_classifier(LabelledRows.of(texts[:2], labels[:2], encoder))
    assert (lonely.head.accuracy, lonely.head.temperature, lonely.tried) == (None, None, ())
    assert (lonely.features, lonely.head.strength) == ("embeddings", INVERSE_REGULARISATION[0])
    with pytest.raises(ValueError, match="two labels"):
        choose_classifier(LabelledRows.of(texts[:1], labels[:1], encoder))


def test_words_win_where_vectors_say_nothing() -> None:
    texts, labels = texts_of(range(120), "kind")
    nothing: Any = Vectors(1000.0)
    classifier = choose_classifier(LabelledRows.of(texts, labels, nothing))
    by_kind = {tried.features: tried.accuracy for tried in classifier.tried}
    assert by_kind["embeddings"] < 0.5
    assert by_kind["tfidf"] == 1.0
    assert classifier.features == "tfidf"
    new, expected = texts_of(range(200, 240), "kind")
    assert [classifier.head.labels[n] for n in classifier.scores(new, None).argmax(axis=1)] == expected


def test_probabilities_hold_on_new_rows() -> None:
    """Overlapping labels: the mean probability of the answers is near the share of right ones, which is not near 1."""
    encoder: Any = Vectors(2.5)
    texts, labels = texts_of(range(400))
    new, expected = texts_of(range(1000, 1800))
    classifier = choose_classifier(LabelledRows.of(texts, labels, encoder))
    scores = classifier.scores(new, encoder.encode(new))
    chosen = [classifier.head.labels[n] for n in scores.argmax(axis=1)]
    right = np.mean([label == own for label, own in zip(chosen, expected, strict=True)])
    stated = classifier.head.probabilities(scores).max(axis=1).mean()
    assert 0.4 < right < 0.95
    assert abs(stated - right) < 0.05
    assert abs((classifier.head.accuracy or 0) - right) < 0.08


def test_temperature_makes_held_out_labels_likely() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2000, 3)) * 2
    y = np.array([rng.choice(3, p=own) for own in softmax(scores)])
    assert HeldOutScores(scores=scores * 5, y=y).temperature() == pytest.approx(5, rel=0.15)
    assert HeldOutScores(scores=scores, y=y).temperature() == pytest.approx(1, rel=0.15)
    unknown = np.where(np.arange(3) == y[:, None], -np.inf, scores)
    assert HeldOutScores(scores=unknown, y=y).temperature() == 1, "no fold has the label of any row"


def test_near_repeats_are_in_one_fold() -> None:
    texts = [f"please give the money for ticket number {n // 2} back to me" for n in range(40)]
    groups = repeat_groups(texts)
    assert len(set(groups)) == 20
    folds = make_folds(np.arange(40) // 2 % 2, 0, groups)
    for train, test in folds.parts:
        assert not {groups[n] for n in train} & {groups[n] for n in test}
    assert sorted(folds.rows.tolist()) == list(range(40))
    # A label whose rows all repeat one text cannot be learnt from the others: no row of it is judged.
    same = ["money back", "money back!", "lost my bag", "lost a coat", "when open", "hours of the hall"]
    judged = make_folds(np.array([0, 0, 1, 1, 2, 2]), 0, repeat_groups(same))
    assert sorted(judged.rows.tolist()) == [2, 3, 4, 5]
    assert make_folds(np.array([0, 0, 1, 1]), 0, repeat_groups(same[:4])).parts == ()


def test_label_with_one_row_counts_as_wrong() -> None:
    encoder: Any = Vectors(0.1)
    texts, labels = texts_of(range(20))
    assert cross_validated_rows(encoder.encode(texts), labels) == (20, 20)
    assert cross_validated_rows(encoder.encode(texts), [*labels[:-1], "lonely"]) == (19, 20)
    assert cross_validated_rows(encoder.encode(texts[:2]), labels[:2]) == (0, 2)


def test_text_features_are_restored_from_their_vocabulary() -> None:
    texts = ["refund the ticket", "¿?! 票", "a b", "opening hours of the hall"]
    reader = TextFeatures.fit(texts, 2)
    other = TextFeatures.restore(reader.vocabulary(), reader.inverse_frequencies())
    more = [*texts, "never seen", "", "票票"]
    assert np.array_equal(reader.transform(more).toarray(), other.transform(more).toarray())
    assert reader.transform(more).shape == (7, reader.dimension)
    assert list(TextFeatures.fit(["?", "!!"], 2).vectorizers) == ["characters"]
    with pytest.raises(ValueError, match="no n-gram"):
        TextFeatures.fit([" "], 2)
    with pytest.raises(ValueError, match="frequencies"):
        TextFeatures.restore({"words": ["a", "b"]}, {"words": np.ones(1, np.float32)})
    with pytest.raises(ValueError, match="no kind"):
        TextFeatures.restore({"pickle": ["a"]}, {"pickle": np.ones(1, np.float32)})


def test_five_hundred_labels_are_learnt_with_fewer_n_grams() -> None:
    rows = [(f"item {n} of box {chr(97 + n % 26)}{k}", f"label {n}") for n in range(500) for k in range(4)]
    reader = TextFeatures.fit([text for text, _ in rows], 500)
    assert reader.dimension <= MAX_WEIGHTS // 500
    notes = label_notes(rows, list(range(len(rows))))
    assert notes == (
        "500 labels for 2,000 rows: TF-IDF reads the 2,000 most frequent n-grams of words and as many "
        "of characters",
        "500 labels with fewer rows than 5 ('label 0', 'label 1', 'label 10', ...)",
    )


def test_spellings_of_one_label_are_said() -> None:
    labels = ["Refund", "refund.", "lost_bag", "lost bag", "1", "-1", "10"]
    rows = [(f"{word} {n}", label) for n, word in enumerate("abcdefg") for label in labels[n : n + 1] * 5]
    assert label_notes(rows, list(range(len(rows)))) == (
        "2 labels in several spellings (for example 'Refund', 'refund.'): each is learnt as a label of its own",
    )


@pytest.mark.parametrize(
    ("label", "words"), [("card_arrival", "card arrival"), ("not well-formed", "not well formed"), ("?", "?")]
)
def test_label_is_read_as_words(label: str, words: str) -> None:
    assert label_text(label) == words
