"""Guess the next tokens from what was already said: answers with passages quote them word for word.

Verifying five guessed tokens costs a model that is bound by memory hardly more than computing one, and a greedy
answer stays the same: a guess is kept only where the model itself would have said it. (Prompt lookup decoding,
Saxena 2023.)
"""

from __future__ import annotations

from collections.abc import Sequence

GUESSES = 6
LONGEST = 3
"""Tokens that must have occurred before in this order; one less when they have not."""


class Lookup:
    """An index of where every pair and triple of tokens last occurred, extended as the text grows."""

    def __init__(self, ids: Sequence[int]) -> None:
        """Index the prompt."""
        self.ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self.extend(ids)

    def extend(self, ids: Sequence[int]) -> None:
        """Add tokens to the text; what ends with the newest token has nothing after it yet."""
        for token in ids:
            end = len(self.ids)
            for length in range(2, LONGEST + 1):
                if end >= length:
                    self._after[tuple(self.ids[end - length : end])] = end
            self.ids.append(token)

    def guess(self, most: int = GUESSES) -> list[int]:
        """Return up to `most` (and GUESSES) tokens that followed the last ones where they occurred before; [] if nowhere."""
        for length in range(LONGEST, 1, -1):
            start = self._after.get(tuple(self.ids[-length:]))
            if start is not None and len(self.ids) >= length:
                return self.ids[start : start + min(most, GUESSES)]
        return []
