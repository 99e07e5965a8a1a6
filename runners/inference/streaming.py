"""From tokens to pieces of text, as they come: whole characters only, and nothing that a stop text would take back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT_CHARACTER = "\ufffd"


class TextStream:
    """The text of one answer; the pieces, joined, are the whole answer without its outer white space."""

    def __init__(
        self, decode: Callable[[list[int]], str], stop: Sequence[str] = (), trim: bool = True
    ) -> None:
        """Keep the tokenizer's decoding and the texts that end an answer; `trim` takes outer white space off."""
        self._decode, self._stop, self._trim = decode, tuple(stop), trim
        self.tokens: list[int] = []
        self._from = self._read = 0
        self._held = ""
        self._parts: list[str] = []
        self.stopped = False
        """Whether a stop text has come."""

    @property
    def text(self) -> str:
        """What has been given out so far."""
        return "".join(self._parts)

    def add(self, token: int) -> str:
        """Take the next token; return the text that is certain by now, often none."""
        self.tokens.append(token)
        # Decoded with a few tokens before it, because a tokenizer may write a token otherwise at the start.
        window = self._decode(self.tokens[self._from :])
        if window.endswith(REPLACEMENT_CHARACTER):
            return ""
        known = self._decode(self.tokens[self._from : self._read])
        self._from, self._read = self._read, len(self.tokens)
        return self.write(window[len(known) :])

    def write(self, text: str) -> str:
        """Take text; return what is certain by now."""
        self._held += text
        ends = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if ends:
            self._held, self.stopped = self._held[: min(ends)], True
            return self.rest()
        return self._give(self._trimmed(self._held[: len(self._held) - self._maybe_stop()]))

    def rest(self) -> str:
        """Return what was held back, at the end."""
        if self._read < len(self.tokens) and not self.stopped:
            known = self._decode(self.tokens[self._from : self._read])
            self._held += self._decode(self.tokens[self._from :])[len(known) :]
            self._read = len(self.tokens)
        return self._give(self._trimmed(self._held))

    def _trimmed(self, text: str) -> str:
        return text.rstrip() if self._trim else text

    def _give(self, certain: str) -> str:
        self._held = self._held[len(certain) :]
        piece = certain if self._parts or not self._trim else certain.lstrip()
        if piece:
            self._parts.append(piece)
        return piece

    def _maybe_stop(self) -> int:
        """Characters at the end that may be the beginning of a stop text."""
        longest = 0
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest
