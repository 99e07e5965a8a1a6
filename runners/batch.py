"""Rows of tokens as one tensor: what all rows begin with is computed once. Heavy: imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runners.chat import Encoded

MAX_SHARED = 512
"""Longest row, in tokens, that still shares its beginning: above it flash attention per row is faster."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Tokens of several rows in one line: the shared beginning, then each row's rest, padded on the right.

    Attention is causal, so nothing real ever sees the padding, and no mask is needed.
    """

    ids: Tensor
    """int64 [1, prefix + rows * width]."""
    positions: Tensor
    """int64, like ids: where each token stands in its own row."""
    prefix: int
    rows: int
    keep: Tensor
    """int64 [n]: places in ids whose next token is learnt."""
    targets: Tensor
    """int64 [n]: those next tokens."""


def collate(rows: Sequence[Encoded], share: bool, device: torch.device | str = "cpu") -> Batch:
    """Return rows as one Batch; without ``share`` the prefix is 0 and ids can be viewed as [rows, width].

    Tokens after the last learnt one teach nothing and are left away.
    """
    prefix = _shared(rows) if share else 0
    width = max(row.learnt[-1] for row in rows) - prefix
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    keep, targets = [], []
    for number, row in enumerate(rows):
        rest = row.ids[prefix : row.learnt[-1]]
        ids[number, : len(rest)] = torch.tensor(rest)
        start = prefix + number * width
        keep += [start + place - 1 - prefix for place in row.learnt]
        targets += [row.ids[place] for place in row.learnt]
    shared = torch.tensor(rows[0].ids[:prefix], dtype=torch.long)
    positions = torch.cat([torch.arange(prefix), prefix + torch.arange(width).repeat(len(rows))])
    return Batch(
        ids=torch.cat([shared, ids.flatten()])[None].to(device),
        positions=positions[None].to(device),
        prefix=prefix,
        rows=len(rows),
        keep=torch.tensor(keep, device=device),
        targets=torch.tensor(targets, device=device),
    )


def _shared(rows: Sequence[Encoded]) -> int:
    """Count the tokens all rows begin with; the token before a row's first learnt one stays its own."""
    if len(rows) < 2 or max(len(row.ids) for row in rows) > MAX_SHARED:
        return 0
    # The smallest and the largest row differ first where any two rows differ.
    low, high = min(row.ids for row in rows), max(row.ids for row in rows)
    common = next(
        (i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high))
    )
    return min(common, min(row.prompt for row in rows) - 1)
