"""Label tasks, recognised by their replies."""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_LABELS = 200
"""More different replies than this are not a choice between labels."""


def labels_of(replies: Sequence[str]) -> tuple[str, ...]:
    """Return the labels when replies are a few short texts, each used about three times or more; else ()."""
    found = {reply.strip() for reply in replies}
    sentences = sum(bool(re.search(r"[.?!]$", label)) for label in found)
    short = all(len(x.split()) <= 6 and len(x) <= 60 for x in found) and sentences <= 0.05 * len(found)
    few = len(found) <= MAX_LABELS and len(replies) >= 3 * len(found) and len(found) >= 2
    return tuple(sorted(found)) if short and few else ()
