"""Estimate the number of tokens of a text without the model's tokenizer, by a rule of thumb."""

from __future__ import annotations

import re

CHARS_PER_TOKEN = 4
"""Characters per token: about this many in English text with the vocabularies of current models."""
TOKEN_ERROR, FOREIGN_TOKEN_ERROR = (0.85, 1.4), (0.5, 2.7)
"""Tokens over those of :func:`count_pieces`, from the least to the most, in English and in other languages.

Of 38 texts (prose, tables, JSON, code, German, Spanish) by five tokenizers 98 % lie in the first, where the tokens by 4
characters each range from 0.85 to 1.9; the most are German by a vocabulary made for English, 1.56. The second is of single
paragraphs in Russian, Chinese and Japanese, 0.6 to 2.6 (benchmarks/LOG.md).
"""
_LATIN, _WIDE = "A-Za-z\u00c0-\u024f", "\u2e80-\U0003ffff"
_PIECES = (
    (1.2, re.compile(f"[{_LATIN}]+")),
    (1.2, re.compile(r"[0-9]")),
    (0.55, re.compile(r"[^\w\s]|_")),
    (0.9, re.compile(f"[{_WIDE}]")),
    (0.35, re.compile(rf"[^\W0-9_{_LATIN}{_WIDE}]")),
)
"""Tokens of a word, a digit, a mark, an ideograph and another letter: a least squares fit to those texts, rounded."""


def estimate_tokens(text: str) -> int:
    """Return the estimated number of tokens of a text, rounded up; 0 for an empty one."""
    return -(-len(text) // CHARS_PER_TOKEN)


def count_pieces(text: str) -> int:
    """Return the estimated number of tokens of a text from its words, digits and marks, at least 1."""
    kinds = _PIECES[:3] if text.isascii() else _PIECES
    return max(1, round(sum(tokens * len(pattern.findall(text)) for tokens, pattern in kinds)))
