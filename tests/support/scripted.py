"""What a scripted model in a test has in common with every other."""

from __future__ import annotations

from collections.abc import Sequence

from runners.inference.types import CompletionStream, Message, OutputConstraint


class WholeAnswers:
    """Base of models that answer whole chats, never piece by piece; their tokens are words."""

    def count_tokens(self, text: str) -> int:
        """Return the number of words."""
        return len(text.split())

    def stream(
        self, chat: Sequence[Message], max_new_tokens: int, *, constraint: OutputConstraint | None = None
    ) -> CompletionStream:
        """Fail: no test that uses such a model streams."""
        raise AssertionError("a scripted model does not stream")
