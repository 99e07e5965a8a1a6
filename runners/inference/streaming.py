"""Convert tokens to text as they are generated: whole characters only, and nothing that a stop text would remove."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT_CHARACTER = "\ufffd"
"""What tokenizers write for the bytes of an incomplete character."""


class TextStream:
    """The text of one answer, piece by piece; the pieces joined are the whole answer without its outer white space."""

    def __init__(
        self, decode: Callable[[list[int]], str], stop: Sequence[str] = (), trim: bool = True
    ) -> None:
        """Start an empty text.

        Args:
            decode: Returns the text of some tokens.
            stop: Texts that end the answer; neither they nor what follows is part of it.
            trim: Whether white space at both ends of the answer is removed.
        """
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

    @property
    def text(self) -> str:
        """The text returned so far."""
        return "".join(self._parts)

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
        return self.write(window[len(known) :])

    def write(self, text: str) -> str:
        """Add text; return what is final by now."""
        self._held += text
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
            self._held += self._decode(self.tokens[self._context_start :])[len(known) :]
            self._decoded_end = len(self.tokens)
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
