"""Recognise classification tasks by the replies of their examples."""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_LABELS = 200
"""Most different replies of a classification task."""


def labels_of(replies: Sequence[str]) -> tuple[str, ...]:
    """Return the sorted labels when the replies are a few short texts, each used three times or more on average; else ().

    A label has at most 6 words and 60 characters, and at most 5 % of the labels end like a sentence.
    """
    labels = {reply.strip() for reply in replies}
    sentences = sum(bool(re.search(r"[.?!]$", label)) for label in labels)
    short = all(len(label.split()) <= 6 and len(label) <= 60 for label in labels) and sentences <= 0.05 * len(
        labels
    )
    few = len(labels) <= MAX_LABELS and len(replies) >= 3 * len(labels) and len(labels) >= 2
    return tuple(sorted(labels)) if short and few else ()
