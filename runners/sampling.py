"""Choose the next token: the likeliest, or drawn with a temperature from the likeliest few. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runners.completion import GREEDY, Sampling


class TokenSampler:
    """Chooses tokens for the rows of a call; every row draws from a random stream of its own.

    So a row's draw depends on the seed and on its index in the call, never on the other rows.
    """

    def __init__(self, sampling: Sampling = GREEDY, rows: Sequence[int] = (0,)) -> None:
        """Prepare the streams; `rows` are the indexes in the call."""
        self.sampling = sampling
        self._streams: dict[int, torch.Generator] = {}
        if not sampling.greedy:
            for row in rows:
                # Seeds of different calls stay apart for calls of up to 2**20 rows.
                self._streams[row] = torch.Generator().manual_seed((sampling.seed << 20) + row)

    def sample(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """Return one token for each row of `logits` [rows, vocabulary]."""
        if self.sampling.greedy:
            return [int(token) for token in logits.argmax(-1)]
        # In fp32 on the CPU, so that draws are the same wherever the model runs.
        probabilities = torch.softmax(logits.float().cpu() / self.sampling.temperature, dim=-1)
        return [
            self._draw(row_probabilities, self._streams[row])
            for row_probabilities, row in zip(probabilities, rows, strict=True)
        ]

    def _draw(self, probabilities: torch.Tensor, stream: torch.Generator) -> int:
        """Draw from the fewest tokens whose probabilities [vocabulary] reach top_p (nucleus sampling, Holtzman 2019)."""
        ordered, tokens = probabilities.sort(descending=True, stable=True)
        # The mass before a token decides, so the likeliest one always remains, however small top_p is.
        before = ordered.cumsum(0) - ordered
        nucleus = ordered * (before < self.sampling.top_p)
        return int(tokens[torch.multinomial(nucleus, 1, generator=stream)])
