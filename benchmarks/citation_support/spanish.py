"""Templates for Spanish: the rules for words are English, numbers and names are compared in any language."""

from __future__ import annotations

import re
from random import Random

from benchmarks.citation_support.altered import (
    name_of_the_passage,
    number_of_another_sentence,
    numbers_exchanged,
)
from benchmarks.citation_support.edits import Template, both_ways, replaced, upper_first
from benchmarks.citation_support.passages import Passage
from benchmarks.citation_support.restated import bracket_left_out

_UNITS = both_ways(
    {"horas": "días", "minutos": "horas", "años": "meses", "millones": "miles", "km": "millas"}
) | {
    "kilómetros": "millas",
    "%": " euros",
    "semanas": "días",
    "metros": "pies",
}


def unit(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.search(rf"(\d ?)({'|'.join(_UNITS)})(?!\w)", sentence)
    return sentence[: match.start(2)] + _UNITS[match[2]] + sentence[match.end(2) :] if match else None


def no_put_in(sentence: str, passage: Passage, rng: Random) -> str | None:
    if re.search(r"\b(?:no|nunca|sin|ni|tampoco|ningun\w*)\b", sentence, re.I):
        return None
    match = re.search(
        r" (?=(?:es|son|fue|fueron|era|eran|está|están|tiene|tienen|puede|pueden|había|ha|han) )", sentence
    )
    return f"{sentence[: match.end()]}no {sentence[match.end() :]}" if match else None


def comparator(sentence: str, passage: Passage, rng: Random) -> str | None:
    return replaced(
        sentence, both_ways({"más de": "menos de", "antes de": "después de", "al menos": "como máximo"}), rng
    )


def adverbial_to_the_end(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.match(r"((?:En|Desde|Durante|Tras|Hasta) [^,]{3,50}), ([^,;]+)\.$", sentence)
    return f"{upper_first(match[2])} {match[1][0].lower()}{match[1][1:]}." if match else None


def leading_phrase(sentence: str, passage: Passage, rng: Random) -> str | None:
    return f"Según el documento, {sentence[0].lower()}{sentence[1:]}"


SPANISH_ALTERED: dict[str, tuple[tuple[Template, ...], ...]] = {
    "number of another subject": ((number_of_another_sentence, numbers_exchanged),),
    "unit": ((unit,),),
    "comparator": ((comparator,),),
    "name": ((name_of_the_passage,),),
    "negation": ((no_put_in,),),
}
SPANISH_RESTATED: dict[str, tuple[tuple[Template, ...], ...]] = {
    "other order": ((adverbial_to_the_end,),),
    "modifier left out": ((bracket_left_out,),),
    "leading phrase": ((leading_phrase,),),
}
