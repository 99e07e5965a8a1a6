"""Convert tokens to text as they are generated: whole characters only, and nothing that a stop text would remove."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runners.data.reasoning import ReasoningSplitter, answer_of

REPLACEMENT_CHARACTER = "\ufffd"
"""What tokenizers write for the bytes of an incomplete character."""


class TextStream:
    """The text of one answer, piece by piece; the pieces joined are the whole answer without its outer white space.

    Reasoning before the answer is no part of it.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        stop: Sequence[str] = (),
        trim: bool = True,
        reasoning: ReasoningSplitter | None = None,
    ) -> None:
        """Start an empty text.

        Args:
            decode: Returns the text of some tokens.
            stop: Texts that end the answer; neither they nor what follows is part of it.
            trim: Whether white space at both ends of the answer is removed.
            reasoning: Cuts the reasoning before the answer; None for a text that is not an answer.
        """
        self._reasoning = reasoning
        self._decode = decode
        self._stop = tuple(stop)
        self._trim = trim
        self.tokens: list[int] = []
        # The tokens from _context_start to _decoded_end are decoded already, those after it are not.
        self._context_start = 0
        self._decoded_end = 0
        self._held = ""
        self._parts: list[str] = []
        self.stopped = False
        """Whether a stop text has occurred."""
        self.reasoning_tokens = 0
        """Number of the tokens that belong to the reasoning before the answer."""

    @property
    def text(self) -> str:
        """The text returned so far."""
        return "".join(self._parts)

    @property
    def inside_reasoning(self) -> bool:
        """Whether the tokens so far end inside the reasoning."""
        return self._reasoning is not None and self._reasoning.inside

    @property
    def has_reasoning(self) -> bool:
        """Whether there was reasoning before the answer."""
        return self._reasoning is not None and bool(self._reasoning.reasoning)

    def assume_answer(self) -> None:
        """Take all text for the answer, as when a server sends the reasoning apart from it."""
        if self._reasoning is not None:
            self._reasoning.assume_answer()

    def drop_reasoning(self) -> None:
        """Take text that may be reasoning for it, so that it is no part of the answer."""
        if self._reasoning is not None:
            self._reasoning.assume_reasoning()

    def is_full(self, limit: int, room: int) -> bool:
        """Return whether the answer has ``limit`` tokens, or the reasoning before it ``room``."""
        if self.inside_reasoning:
            return self.reasoning_tokens >= (room or limit)
        if room and self._reasoning is not None and self._reasoning.undecided:
            return False  # the tag that opens the reasoning may be several tokens
        return len(self.tokens) - self.reasoning_tokens >= limit

    def add(self, token: int) -> str:
        """Add the next token; return the text that is final by now, often none."""
        self.tokens.append(token)
        # Decoded with a few tokens before it, because tokenizers write a token at the start of a text differently.
        window = self._decode(self.tokens[self._context_start :])
        if window.endswith(REPLACEMENT_CHARACTER):
            return ""
        known = self._decode(self.tokens[self._context_start : self._decoded_end])
        if len(window) == len(known):
            # A token without text, such as a special one: what follows is decoded with the text before it, for the space.
            return ""
        self._context_start, self._decoded_end = self._decoded_end, len(self.tokens)
        inside = self.inside_reasoning
        piece = self.write(window[len(known) :])
        if inside or self.inside_reasoning:
            self.reasoning_tokens = len(self.tokens)
        return piece

    def add_all(self, tokens: Sequence[int]) -> None:
        """Add all tokens of an answer at once; :meth:`rest` gives its text."""
        text = self._decode(list(tokens))
        if self._reasoning is not None and (self._reasoning.inside or answer_of(text) != text):
            for token in tokens:  # to count those of the reasoning
                self.add(token)
            return
        self.tokens, self._decoded_end = list(tokens), len(tokens)
        self.write(text)

    def write(self, text: str) -> str:
        """Add text; return what is final by now."""
        self._held += text if self._reasoning is None else self._reasoning.add(text)
        ends = [index for index in (self._held.find(stop) for stop in self._stop) if index >= 0]
        if ends:
            self._held, self.stopped = self._held[: min(ends)], True
            return self.rest()
        # White space at the end is held back too: it belongs to the answer only if more text follows.
        return self._release(self._trimmed(self._held[: len(self._held) - self._possible_stop()]))

    def rest(self) -> str:
        """Return what was held back, when the answer has ended."""
        if self._decoded_end < len(self.tokens) and not self.stopped:
            known = self._decode(self.tokens[self._context_start : self._decoded_end])
            text = self._decode(self.tokens[self._context_start :])[len(known) :]
            self._held += text if self._reasoning is None else self._reasoning.add(text)
            self._decoded_end = len(self.tokens)
        if self._reasoning is not None and not self.stopped:
            self._held += self._reasoning.finish()
        return self._release(self._trimmed(self._held))

    def _trimmed(self, text: str) -> str:
        """Return the text without white space at its end, where that is to be trimmed."""
        return text.rstrip() if self._trim else text

    def _release(self, final: str) -> str:
        """Remove ``final`` from the held text and return it; white space before the first piece is dropped."""
        self._held = self._held[len(final) :]
        piece = final if self._parts or not self._trim else final.lstrip()
        if piece:
            self._parts.append(piece)
        return piece

    def _possible_stop(self) -> int:
        """Return how many characters at the end may be the beginning of a stop text."""
        longest = 0
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest
