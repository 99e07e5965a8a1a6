"""How near an answer's wording is to a reference: ROUGE-L and chrF, as their papers define them. Light."""

from __future__ import annotations

import re
from collections import Counter

ORDERS = range(1, 7)
"""Lengths of the runs of characters that chrF compares."""
BETA = 2
"""How many times recall weighs as much as precision in chrF."""


def rouge_l(answer: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words (Lin 2004, sentence level, precision and recall alike).

    Words are runs of letters, digits and underscores, without case. Two texts without words are as near as can be
    when they are the same.
    """
    a, b = _words(answer), _words(reference)
    if not a or not b:
        return float(answer.strip() == reference.strip())
    return 2 * common_length(a, b) / (len(a) + len(b))


def common_length(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, by bits: one addition for each item of ``b`` (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for position, item in enumerate(a):
        places[item] = places.get(item, 0) | 1 << position
    every = (1 << len(a)) - 1
    open_places = every
    for item in b:
        here = open_places & places.get(item, 0)
        open_places = ((open_places + here) | (open_places - here)) & every
    return len(a) - open_places.bit_count()


def chrf(answer: str, reference: str) -> float:
    """F2 of character n-grams, n from 1 to 6, white space left out (Popović 2015).

    Precision and recall are means over the orders that both texts have; case counts. Needs no words, so it also
    serves languages that set no spaces.
    """
    a, b = "".join(answer.split()), "".join(reference.split())
    if a == b:
        return 1.0
    each = [(_grams(a, n), _grams(b, n)) for n in ORDERS if min(len(a), len(b)) >= n]
    if not each:
        return 0.0
    shared = [(x & y).total() for x, y in each]
    precision = sum(n / x.total() for n, (x, _) in zip(shared, each, strict=True)) / len(each)
    recall = sum(n / y.total() for n, (_, y) in zip(shared, each, strict=True)) / len(each)
    below = BETA**2 * precision + recall
    return (1 + BETA**2) * precision * recall / below if below else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _grams(text: str, n: int) -> Counter[str]:
    return Counter(text[at : at + n] for at in range(len(text) - n + 1))
