"""Raw text as training rows (continued pre-training): every token is learnt, and no text is dropped or shortened.

Texts follow one another with an end token after each, as in pre-training, packed into pieces of up to ``max_tokens``.
A text that fits into a piece is never cut; a longer one begins a piece of its own and goes on in the next ones, each of
which repeats one token, so that the first new one is learnt too. Attention may look back over the end token into the
text before, which pre-training has taught the model to disregard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rag.errors import BadInput
from runners.chat import Chat, Encoded
from runners.example import Example


@dataclass(frozen=True, slots=True)
class Packed:
    """The pieces, and an account of the texts in them."""

    rows: tuple[Encoded, ...]
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


def pack(texts: Sequence[Example], chat: Chat, max_tokens: int) -> Packed:
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
    return Packed(rows, len(texts), cut, tokens)


def _row(piece: _Piece, chat: Chat) -> Encoded:
    learnt = tuple(i for i in range(1, len(piece.ids)) if piece.ids[i] != chat.begins)
    more = f"{piece.texts} texts in one piece" if piece.texts > 1 else ""
    note = "; ".join(filter(None, (piece.part, more)))
    return Encoded(tuple(piece.ids), learnt, piece.first.line, piece.first.file, raw=True, note=note)
