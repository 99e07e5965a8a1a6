"""Guess the next tokens from the text so far: answers with passages quote them word for word.

Verifying five guessed tokens costs a model that is bound by memory hardly more than computing one, and a greedy
answer stays the same: a guess is accepted only where the model itself would have chosen it. (Prompt lookup decoding,
Saxena 2023.)
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_GUESSES = 6
MAX_NGRAM = 3
"""Last tokens that must have occurred before in this order; one fewer is tried when they have not."""


class PromptLookup:
    """An index of where every pair and triple of tokens last occurred, extended as the text grows."""

    def __init__(self, ids: Sequence[int]) -> None:
        """Index the prompt."""
        self.ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self.extend(ids)

    def extend(self, ids: Sequence[int]) -> None:
        """Append tokens to the text and index the pairs and triples that now have a token after them."""
        for token in ids:
            end = len(self.ids)
            # The n-gram before this token; what ends with the newest token is indexed when the next one comes.
            for length in range(2, MAX_NGRAM + 1):
                if end >= length:
                    self._after[tuple(self.ids[end - length : end])] = end
            self.ids.append(token)

    def guess(self, most: int = MAX_GUESSES) -> list[int]:
        """Return up to `most` (and MAX_GUESSES) tokens that followed the last ones where they occurred before, or []."""
        for length in range(MAX_NGRAM, 1, -1):
            start = self._after.get(tuple(self.ids[-length:]))
            if start is not None and len(self.ids) >= length:
                return self.ids[start : start + min(most, MAX_GUESSES)]
        return []
