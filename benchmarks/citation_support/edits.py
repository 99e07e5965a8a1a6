"""What templates of both kinds share: numbers, names, clauses, and the replacement of one word by another."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from random import Random

from benchmarks.citation_support.passages import Passage

Template = Callable[[str, Passage, Random], str | None]
"""Makes a statement of a sentence of a passage; None where it does not apply."""

NUMBER = re.compile(r"(?<![\w.,$£€/:-])(\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?)(?![\w/:-]|[.,]\d)")
NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-zé]{2,}(?: [A-Z][a-zé]{2,})*(?!')")
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
AUXILIARY = r"(?:is|are|was|were|has|have|had|can|could|will|would|may|must|does|did)"
SUBJECT = re.compile(rf"^((?:[\w'’.-]+ ){{0,5}}[\w'’.-]+) ({AUXILIARY}) (.+)\.$")
_NO_SUBJECT = {
    "it",
    "he",
    "she",
    "they",
    "this",
    "that",
    "these",
    "those",
    "there",
    "we",
    "you",
    "i",
    "if",
    "when",
    "while",
    "although",
    "as",
    "in",
    "on",
    "at",
    "by",
    "for",
    "during",
    "after",
    "before",
    "since",
    "both",
    "also",
    "such",
    "its",
    "his",
    "her",
    "their",
    "our",
    "your",
    "here",
    "what",
    "which",
    "who",
    "no",
    "not",
    "once",
    "until",
    "with",
    "without",
    "from",
    "to",
    "however",
    "then",
    "thus",
    "because",
    "unlike",
    "like",
    "of",
    "yes",
    "so",
    "and",
    "but",
}


def replaced(sentence: str, table: Mapping[str, str], rng: Random) -> str | None:
    """Return the sentence with one word or phrase of a table replaced; None if it has none."""
    present = [old for old in table if re.search(rf"(?<![\w-]){re.escape(old)}(?![\w-])", sentence)]
    if not present:
        return None
    old = rng.choice(present)
    return re.sub(rf"(?<![\w-]){re.escape(old)}(?![\w-])", table[old], sentence, count=1)


def both_ways(pairs: Mapping[str, str]) -> dict[str, str]:
    """Return a table that replaces each by the other."""
    return {**{new: old for old, new in pairs.items()}, **pairs}


def plain_numbers(text: str) -> list[str]:
    """Return the numbers of a text that are neither years nor parts of other forms."""
    return [n for n in NUMBER.findall(text) if not re.fullmatch(r"1[5-9]\d\d|20\d\d", n)]


def same_number(a: str, b: str) -> bool:
    """Return whether two numerals have the same value."""
    return float(a.replace(",", "")) == float(b.replace(",", ""))


def subject_of(sentence: str) -> tuple[str, str, str] | None:
    """Return subject, auxiliary and the rest of a sentence; None without a subject that stands for itself."""
    match = SUBJECT.match(sentence)
    if not match or match[1].split()[0].lower() in _NO_SUBJECT or "," in match[1]:
        return None
    return match[1], match[2], match[3]


def lower_first(text: str, passage: Passage) -> str:
    """Return a text with its first letter small, unless it begins with a name."""
    first = text.split()[0].strip(",")
    inside = re.search(rf"[a-z,] {re.escape(first)}\b", passage.text)
    return text if inside or first == "I" or first.isupper() else text[0].lower() + text[1:]


def upper_first(text: str) -> str:
    """Return a text with its first letter as a capital."""
    return text[:1].upper() + text[1:]
