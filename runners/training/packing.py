"""Pack training rows into one line of tokens without padding; their common prefix is computed once. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runners.tokenization.chat_template import EncodedRow

MAX_SHARED = 512
"""Longest row, in tokens, whose prefix is shared: above it flash attention row by row is faster."""
MAX_PREFIX = 1024
"""Longest prefix that longer rows share all the same, when it is at least half of each row (instructions that list
77 labels before a message of 20 words): what is not computed again outweighs the slower attention by far."""


@dataclass(frozen=True, slots=True)
class RowSegments:
    """Where each row is in a line of tokens: first the shared prefix, then each row's own tokens (its suffix)."""

    prefix: int
    """Tokens of the shared prefix, 0 without one."""
    lengths: tuple[int, ...]
    """Tokens of each row's suffix."""
    pad_index: Tensor | None
    """int64 [rows * width]: for each cell of a padded table, which suffix token it takes; None where all suffixes are
    of one length. Padding repeats a row's last token: attention is causal, so no real token ever sees it."""
    unpad_index: Tensor | None
    """int64 [sum(lengths)]: the inverse, which cell of the padded table each suffix token is in."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.lengths)

    @property
    def width(self) -> int:
        """Length of the longest suffix, which is the width of the padded table."""
        return max(self.lengths)


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Rows as one line of T = prefix + sum(lengths) tokens, and the target tokens."""

    ids: Tensor
    """int64 [1, T]."""
    positions: Tensor
    """int64 [1, T]: each token's position in its own row."""
    segments: RowSegments
    keep: Tensor
    """int64 [n]: indexes into the T tokens whose next token is a target."""
    targets: Tensor
    """int64 [n]: those next tokens."""


def collate(rows: Sequence[EncodedRow], packed: bool, device: torch.device | str = "cpu") -> TokenBatch:
    """Return rows as one batch: ``packed``, or padded on the right so that ids can be viewed as [rows, width].

    A row's tokens from its last target on are left out of the input: nothing is predicted from them.
    """
    prefix = shared_prefix(rows) if packed else 0
    suffixes = [list(row.ids[prefix : row.learnt[-1]]) for row in rows]
    if not packed:
        width = max(len(suffix) for suffix in suffixes)
        # Any token does as padding on the right: attention is causal and no loss is taken there.
        suffixes = [suffix + [0] * (width - len(suffix)) for suffix in suffixes]
    ids, positions = list(rows[0].ids[:prefix]), list(range(prefix))
    keep, targets = [], []
    for row, suffix in zip(rows, suffixes, strict=True):
        # Token `at` of a row is predicted from the one before it: at - 1 within the row, at - 1 - prefix within its
        # suffix, which begins at len(ids) of the line.
        keep += [len(ids) + at - 1 - prefix for at in row.learnt]
        targets += [row.ids[at] for at in row.learnt]
        ids += suffix
        positions += range(prefix, prefix + len(suffix))
    return TokenBatch(
        ids=torch.tensor([ids], device=device),
        positions=torch.tensor([positions], device=device),
        segments=_segments(prefix, tuple(len(suffix) for suffix in suffixes), device),
        keep=torch.tensor(keep, device=device),
        targets=torch.tensor(targets, device=device),
    )


def _segments(prefix: int, lengths: tuple[int, ...], device: torch.device | str) -> RowSegments:
    """Return the segments of suffixes of these lengths, with the index tables in and out of a padded table."""
    sizes = torch.tensor(lengths)
    width = max(lengths)
    if min(lengths) == width:
        return RowSegments(prefix, lengths, None, None)
    columns = torch.arange(width)
    # [rows, 1]: index of each suffix's first token among all suffix tokens.
    starts = (sizes.cumsum(0) - sizes)[:, None]
    # [rows, width]: columns past a row's end are clamped to its last token.
    pad_index = torch.minimum(columns, sizes[:, None] - 1) + starts
    unpad_index = (columns < sizes[:, None]).flatten().nonzero().flatten()
    return RowSegments(prefix, lengths, pad_index.flatten().to(device), unpad_index.to(device))


def shared_prefix(rows: Sequence[EncodedRow]) -> int:
    """Count the first tokens, common to all rows, that are worth computing once; 0 where rows are computed one by one.

    The prefix ends before the token from which a row's first target is predicted, so that each row has its own.
    """
    if len(rows) < 2:
        return 0
    longest = max(len(row.ids) for row in rows)
    # In lexicographic order every row is between the smallest and the largest, so the prefix of these two is common.
    low, high = min(row.ids for row in rows), max(row.ids for row in rows)
    different = (i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b)
    common = min(next(different, min(len(low), len(high))), min(row.prompt for row in rows) - 1)
    mostly_prefix = common <= MAX_PREFIX and longest - common <= min(common, MAX_SHARED)
    return common if longest <= MAX_SHARED or mostly_prefix else 0
