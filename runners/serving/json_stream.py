"""JSON as it is sent: every character of it, those that no reader sees as escapes of the same value.

:class:`StreamedJson` sends the pieces of an answer that is held to JSON while it is generated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from rag.text.sanitize import strip_invisible

_JSON_SPACE = " \t\r\n"


class StreamedJson:
    """The pieces of an answer in JSON as they are sent while the model generates; refusals are held back."""

    def __init__(self, refusals: Sequence[str] = ()) -> None:
        """Start an empty answer.

        Args:
            refusals: whole answers that are no JSON, which a client gets as a refusal at the end.
        """
        self._refusals = tuple(refusals)
        self._raw = ""
        self._taken = 0
        self.shown = ""
        """Everything given out so far."""

    def add(self, piece: str) -> str:
        """Take the next generated text; return what may be sent now."""
        self._raw += piece
        if any(refusal.startswith(self._raw) for refusal in self._refusals):
            return ""
        return self._give(self._raw)

    def finish(self, whole: str, words: str) -> str:
        """Return what is left to send when the answer has ended: the rest of JSON, "" of any other text.

        Args:
            whole: the answer as it is shown.
            words: the same text; JSON has no marks.
        """
        return self._give(self._raw) if self.shown or is_json(whole) else ""

    def _give(self, text: str) -> str:
        piece = harmless_json(text[self._taken :])
        self._taken = len(text)
        self.shown += piece
        return piece


def is_json(text: str) -> bool:
    """Return whether a text is JSON."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def harmless_json(text: str) -> str:
    """Return JSON, or a part of it, with invisible characters as escapes; its value is the same."""
    if text.isascii() and text.replace("\n", " ").isprintable():
        return text
    return "".join(
        char if char in _JSON_SPACE or strip_invisible(char) == char else json.dumps(char)[1:-1]
        for char in text
    )
