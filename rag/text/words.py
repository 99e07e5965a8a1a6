"""Words and sentences: stop words, a light stemmer, content words, sentence ends."""

from __future__ import annotations

import re
from functools import lru_cache

_STOP_TEXT = """
    a about above after again all also am an and any are as at be because been before being below
    between both but by can could did do does doing down during each either else ever every few for
    from further get give given go goes going got had has have having he help her here hers him his
    how however i if in into is it its itself just kindly let like ll look make many may me might
    mine more most much must my need no nor not now of off ok okay on once one only onto or other
    our ours out over own per please re s same shall she should since so some sorry still such sure
    t than thank thanks that the their theirs them then there these they this those through to too
    unfortunately under until up upon us ve very want was we well were what when where whether which
    while who whom whose why will with within without would yes yet you your yours
"""
STOP_WORDS = frozenset(_STOP_TEXT.split())
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")

_ABBREVIATIONS = re.compile(
    r"\b(?:mr|mrs|ms|dr|prof|st|no|nr|vs|etc|approx|e\.g|i\.e|a\.m|p\.m|jr|sr|inc|ltd|co|dept|tel|min|max)\.$",
    re.I,
)
_DAY = re.compile(r"\b\d{1,2}\.$")
_MONTH = re.compile(
    r"\s+(?:Januar|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember)\b"
)
"""A date is no sentence end: "bis zum 5. Mai"."""
_SENTENCE_END = re.compile(r"(?:[.!?…]+[\"'”’)\]]*)(?=\s)|\n\s*\n|\n(?=\s*(?:[-*+|]|\d+[.)])\s)")


def words(text: str) -> list[str]:
    """Return the text's words, lower case and stemmed, in order; digits and single letters are kept."""
    return [stem(_without_possessive(match.group())) for match in _WORD.finditer(text.lower())]


def content_words(text: str) -> list[str]:
    """Return the stemmed words that carry content: stop words left out, in order, with repeats."""
    return [word for match in _WORD.findall(text.lower()) if (word := _content_stem(match))]


@lru_cache(maxsize=65_536)
def _content_stem(word: str) -> str:
    """Return the stem of a word that carries content, "" for another."""
    plain = _without_possessive(word)
    return "" if plain in STOP_WORDS or plain.endswith("n't") else stem(plain)


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Return the word without its plural, -ed or -ing ending; a light stemmer, so that few words get the same stem."""
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        root = word[: -len(ending)]
        if word.endswith(ending) and len(root) >= 3 and re.search(r"[aeiouy]", root):
            doubled = root[-1] == root[-2] and root[-1] not in "lsz"
            word = root[:-1] if doubled else root
            break
    return word[:-1] if word.endswith("e") and len(word) > 4 else word


def sentences(text: str) -> list[str]:
    """Return the text's sentences, trimmed; each is an exact slice of the text."""
    return [text[start:end] for start, end in sentence_spans(text)]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of each sentence; abbreviations and "a.m." do not end one before a lower-case letter."""
    cuts = [0]
    for match in _SENTENCE_END.finditer(text):
        # The longest abbreviation has seven characters; searching the whole text before it takes quadratic
        # time.
        head = text[max(cuts[-1], match.end() - 12) : match.end()]
        mark = match.group()
        if mark.startswith(".") and _ABBREVIATIONS.search(head):
            ends_with_half = re.search(r"\b[ap]\.m\.$", head, re.I)
            if not (ends_with_half and text[match.end() :].lstrip()[:1].isupper()):
                continue
        if mark == "." and _DAY.search(head) and _MONTH.match(text, match.end()):
            continue
        cuts.append(match.end())
    spans = []
    for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True):
        sentence = text[start:end]
        if sentence.strip():
            lead = len(sentence) - len(sentence.lstrip())
            spans.append((start + lead, start + len(sentence.rstrip())))
    return spans


def count_noun(number: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun, such as "1 question" or "1,200 questions"; ``plural`` where it is not noun + s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def _without_possessive(word: str) -> str:
    word = word.replace("’", "'")
    return word[:-2] if word.endswith("'s") else word
