"""Tokens of several rows in one line, without padding: what all rows begin with is computed once. Heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runners.chat import Encoded

MAX_SHARED = 512
"""Longest row, in tokens, that still shares its beginning: above it flash attention per row is faster."""
MAX_BEGINNING = 1024
"""Longest beginning that longer rows share all the same, when it is at least half of each (instructions that list
77 labels before a message of 20 words): what is not computed again outweighs the slower attention by far."""


@dataclass(frozen=True, slots=True)
class Segments:
    """Where each row stands in a line of tokens: the shared beginning first, then each row's rest."""

    prefix: int
    lengths: tuple[int, ...]
    """Tokens of each row after the shared beginning."""
    place: Tensor | None
    """int64 [rows * width]: the rest's token at each place of a padded table; None without padding, which repeats
    a row's last token: attention, being causal, never lets a real one see it."""
    taken: Tensor | None
    """int64 [sum(lengths)]: the other way round."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.lengths)

    @property
    def width(self) -> int:
        """The longest rest."""
        return max(self.lengths)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as one line of tokens, and what is to be learnt."""

    ids: Tensor
    """int64 [1, prefix + sum(lengths)]."""
    positions: Tensor
    """int64, like ids: where each token stands in its own row."""
    segments: Segments
    keep: Tensor
    """int64 [n]: places in ids whose next token is learnt."""
    targets: Tensor
    """int64 [n]: those next tokens."""


def collate(rows: Sequence[Encoded], packed: bool, device: torch.device | str = "cpu") -> Batch:
    """Return rows as one Batch: ``packed``, or padded on the right so that ids can be viewed as [rows, width].

    Tokens after the last learnt one teach nothing and are left away.
    """
    prefix = shared(rows) if packed else 0
    rests = [list(row.ids[prefix : row.learnt[-1]]) for row in rows]
    if not packed:
        width = max(len(rest) for rest in rests)
        rests = [rest + [0] * (width - len(rest)) for rest in rests]
    ids, positions = list(rows[0].ids[:prefix]), list(range(prefix))
    keep, targets = [], []
    for row, rest in zip(rows, rests, strict=True):
        keep += [len(ids) + place - 1 - prefix for place in row.learnt]
        targets += [row.ids[place] for place in row.learnt]
        ids += rest
        positions += range(prefix, prefix + len(rest))
    return Batch(
        ids=torch.tensor([ids], device=device),
        positions=torch.tensor([positions], device=device),
        segments=_segments(prefix, tuple(len(rest) for rest in rests), device),
        keep=torch.tensor(keep, device=device),
        targets=torch.tensor(targets, device=device),
    )


def _segments(prefix: int, lengths: tuple[int, ...], device: torch.device | str) -> Segments:
    sizes, width = torch.tensor(lengths), max(lengths)
    if min(lengths) == width:
        return Segments(prefix, lengths, None, None)
    place = torch.minimum(torch.arange(width), sizes[:, None] - 1) + (sizes.cumsum(0) - sizes)[:, None]
    taken = (torch.arange(width) < sizes[:, None]).flatten().nonzero().flatten()
    return Segments(prefix, lengths, place.flatten().to(device), taken.to(device))


def shared(rows: Sequence[Encoded]) -> int:
    """Count the tokens all rows begin with that are worth computing once; 0 where rows are computed one by one.

    The token before a row's first learnt one stays its own.
    """
    if len(rows) < 2:
        return 0
    longest = max(len(row.ids) for row in rows)
    # The smallest and the largest row differ first where any two rows differ.
    low, high = min(row.ids for row in rows), max(row.ids for row in rows)
    apart = (i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b)
    begin = min(next(apart, min(len(low), len(high))), min(row.prompt for row in rows) - 1)
    mostly = begin <= MAX_BEGINNING and longest - begin <= min(begin, MAX_SHARED)
    return begin if longest <= MAX_SHARED or mostly else 0
