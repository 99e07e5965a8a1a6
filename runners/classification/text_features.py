"""TF-IDF of words and characters by scikit-learn, stored as a vocabulary and weights rather than as a pickle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WORD_NGRAMS = (1, 2)
CHARACTER_NGRAMS = (2, 5)
WORD_PATTERN = r"(?u)\b\w+\b"
"""What a word is; the library's own pattern leaves out words of one character."""
MIN_ROWS_TO_PRUNE = 100
"""Texts from which on an n-gram must occur in two of them: one that occurs once tells no two texts apart."""
MAX_WEIGHTS = 2_000_000
"""Most weights of a head, labels times n-grams; the optimizer holds twenty such arrays (320 MB). With many labels only the
most frequent n-grams are kept: 13,000 of each kind with 77 labels, 2,000 with 500."""
WORDS = "words"
CHARACTERS = "characters"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFeatures:
    """Two fitted vectorizers, whose rows of length 1 stand side by side; a kind without any n-gram is left out."""

    vectorizers: Mapping[str, Any]
    """scikit-learn's ``TfidfVectorizer`` by kind."""

    @property
    def dimension(self) -> int:
        """Number of n-grams."""
        return sum(len(vectorizer.vocabulary_) for vectorizer in self.vectorizers.values())

    def transform(self, texts: Sequence[str]) -> Any:
        """Return the features of texts, a sparse float32 matrix [texts, dimension] with rows of length 1."""
        from scipy import sparse

        parts = [vectorizer.transform(texts) for vectorizer in self.vectorizers.values()]
        scale = np.float32(1 / np.sqrt(max(1, len(parts))))
        return sparse.hstack(parts, format="csr") * scale

    def vocabulary(self) -> dict[str, list[str]]:
        """Return the n-grams of each kind in the order of their columns."""
        return {kind: v.get_feature_names_out().tolist() for kind, v in self.vectorizers.items()}

    def inverse_frequencies(self) -> dict[str, np.ndarray]:
        """Return the inverse document frequency of each n-gram, float32, by kind."""
        return {kind: np.asarray(v.idf_, np.float32) for kind, v in self.vectorizers.items()}

    @classmethod
    def fit(cls, texts: Sequence[str], labels: int) -> TextFeatures:
        """Read the n-grams of texts.

        Args:
            texts: the training texts.
            labels: number of labels, which bounds the number of n-grams (:data:`MAX_WEIGHTS`).

        Raises:
            ValueError: no text has a character that is no space.
        """
        least = 2 if len(texts) >= MIN_ROWS_TO_PRUNE else 1
        most = max(1, MAX_WEIGHTS // (2 * labels))
        fitted = {}
        for kind in (WORDS, CHARACTERS):
            vectorizer = _vectorizer(kind, min_df=least, max_features=most)
            try:
                fitted[kind] = vectorizer.fit(texts)
            except ValueError:  # no word in any text, of symbols for example, or none that occurs twice
                continue
        if not fitted:
            raise ValueError("the texts have no n-gram")
        # Read again from what is stored, so that a fitted classifier and a loaded one compute in the same numbers.
        first = cls(vectorizers=fitted)
        return cls.restore(first.vocabulary(), first.inverse_frequencies())

    @classmethod
    def restore(
        cls, vocabulary: Mapping[str, Sequence[str]], inverse_frequencies: Mapping[str, np.ndarray]
    ) -> TextFeatures:
        """Return the features that have this vocabulary and these inverse document frequencies.

        Raises:
            ValueError: a kind is unknown, or the lengths differ.
        """
        restored = {}
        for kind, terms in vocabulary.items():
            vectorizer = _vectorizer(kind, vocabulary={term: column for column, term in enumerate(terms)})
            if len(vectorizer.vocabulary) != len(inverse_frequencies[kind]):
                raise ValueError(f"{len(terms)} {kind} and {len(inverse_frequencies[kind])} frequencies")
            vectorizer.idf_ = inverse_frequencies[kind]
            restored[kind] = vectorizer
        return cls(vectorizers=restored)


def _vectorizer(kind: str, **settings: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    ways: dict[str, dict[str, Any]] = {
        WORDS: {"analyzer": "word", "ngram_range": WORD_NGRAMS, "token_pattern": WORD_PATTERN},
        CHARACTERS: {"analyzer": "char_wb", "ngram_range": CHARACTER_NGRAMS},
    }
    if kind not in ways:
        raise ValueError(f"{kind!r} is no kind of n-grams")
    return TfidfVectorizer(sublinear_tf=True, dtype=np.float32, **ways[kind], **settings)
