"""Notice texts in a language that the embedder does not know.

An embedder knows a language when its vocabulary does. The language of a text is told by its script, or for
Latin letters by its little words; then the vocabulary is asked: whether it holds the common words of that
language whole, or for other scripts, how many letters of the text itself make a token.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

from rag.encoder import Encoder
from rag.tongues import TONGUES, Tongue

SAMPLE, LETTERS = 200, 400
"""Texts looked at, spread evenly, and the characters looked at of each."""
WORTH_SAYING = 0.1
"""Share of the sampled characters in unknown languages from which on it is said."""
FEWEST_WORDS = 1000
"""A smaller vocabulary holds letters, not words, and says nothing about languages."""
PIECES = 1.6
"""Tokens that a common word may take on average. all-MiniLM: English 1.0, others 1.8 and more."""
_UNKNOWN = 0.1
_SCRIPTS: dict[str, tuple[str, float]] = {
    "CYRILLIC": ("Cyrillic script", 2.0), "GREEK": ("Greek", 2.0), "ARABIC": ("Arabic script", 2.0),
    "HEBREW": ("Hebrew", 2.0), "DEVANAGARI": ("Devanagari script", 1.6), "BENGALI": ("Bengali", 1.6),
    "TAMIL": ("Tamil", 1.6), "THAI": ("Thai", 1.6), "GEORGIAN": ("Georgian", 2.0), "ARMENIAN": ("Armenian", 2.0),
    "HANGUL": ("Korean", 1.0), "HIRAGANA": ("Japanese", 1.2), "KATAKANA": ("Japanese", 1.2), "CJK": ("Chinese", 0.9),
}  # fmt: skip
"""First word of a letter's Unicode name: what to call it, and the letters a known script has in a token."""
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def language_note(texts: Sequence[str], encoder: Encoder, what: str = "the text") -> str:
    """Return a sentence when a good part of the texts is in a language the embedder does not know, else "".

    ``texts`` are a corpus's chunks or a question, and ``what`` says which.
    """
    if encoder.tokenizer.get_vocab_size() < FEWEST_WORDS:
        return ""
    step = max(1, len(texts) // SAMPLE)
    sample = [text[:LETTERS] for text in texts[::step][:SAMPLE]]
    unknown: Counter[str] = Counter()
    for text in sample:
        if (name := language(text)) and not knows(encoder, name, text):
            unknown[name] += len(text)
    share = unknown.total() / max(1, sum(map(len, sample)))
    if share < WORTH_SAYING:
        return ""
    names = " and ".join(name for name, _ in unknown.most_common(3))
    part = what if share > 0.9 else f"{share:.0%} of {what}"
    return (
        f"{part} looks like {names}, which the embedder {encoder.name} hardly knows: it is found by its words, "
        "hardly by its meaning; use an embedder made for this language"
    )


def language(text: str) -> str:
    """Return the name of a text's language or script, "" when it cannot be told.

    A language in Latin letters needs two of its little words, a sixth of all, and more than any other has.
    """
    scripts = Counter(filter(None, map(_script, text)))
    if not scripts:
        return ""
    script = "HIRAGANA" if scripts["HIRAGANA"] > 0.1 * scripts.total() else scripts.most_common(1)[0][0]
    if script in _SCRIPTS:
        return _SCRIPTS[script][0]
    words = list(_words(text))
    counted = sorted(((sum(w in t.little for w in words), t.name) for t in TONGUES), reverse=True)
    (most, name), (second, _) = counted[:2]
    return name if most >= 2 and most > second and 6 * most >= len(words) else ""


def knows(encoder: Encoder, name: str, text: str) -> bool:
    """Return whether the embedder's vocabulary is made for a language that ``language`` named."""
    for tongue in TONGUES:
        if tongue.name == name:
            return _pieces(encoder, tongue) <= PIECES
    letters = "".join(char if _script(char) in _SCRIPTS else " " for char in text)
    tokens = encoder.tokenizer.encode(letters, add_special_tokens=False).tokens
    unknown = sum(token in _unknown_tokens(encoder) for token in tokens)
    bound = next(bound for known, bound in _SCRIPTS.values() if known == name)
    held = sum(not char.isspace() for char in letters)
    return unknown <= _UNKNOWN * len(tokens) and held >= bound * len(tokens)


def _pieces(encoder: Encoder, tongue: Tongue) -> float:
    """Return the mean number of tokens of the language's common words; an unknown one counts as four."""
    key = encoder.fingerprint, tongue.name
    if key not in _KNOWN:
        unknown = _unknown_tokens(encoder)
        rows = [encoder.tokenizer.encode(word, add_special_tokens=False).tokens for word in tongue.common]
        _KNOWN[key] = sum(4 if unknown & set(row) else len(row) for row in rows) / len(rows)
    return _KNOWN[key]


_KNOWN: dict[tuple[str, str], float] = {}


def _unknown_tokens(encoder: Encoder) -> set[str]:
    return {"[UNK]", "<unk>", str(getattr(encoder.tokenizer.model, "unk_token", None))}


def _words(text: str) -> Iterator[str]:
    for match in _WORD.finditer(text.lower().replace("’", "'")):
        first, quote, rest = match.group().partition("'")
        yield from (first, rest) if quote and len(first) <= 2 else (match.group(),)


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    """Return the script of a letter as Unicode names it, "" for what is no letter."""
    return unicodedata.name(char, "").partition(" ")[0] if char.isalpha() else ""
