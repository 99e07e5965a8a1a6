"""Estimate the number of tokens of a text without the model's tokenizer, by a rule of thumb."""

from __future__ import annotations

CHARS_PER_TOKEN = 4
"""Characters per token: about this many in English text with the vocabularies of current models."""


def estimate_tokens(text: str) -> int:
    """Return the estimated number of tokens of a text, rounded up; 0 for an empty one."""
    return -(-len(text) // CHARS_PER_TOKEN)
