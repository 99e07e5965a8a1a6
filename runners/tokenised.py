"""What rows look like as tokens: too long, nothing to learn, no end, one-sided, replies out of line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rag.errors import BadInput
from runners.chat import Chat, Encoded
from runners.example import Example
from runners.rawtext import Packed, pack
from runners.tokencache import Tokens, encoded
from runners.tuning import TrainConfig

Pair = tuple[Example, Encoded]


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows as tokens, parted into those that are trained on and those that cannot be."""

    chats: tuple[Pair, ...]
    texts: Packed
    """Raw text, packed into pieces: nothing of it is too long."""
    long: tuple[Pair, ...]
    """Over max_tokens: left out, never cut."""
    masked: tuple[Pair, ...]
    """Without a learnt token: left out."""
    refused: tuple[tuple[Example, BadInput], ...]
    """Rows that the chat template refuses, with the reason."""

    @property
    def used(self) -> list[Encoded]:
        """Return what is trained on: chats in order, then the pieces of texts."""
        return [*(encoded for _, encoded in self.chats), *self.texts.rows]

    @property
    def left_out(self) -> int:
        """Return how many rows cannot be trained on."""
        return len(self.long) + len(self.masked) + len(self.refused)

    def within(self, share: float) -> int:
        """Return the length within which so large a share of the rows stays, 0 without rows."""
        parts = (*self.chats, *self.long, *self.masked)
        lengths = sorted(len(e.ids) for e in (*self.texts.rows, *(encoded for _, encoded in parts)))
        return lengths[int(share * (len(lengths) - 1))] if lengths else 0


def encode(rows: Sequence[Example], chat: Chat, config: TrainConfig, tokens: Tokens | None = None) -> Rows:
    """Return every row as tokens, parted; ``tokens`` may know them from an earlier start of the run."""
    used, long, masked = list[Pair](), list[Pair](), list[Pair]()
    refused: list[tuple[Example, BadInput]] = []
    chats = [row for row in rows if not row.raw]
    made = tokens.encoded(chats, chat, config.turns) if tokens else encoded(chats, chat, config.turns)
    for row, found in zip(chats, made, strict=True):
        if isinstance(found, BadInput):
            refused.append((row, found))
            continue
        part = long if len(found.ids) > config.max_tokens else used if found.learnt else masked
        part.append((row, found))
    texts = [row for row in rows if row.raw]
    packed = pack(texts, chat, config.max_tokens) if texts else Packed((), 0, 0, 0)
    return Rows(tuple(used), packed, tuple(long), tuple(masked), tuple(refused))
