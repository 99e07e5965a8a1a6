"""An answer as it may be shown while it is still made: cited sentence by sentence, and never taken back.

A stream cannot be corrected, so only what is certain goes out: whole sentences with their marks, and of the sentence
that is still open the words in front, as long as they are nothing but words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag.cite import attach, strip_marks
from rag.clean import visible
from rag.links import inert
from rag.types import Hit
from rag.words import sentence_spans

_PLAIN = re.compile(r"[^\[\]【】<>(){}`:/\\!*]*")
"""Text in which no link, tag, mark or address can begin."""
_OPEN = re.compile(r"(?<!\s)\s*(?:\[[\d\s,;]*|【\s*(?:\d[^】]*)?)$")
"""An end that may become a mark."""


class Unfolding:
    """The pieces of one answer, as they are shown."""

    def __init__(
        self, hits: Sequence[Hit] = (), question: str = "", cited: bool = False, strip: bool = False
    ) -> None:
        """Keep the passages that were shown to the model.

        Without `cited` the words are only made visible; with `strip` marks that the model made up are left out.
        """
        self._hits, self._cited, self._strip = hits, cited, strip
        self._sources = [question, *(hit.chunk.text for hit in hits)]
        self._raw = self._closed = ""
        self._taken = self._end = 0
        self.shown = ""
        """Everything given out so far."""

    def add(self, piece: str) -> str:
        """Take what the model said; return what may be shown by now, often nothing."""
        self._raw += piece
        if not self._cited and self._strip:
            open_end = _OPEN.search(self._raw)
            said = visible(strip_marks(self._raw[: open_end.start()] if open_end else self._raw))
            return self._give(said, len(said))
        if not self._cited:
            # What begins a terminal's command is taken away as long as it is not whole.
            return self._give(visible(self._raw), len(self._raw))
        text = strip_marks(self._raw)
        spans = sentence_spans(text)
        end = spans[-2][1] if len(spans) > 1 else 0
        if end != self._end:
            self._end = end
            self._closed = attach(inert(text[:end], self._sources), self._hits)[0]
        match = _PLAIN.match(text, end)
        plain = text[end : match.end() if match else end]
        words = plain[: _last_space(plain)].rstrip()
        if visible(words) != words:
            words = ""
        return self._give(self._closed + words, end + len(words))

    def finish(self, whole: str, words: str) -> str:
        """Return what is left to show of an answer that has ended.

        `whole` is the answer as it is shown, `words` the same before anything was marked. Where what came last
        changed the marks of what is out already, the rest comes as words alone: nothing is missing.
        """
        if whole.startswith(self.shown):
            return self._give(whole, len(words))
        return self._give(self.shown + inert(words[self._taken :], self._sources), len(words))

    def _give(self, now: str, taken: int) -> str:
        if not now.startswith(self.shown) or len(now) == len(self.shown):
            return ""
        piece = now[len(self.shown) :]
        self.shown, self._taken = now, taken
        return piece


def _last_space(text: str) -> int:
    """Where the last white space of a text is; 0 without any."""
    return max(0, *(text.rfind(space) for space in " \n\t"))
