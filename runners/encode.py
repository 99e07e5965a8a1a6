"""All rows as tokens: chats one by one, raw texts packed."""

from __future__ import annotations

from collections.abc import Sequence

from runners.chat import Chat, Encoded
from runners.example import Example
from runners.rawtext import pack


def encode(rows: Sequence[Example], chat: Chat, max_tokens: int, turns: str = "all") -> list[Encoded]:
    """Return chats in order, then the texts in pieces; chats over ``max_tokens`` are there too, to be counted.

    ``turns`` is which assistant turns are learnt: all or last.
    """
    texts = [row for row in rows if row.raw]
    chats = [chat.example(row, turns) for row in rows if not row.raw]
    return [*chats, *pack(texts, chat, max_tokens).rows]
