"""Choose the next token: the likeliest, or drawn with a temperature from the likeliest few. Heavy: imports torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runners.completion import GREEDY, Sampling


class Picker:
    """Chooses tokens for the rows of a call; every row draws from a stream of its own.

    So a row's draw depends on the seed and on its place in the call, never on its neighbours.
    """

    def __init__(self, how: Sampling = GREEDY, rows: Sequence[int] = (0,)) -> None:
        """Prepare the streams; `rows` are the places in the call."""
        self.how = how
        self._streams: dict[int, torch.Generator] = {}
        if not how.greedy:
            for row in rows:
                self._streams[row] = torch.Generator().manual_seed((how.seed << 20) + row)

    def pick(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """Return one token for each row of `logits` [rows, vocabulary]."""
        if self.how.greedy:
            return [int(token) for token in logits.argmax(-1)]
        chances = torch.softmax(logits.float().cpu() / self.how.temperature, dim=-1)
        return [
            self._draw(row_chances, self._streams[row])
            for row_chances, row in zip(chances, rows, strict=True)
        ]

    def _draw(self, chances: torch.Tensor, stream: torch.Generator) -> int:
        """Draw from the fewest tokens whose chances reach top_p together (nucleus sampling, Holtzman 2019)."""
        ordered, tokens = chances.sort(descending=True, stable=True)
        before = ordered.cumsum(0) - ordered
        kept = ordered * (before < self.how.top_p)
        return int(tokens[torch.multinomial(kept, 1, generator=stream)])
