"""All rows as tokens: chats one by one, raw texts packed.

Raw text as training rows (continued pre-training): every token is learnt, and no text is dropped or shortened.

Texts follow one another with an end token after each, as in pre-training, packed into pieces of up to ``max_tokens``.
A text that fits into a piece is never cut; a longer one begins a piece of its own and goes on in the next ones, each of
which repeats one token, so that the first new one is learnt too. Attention may look back over the end token into the
text before, which pre-training has taught the model to disregard.

What rows look like as tokens: too long, nothing to learn, no end, one-sided, replies out of line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rag.errors import BadInput
from runners.data.examples import Example
from runners.plan.train_config import TrainConfig
from runners.tokenization.chat_template import ChatTokenizer, EncodedRow
from runners.tokenization.token_cache import TokenCache, encode_or_reason


@dataclass(frozen=True, slots=True)
class PackedTexts:
    """The pieces, and an account of the texts in them."""

    rows: tuple[EncodedRow, ...]
    texts: int
    cut: int
    """Texts longer than a piece, which go on in the next."""
    tokens: int
    """Tokens of the texts, with the end of each."""


@dataclass(slots=True)
class _Piece:
    ids: list[int]
    first: Example
    texts: int = 0
    part: str = ""


def pack_texts(texts: Sequence[Example], chat: ChatTokenizer, max_tokens: int) -> PackedTexts:
    """Pack texts, in order, into pieces of at most ``max_tokens`` tokens (2 or more).

    Raises BadInput when the tokenizer has no end token to put between them.
    """
    end = chat.tokenizer.token_to_id(chat.special.get("eos_token", ""))
    if end is None:
        raise BadInput("the tokenizer has no end token to put between texts", "choose another model")
    # A piece begins with what stands before a text in pre-training: the tokenizer's own first token, else an end.
    start = end if chat.begins is None else chat.begins
    room = max_tokens - 1
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
        parts = [ids[at : at + room] for at in range(0, len(ids), room)]
        cut += len(parts) > 1
        context = start
        for number, part in enumerate(parts, start=1):
            said = f"piece {number} of {len(parts)} of a longer text" if len(parts) > 1 else ""
            pieces.append(_Piece([context, *part], text, 1, said))
            context = part[-1]
    rows = tuple(_row(piece, chat) for piece in pieces)
    return PackedTexts(rows, len(texts), cut, tokens)


def _row(piece: _Piece, chat: ChatTokenizer) -> EncodedRow:
    learnt = tuple(i for i in range(1, len(piece.ids)) if piece.ids[i] != chat.begins)
    more = f"{piece.texts} texts in one piece" if piece.texts > 1 else ""
    note = "; ".join(filter(None, (piece.part, more)))
    return EncodedRow(tuple(piece.ids), learnt, piece.first.line, piece.first.file, raw=True, note=note)


def encode_examples(
    rows: Sequence[Example], chat: ChatTokenizer, max_tokens: int, turns: str = "all"
) -> list[EncodedRow]:
    """Return chats in order, then the texts in pieces; chats over ``max_tokens`` are there too, to be counted.

    ``turns`` is which assistant turns are learnt: all or last.
    """
    texts = [row for row in rows if row.raw]
    chats = [chat.example(row, turns) for row in rows if not row.raw]
    return [*chats, *pack_texts(texts, chat, max_tokens).rows]


ExampleTokens = tuple[Example, EncodedRow]


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """All rows as tokens, parted into those that are trained on and those that cannot be."""

    chats: tuple[ExampleTokens, ...]
    texts: PackedTexts
    """Raw text, packed into pieces: nothing of it is too long."""
    long: tuple[ExampleTokens, ...]
    """Over max_tokens: left out, never cut."""
    masked: tuple[ExampleTokens, ...]
    """Without a learnt token: left out."""
    refused: tuple[tuple[Example, BadInput], ...]
    """Rows that the chat template refuses, with the reason."""

    @property
    def used(self) -> list[EncodedRow]:
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


def encode_rows(
    rows: Sequence[Example], chat: ChatTokenizer, config: TrainConfig, tokens: TokenCache | None = None
) -> EncodedRows:
    """Return every row as tokens, parted; ``tokens`` may know them from an earlier start of the run."""
    used, long, masked = list[ExampleTokens](), list[ExampleTokens](), list[ExampleTokens]()
    refused: list[tuple[Example, BadInput]] = []
    chats = [row for row in rows if not row.raw]
    made = (
        tokens.encoded(chats, chat, config.turns) if tokens else encode_or_reason(chats, chat, config.turns)
    )
    for row, found in zip(chats, made, strict=True):
        if isinstance(found, BadInput):
            refused.append((row, found))
            continue
        part = long if len(found.ids) > config.max_tokens else used if found.learnt else masked
        part.append((row, found))
    texts = [row for row in rows if row.raw]
    packed = pack_texts(texts, chat, config.max_tokens) if texts else PackedTexts((), 0, 0, 0)
    return EncodedRows(tuple(used), packed, tuple(long), tuple(masked), tuple(refused))
