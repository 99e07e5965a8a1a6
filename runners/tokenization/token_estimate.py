"""How many tokens a text has for a model whose tokenizer is not here: a rule of thumb."""

from __future__ import annotations

CHARS_PER_TOKEN = 4
"""Characters of a token: about this many in English text with the vocabularies of today's models."""


def estimate_tokens(text: str) -> int:
    """Return the tokens of a text, rounded up; 0 for an empty one."""
    return -(-len(text) // CHARS_PER_TOKEN)
