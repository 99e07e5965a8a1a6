"""Parameters of chat requests that a server refuses: which of them an error is about, and what is sent instead."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

OPTIONAL_FIELDS = ("seed", "temperature", "top_p", "stream_options")
"""Parameters that may be left out of a request; messages and stop texts may not."""
FORM_FIELD = "response_format"
"""The form that is asked of an answer. Servers refuse a schema in too many words to know them: after a refusal that names no
other parameter, the same request is sent without it, and it is left out from then on if that is answered."""
RENAMED_FIELDS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
"""Parameters that may be sent under another name."""
_REFUSED = "unsupported|not support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed|forbidden|deprecated"
_NEAR = ".{0,100}"
"""Between a parameter and the word that refuses it: an error may repeat a part of the request."""
_TOO_LONG = re.compile(
    r"context[ _](?:length|window|size)|too long|too many tokens|tokens?\b.{0,60}exceed|exceed.{0,60}\btokens?\b",
    re.IGNORECASE,
)
"""An error of one request, whichever parameters it names."""

OnNote = Callable[[str], None] | None
"""Called with a sentence about a retry or a changed parameter."""


class ServerDialect:
    """The changes of parameters that one server's requests need; safe to share between threads."""

    def __init__(self, on_change: OnNote = None) -> None:
        """Start without changes; `on_change` is called once with a description of each change."""
        self._changes: dict[str, str] = {}
        self._lock = threading.Lock()
        self._on_change = on_change

    def adapt(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request body with the parameters that the server accepts."""
        named = {self._changes.get(key, key): value for key, value in body.items()}
        return {key: value for key, value in named.items() if key}

    def learn_from_refusal(self, sent: Mapping[str, Any], message: str) -> bool:
        """Record the parameters that a server's error message refuses; return whether sending again may succeed.

        Args:
            sent: The request body that was refused.
            message: The server's error message.
        """
        if is_too_long(message):
            return False
        refused = [
            key for key in (*OPTIONAL_FIELDS, *RENAMED_FIELDS) if key in sent and _refuses(message, key)
        ]
        return bool(refused) and self.change(refused)

    def change(self, refused: Sequence[str]) -> bool:
        """Rename parameters, or leave them out, from now on; return False where one has its new name already."""
        with self._lock:
            # A name that a parameter was changed to already is not changed back.
            renamed_to = set(self._changes.values())
            if any(key in renamed_to for key in refused):
                return False
            new = [key for key in refused if key not in self._changes]
            self._changes |= {key: RENAMED_FIELDS.get(key, "") for key in new}
        for key in new:
            renamed = RENAMED_FIELDS.get(key)
            change = f"{renamed} is sent instead" if renamed else "it is no longer sent"
            if self._on_change:
                self._on_change(f"does not take {key}: {change}")
        return True


def _refuses(message: str, key: str) -> bool:
    """Whether an error message refuses a parameter."""
    near = rf"(?:{_REFUSED}){_NEAR}\b{key}\b|\b{key}\b{_NEAR}(?:{_REFUSED})"
    return re.search(near, message, re.IGNORECASE) is not None


def may_refuse_form(sent: Mapping[str, Any], message: str) -> bool:
    """Whether a refusal may be one of the form that was asked for."""
    return FORM_FIELD in sent and not is_too_long(message)


def is_too_long(message: str) -> bool:
    """Whether a server's error says that a request is longer than the model reads."""
    return _TOO_LONG.search(message) is not None
