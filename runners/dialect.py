"""What a server does not take of a request, learnt from its refusals: what it names is left out from then on.

"OpenAI-compatible" is a family: OpenAI's own reasoning models take `max_completion_tokens` and no temperature, others
forbid every parameter they do not know.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

OPTIONAL = ("seed", "temperature", "top_p", "stream_options")
"""Parameters that an answer can be had without; messages and stop texts are not among them."""
RENAMED = {"max_tokens": "max_completion_tokens"}
_UNKNOWN = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed|forbidden|deprecated",
    re.IGNORECASE,
)


class Dialect:
    """The changes that one server's requests need; safe to share between threads."""

    def __init__(self, on_change: Callable[[str], None] | None = None) -> None:
        """Start with none; `on_change` hears about each once, in words."""
        self._changes: dict[str, str] = {}
        self._lock, self._on_change = threading.Lock(), on_change

    def of(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request as the server takes it."""
        named = {self._changes.get(key, key): value for key, value in body.items()}
        return {key: value for key, value in named.items() if key}

    def learn(self, sent: Mapping[str, Any], said: str) -> bool:
        """Take a refusal of a request; return whether it names a parameter that can be changed, so try again."""
        wrong = [key for key in (*OPTIONAL, *RENAMED) if key in sent and re.search(rf"\b{key}\b", said)]
        if not wrong or not _UNKNOWN.search(said):
            return False
        with self._lock:
            fresh = [key for key in wrong if key not in self._changes]
            self._changes |= {key: RENAMED.get(key, "") for key in fresh}
        tell = self._on_change or (lambda said: None)
        for key in fresh:
            tell(
                f"does not take {key}: {f'{RENAMED[key]} is sent instead' if key in RENAMED else 'it is left out'}"
            )
        return True
