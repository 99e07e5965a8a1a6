"""Encode all training rows: chats one by one, raw texts packed. Imports no torch.

:func:`encode_rows` encodes rows and separates those that cannot be trained on; :func:`encode_examples` encodes alone.

Raw texts (continued pre-training) are trained on every token, and none is dropped or shortened: :func:`pack_texts` writes
them one after another with an end token after each, as in pre-training, into pieces of up to ``max_tokens`` tokens. A text
that fits into a piece is never cut; a longer one begins a piece of its own and continues in the next ones, each of which
repeats one token, so that the first new one is a target too. Attention may look back over the end token into the text
before, which pre-training has taught the model to disregard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rag.errors import BadInput
from rag.text.words import count_noun
from runners.data.examples import Example
from runners.plan.train_config import TrainConfig
from runners.tokenization.chat_template import ChatTokenizer, EncodedRow
from runners.tokenization.token_cache import TokenCache, encode_or_reason


@dataclass(frozen=True, slots=True)
class PackedTexts:
    """The pieces of packed texts, with counts of the texts in them."""

    rows: tuple[EncodedRow, ...]
    """The pieces."""
    texts: int
    """Number of texts."""
    cut: int
    """Number of texts longer than a piece, which continue in the next."""
    tokens: int
    """Tokens of all texts, with the end token of each."""


ExampleTokens = tuple[Example, EncodedRow]


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """All rows as tokens: those that are trained on, and those that cannot be, by reason."""

    chats: tuple[ExampleTokens, ...]
    texts: PackedTexts
    """Raw texts, packed into pieces: none of them is too long."""
    long: tuple[ExampleTokens, ...]
    """Chats over max_tokens: left out, never cut."""
    masked: tuple[ExampleTokens, ...]
    """Chats without a target token: left out."""
    refused: tuple[tuple[Example, BadInput], ...]
    """Chats that the chat template refuses, with the reason."""

    @property
    def used(self) -> list[EncodedRow]:
        """Return the rows that are trained on: chats in order, then the pieces of texts."""
        return [*(encoded for _, encoded in self.chats), *self.texts.rows]

    @property
    def left_out(self) -> int:
        """Return the number of rows that cannot be trained on."""
        return len(self.long) + len(self.masked) + len(self.refused)

    def within(self, share: float) -> int:
        """Return the length in tokens that a ``share`` of the rows does not exceed (a quantile), 0 without rows."""
        parts = (*self.chats, *self.long, *self.masked)
        lengths = sorted(len(e.ids) for e in (*self.texts.rows, *(encoded for _, encoded in parts)))
        return lengths[int(share * (len(lengths) - 1))] if lengths else 0


@dataclass(slots=True)
class _Piece:
    """A piece while it is filled."""

    ids: list[int]
    first: Example
    """The text that the piece begins with."""
    texts: int = 0
    part: str = ""
    """Note about a piece of a longer text, "" for a piece of whole texts."""


def encode_rows(
    rows: Sequence[Example], chat: ChatTokenizer, config: TrainConfig, tokens: TokenCache | None = None
) -> EncodedRows:
    """Encode all rows and separate those that cannot be trained on.

    Args:
        rows: chats and raw texts.
        chat: tokenizer and template.
        config: settings of the run; ``max_tokens`` and ``turns`` are used.
        tokens: cache of the run's tokens; None encodes without one.
    """
    used = list[ExampleTokens]()
    long = list[ExampleTokens]()
    masked = list[ExampleTokens]()
    refused: list[tuple[Example, BadInput]] = []
    chats = [row for row in rows if not row.raw]
    results = (
        tokens.encoded(chats, chat, config.turns) if tokens else encode_or_reason(chats, chat, config.turns)
    )
    for row, result in zip(chats, results, strict=True):
        if isinstance(result, BadInput):
            refused.append((row, result))
            continue
        part = long if len(result.ids) > config.max_tokens else used if result.learnt else masked
        part.append((row, result))
    texts = [row for row in rows if row.raw]
    packed = pack_texts(texts, chat, config.max_tokens) if texts else PackedTexts((), 0, 0, 0)
    return EncodedRows(tuple(used), packed, tuple(long), tuple(masked), tuple(refused))


def encode_examples(
    rows: Sequence[Example], chat: ChatTokenizer, max_tokens: int, turns: str = "all"
) -> list[EncodedRow]:
    """Encode chats in order, then the texts in pieces; chats over ``max_tokens`` are included, to be counted.

    Args:
        rows: chats and raw texts.
        chat: tokenizer and template.
        max_tokens: longest piece of texts.
        turns: which assistant turns are trained on, all or last.
    """
    texts = [row for row in rows if row.raw]
    chats = [chat.example(row, turns) for row in rows if not row.raw]
    return [*chats, *pack_texts(texts, chat, max_tokens).rows]


def pack_texts(texts: Sequence[Example], chat: ChatTokenizer, max_tokens: int) -> PackedTexts:
    """Pack texts, in order, into pieces of at most ``max_tokens`` tokens (2 or more).

    Raises:
        BadInput: the tokenizer has no end token to put between texts.
    """
    end = chat.tokenizer.token_to_id(chat.special.get("eos_token", ""))
    if end is None:
        raise BadInput("the tokenizer has no end token to put between texts", "choose another model")
    # A piece begins with the token before a text in pre-training: the tokenizer's own first token, else an end token.
    start = end if chat.begins is None else chat.begins
    # One token of each piece is the first one, which gives the next its context and is no target.
    piece_tokens = max_tokens - 1
    pieces: list[_Piece] = []
    cut = tokens = 0
    for text in texts:
        ids = [*chat.encode(text.reply), end]
        tokens += len(ids)
        between = [] if chat.begins is None else [start]
        if pieces and len(pieces[-1].ids) + len(between) + len(ids) <= max_tokens:
            pieces[-1].ids += [*between, *ids]
            pieces[-1].texts += 1
            continue
        parts = [ids[offset : offset + piece_tokens] for offset in range(0, len(ids), piece_tokens)]
        cut += len(parts) > 1
        context = start
        for number, part in enumerate(parts, start=1):
            note = f"piece {number} of {len(parts)} of a longer text" if len(parts) > 1 else ""
            pieces.append(_Piece([context, *part], text, 1, note))
            context = part[-1]
    rows = tuple(_row(piece, chat) for piece in pieces)
    return PackedTexts(rows, len(texts), cut, tokens)


def _row(piece: _Piece, chat: ChatTokenizer) -> EncodedRow:
    learnt = tuple(i for i in range(1, len(piece.ids)) if piece.ids[i] != chat.begins)
    more = f"{count_noun(piece.texts, 'text')} in one piece" if piece.texts > 1 else ""
    note = "; ".join(filter(None, (piece.part, more)))
    return EncodedRow(tuple(piece.ids), learnt, piece.first.line, piece.first.file, raw=True, note=note)
