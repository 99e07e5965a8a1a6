"""What an arm needs of a model, wherever it runs: chats in, completions out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from runners.shapes import Message


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer; `seconds` is the batch's time divided by its rows."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    finish: str
    """stop, or length when the limit cut it."""


class Generator(Protocol):
    """What an arm needs of a model, wherever it runs."""

    def generate(
        self,
        chats: Sequence[Sequence[Message]],
        max_new_tokens: int,
        on_batch: Callable[[list[int], list[Completion]], None] | None = None,
    ) -> list[Completion]:
        """Answer every chat, in order; `on_batch` hears the positions and answers of each batch as it ends."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of a text for this model, without special tokens."""
        ...
