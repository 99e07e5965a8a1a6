"""Keep what people wrote from being taken for the marks of a chat: a control token in a message stays plain text.

A tokenizer reads ``<|im_start|>`` as the beginning of a turn wherever it stands, so a question or a document that
holds it could speak as the system. One space inside it, and it is words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from runners.shapes import Message


def breaker(controls: Iterable[str]) -> Callable[[str], str]:
    """Return what puts a space behind the first letter of every control token in a text."""
    marks = sorted({mark for mark in controls if not mark[1:2].isspace() and mark[1:]}, key=len, reverse=True)
    if not marks:
        return lambda text: text
    pattern = re.compile("|".join(map(re.escape, marks)))

    def broken(text: str) -> str:
        while pattern.search(text):  # two tokens may share a letter
            text = pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        return text

    return broken


def guarded(chat: Sequence[Message], broken: Callable[[str], str]) -> list[Message]:
    """Return the chat with every message's content broken."""
    return [{**message, "content": broken(message["content"])} for message in chat]
