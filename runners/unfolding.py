"""An answer as it may be shown while it is generated: cited sentence by sentence, and never taken back.

A stream cannot be corrected, so only what is certain is given out: whole sentences with their marks, and of the
sentence that is still open the leading words, as long as they are nothing but words.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from rag.cite import Citer, marked_end, strip_marks, without_marks
from rag.clean import visible
from rag.links import inert
from rag.types import Hit
from rag.words import sentence_spans

_PLAIN = re.compile(r"[^\[\]【】<>(){}`:/\\!*]*")
"""Text in which no link, tag, mark or address can begin."""
_OPEN = re.compile(r"(?<!\s)\s*(?:\[[\d\s,;]*|【\s*(?:\d[^】]*)?)$")
"""An end that may become a mark."""


class StreamedAnswer:
    """The pieces of one answer, as they are shown.

    A sentence is made harmless and cited once, when the next one begins. What came before is not read again, except
    where a link, a tag or an escape sequence might go on: then the sentences since its line began are made harmless
    together.
    """

    def __init__(
        self,
        hits: Sequence[Hit] = (),
        question: str = "",
        formulas: Collection[str] = (),
        cited: bool = False,
        strip: bool = False,
    ) -> None:
        """Take the passages that the model was shown, and the sentences that need no citation.

        Without ``cited`` the words are only made visible; with ``strip`` marks that the model made up are left out.
        """
        self.citer = Citer(hits, formulas)
        """What cites the sentences; it saves work when the whole answer is cited."""
        self._cited, self._strip = cited, strip
        self._sources = [question, *(hit.chunk.text for hit in hits)]
        self._raw = ""
        """What the model generated, of a cited answer since the last sentence that is settled."""
        self._settled = 0
        """Characters before ``_raw``, marks left out."""
        self._end = 0
        """Where the last whole sentence of ``_raw`` ends, marks left out."""
        self._harmless = ""
        """The whole sentences of ``_raw`` as the citer has them."""
        self._words = ""
        """What of the open sentence is given out."""
        self._taken = 0
        """Characters of the answer without marks that are given out."""
        self.shown = ""
        """Everything given out so far."""

    def add(self, piece: str) -> str:
        """Take what the model generated; return what may be shown by now, often nothing."""
        self._raw += piece
        if self._cited:
            return self._add_cited()
        if self._strip:
            open_end = _OPEN.search(self._raw)
            text = visible(strip_marks(self._raw[: open_end.start()] if open_end else self._raw))
            return self._give(text, len(text))
        # What begins a terminal's command is taken away as long as it is not whole.
        return self._give(visible(self._raw), len(self._raw))

    def finish(self, whole: str, words: str) -> str:
        """Return what is left to show of an answer that has ended.

        `whole` is the answer as it is shown, `words` the same before anything was marked. Where what came last
        changed the marks of what is given out already, the rest comes as words alone: nothing is missing.
        """
        if whole.startswith(self.shown):
            return self._give(whole, len(words))
        return self._give(self.shown + inert(words[self._taken :], self._sources), len(words))

    def _add_cited(self) -> str:
        text = without_marks(self._raw).rstrip()
        lead = 0 if self._settled else len(text) - len(text.lstrip())
        text = text[lead:]
        spans = sentence_spans(text)
        end = spans[-2][1] if len(spans) > 1 else 0
        fresh = ""
        if end != self._end:
            harmless = self._make_harmless(text[:end])
            if not harmless.startswith(self._harmless + self._words):
                return ""  # Otherwise than it was given out: nothing more is, until it fits again.
            fresh = self.citer.add(harmless[len(self._harmless) :])[len(self._words) :]
            self._end, self._harmless, self._words = end, harmless, ""
        match = _PLAIN.match(text, end)
        plain = text[end : match.end() if match else end]
        words = plain[: _last_space(plain)].rstrip()
        if visible(words) == words and words.startswith(self._words):
            fresh += words[len(self._words) :]
            self._words = words
        self.shown += fresh
        self._taken = self._settled + len(visible(text[:end])) + len(self._words)
        if end and _is_settled(text[:end]):
            self._raw = self._raw[marked_end(self._raw, lead + end) :]
            self._settled, self._end, self._harmless = self._settled + end, 0, ""
        return fresh

    def _make_harmless(self, text: str) -> str:
        """Return the whole sentences since the settled ones without what ``inert`` takes out, and without marks."""
        # A letter in front: only what follows a line's end begins a line.
        before = "x" if self._settled else ""
        harmless = without_marks(inert(before + text, self._sources)[len(before) :]).rstrip()
        return harmless if self.citer.text else harmless.lstrip()

    def _give(self, now: str, taken: int) -> str:
        if not now.startswith(self.shown) or len(now) == len(self.shown):
            return ""
        piece = now[len(self.shown) :]
        self.shown, self._taken = now, taken
        return piece


def _is_settled(text: str) -> bool:
    """Return whether nothing that ``inert`` takes out can begin in the text and go on behind it.

    Links end with their line, tags with ``>``, marks with ``】``; escape sequences are not looked into.
    """
    if "[" in text[text.rfind("\n") + 1 :] or "【" in text or visible(text) != text:
        return False
    depth = 0
    for bracket in re.findall("[<>]", text):
        depth = depth + 1 if bracket == "<" else max(0, depth - 1)
    return depth == 0


def _last_space(text: str) -> int:
    """Return the offset of a text's last white space, 0 without any."""
    return max(0, *(text.rfind(space) for space in " \n\t"))
