"""Templates that say a true sentence in other words, in two halves."""

from __future__ import annotations

import re
from random import Random

from benchmarks.citation_support.edits import (
    MONTHS,
    SMALL,
    Template,
    lower_first,
    replaced,
    upper_first,
)
from benchmarks.citation_support.passages import Passage

_PLACE = r"(?:In|On|At|During|After|Before|By|For|From|Since|With|Under|Until)"


def adverbial_to_the_end(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.match(rf"({_PLACE} [^,]{{3,50}}), ([^,;]+)\.$", sentence)
    return f"{upper_first(match[2])} {lower_first(match[1], passage)}." if match else None


def clauses_exchanged(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.match(
        r"([^,;]{15,}), (and|but) ((?:the|a|an|there|you|we|guests|[A-Z][a-z]+) [^,;]{12,})\.$", sentence
    )
    return f"{upper_first(match[3])}, and {lower_first(match[1], passage)}." if match else None


def adverbial_clause_first(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.match(
        r"([^,;]{15,}?),? (because|when|while|if|although|since|unless) ([^,;]{10,})\.$", sentence
    )
    return f"{upper_first(match[2])} {match[3]}, {lower_first(match[1], passage)}." if match else None


def date_first(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.match(
        r"([^,;]{15,}) ((?:in|on|by|since|until) (?:\w+ )?(?:\d{1,2} )?\w*(?:1[5-9]|20)\d\d)\.$", sentence
    )
    return f"{upper_first(match[2])}, {lower_first(match[1], passage)}." if match else None


_SYNONYMS = {
    "large": "big", "began": "started", "begins": "starts", "children": "kids", "usually": "normally",
    "required": "needed", "located": "situated", "famous": "well-known", "main": "primary",
    "provides": "offers", "provide": "offer", "allow": "permit", "allowed": "permitted", "near": "close to",
    "however": "though", "several": "multiple", "also": "additionally", "nearly": "almost",
    "difficult": "hard", "shows": "displays", "many": "numerous", "entire": "whole", "over": "more than",
    "created": "made", "received": "got", "city": "town", "complimentary": "free", "accepts": "takes",
    "bought": "purchased", "buys": "purchases", "costs": "is priced at", "leave": "depart",
    "currently": "at present", "onsite": "on-site", "guests": "visitors", "correct": "right",
}  # fmt: skip
_SYNONYMS_R = {
    "small": "little", "film": "movie", "approximately": "about", "about": "approximately",
    "important": "significant", "often": "frequently", "start": "begin", "help": "assist",
    "choose": "select", "ended": "finished", "fast": "quick", "wrong": "incorrect", "use": "utilize",
    "price": "cost", "store": "shop", "job": "occupation", "kind": "type", "built": "constructed",
    "need": "require", "called": "named", "various": "different", "quickly": "rapidly", "almost": "nearly",
    "great": "excellent", "nice": "pleasant", "staff": "employees", "must": "have to", "quiet": "calm",
    "husband": "spouse", "stayed": "lodged", "released": "published", "supported": "maintained",
    "until": "till", "received": "obtained", "get": "obtain", "happy": "pleased", "room": "chamber",
    "country": "nation", "died": "passed away", "area": "region", "wi-fi": "internet", "dirty": "unclean",
}  # fmt: skip


def synonym_of_a_table(sentence: str, passage: Passage, rng: Random) -> str | None:
    return replaced(sentence, _SYNONYMS, rng)


def synonym_of_another_table(sentence: str, passage: Passage, rng: Random) -> str | None:
    return replaced(sentence, _SYNONYMS_R, rng)


def number_in_words(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.search(r"(?<![\w.,$£€/:-])([2-9]|1\d|20) (?=[a-z]{3})", sentence)
    if not match or re.search(r"\d", sentence[match.end() : match.end() + 3]):
        return None
    return f"{sentence[: match.start()]}{SMALL[int(match[1])]} {sentence[match.end() :]}"


def number_in_digits(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.search(
        rf"(?<![-\w])({'|'.join(SMALL[2:])}) (?=[a-z]{{3}})(?!hundred|thousand|million|billion)", sentence
    )
    return f"{sentence[: match.start()]}{SMALL.index(match[1])} {sentence[match.end() :]}" if match else None


_PASSIVE = re.compile(
    r"^([A-Z][^,;]{3,60}?) (?:was|were) (\w+ed) by ((?:the |a )?[A-Z][\w ]{2,40}?)((?: in \d{4})?)\.$"
)


def active_voice(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = _PASSIVE.match(sentence)
    return (
        f"{upper_first(match[3])} {match[2]} {lower_first(match[1], passage)}{match[4]}." if match else None
    )


def active_part(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.match(
        r"([A-Z][\w ]{3,50}?) (?:was|were|is|are) (\w+ed) by ((?:the |a |an )?[\w ]{3,40}?)([.,;]| (?:in|on|at|and|for) )",
        sentence,
    )
    return f"{upper_first(match[3])} {match[2]} {lower_first(match[1], passage)}." if match else None


def cleft_sentence(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.match(
        r"([A-Z][\w ]{3,50}?) (was|were|is|are) (\w+ed) by ((?:the |a |an )?[\w ]{3,40}?)([.,;]| (?:in|on|at|and|for) )",
        sentence,
    )
    return (
        f"It {match[2].replace('were', 'was').replace('are', 'is')} {match[4]} that {match[3]} "
        f"{lower_first(match[1], passage)}."
        if match
        else None
    )


def bracket_left_out(sentence: str, passage: Passage, rng: Random) -> str | None:
    text = re.sub(r" \([^)]*\)", "", sentence)
    return text if text != sentence and len(text.split()) > 4 else None


def adverb_left_out(sentence: str, passage: Passage, rng: Random) -> str | None:
    text = re.sub(
        r" (?!only|early|family|nearly|partly|daily|weekly|hardly|rarely|barely|monthly|apply|"
        r"supply|reply|assembly|"
        r"friendly|likely|unlikely|Italy|July|allegedly|supposedly)[a-z]+ly(?= [a-z])",
        "",
        sentence,
        count=1,
    )
    return text if text != sentence else None


def relative_clause_left_out(sentence: str, passage: Passage, rng: Random) -> str | None:
    text = re.sub(r", (?:which|who|where|whose) [^,]+,(?= )", "", sentence, count=1)
    return text if text != sentence else None


def last_clause_left_out(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.match(
        r"(.{25,}?)(?:, and| and|, while|;|, but) (?:the|it|they|he|she|there|we|you|is|was|are|were|has|had) ",
        sentence,
    )
    return (
        f"{match[1].rstrip(',')}."
        if match and len(match[1].split()) > 5 and not re.search(r"\b(both|between|either)\b", match[1])
        else None
    )


def _antecedent(sentence: str, passage: Passage, pronouns: str) -> tuple[str, str] | None:
    """Return the name that begins the sentence before, and this sentence without its pronoun."""
    own = re.match(rf"({pronouns}) (.+)", sentence)
    all_sentences = passage.sentences
    at = all_sentences.index(sentence) if sentence in all_sentences else 0
    if not own or not at or f"{all_sentences[at - 1]} {sentence}" not in passage.text:
        return None
    before = re.match(
        r"((?:The |A |An )?(?:[A-Z][\w'-]+ ){1,3})(?:is|was|has|had|are|were|[a-z]+ed|[a-z]+s) ",
        all_sentences[at - 1],
    )
    if not before or before[1].split()[0] in (
        "It",
        "He",
        "She",
        "They",
        "This",
        "In",
        "There",
        "However",
        "These",
        "If",
    ):
        return None
    return before[1].strip(), own[2]


def name_for_pronoun(sentence: str, passage: Passage, rng: Random) -> str | None:
    parts = _antecedent(sentence, passage, "It|He|She")
    return f"{parts[0]} {parts[1]}" if parts else None


def name_for_possessive(sentence: str, passage: Passage, rng: Random) -> str | None:
    parts = _antecedent(sentence, passage, "Its|His|Her|Their")
    if parts:
        return f"{parts[0]}'s {parts[1]}"
    parts = _antecedent(sentence, passage, "They|He")
    return f"{parts[0]} {parts[1]}" if parts else None


def unit_abbreviated(sentence: str, passage: Passage, rng: Random) -> str | None:
    table = {
        "kilometres": "km",
        "kilometers": "km",
        " percent": "%",
        "hours": "h",
        "minutes": "min",
        "pounds": "lb",
    }
    table |= {
        "hour": "h",
        "minute": "min",
        "miles": "mi",
        "inches": "in",
        "feet": "ft",
        "seconds": "s",
        "meters": "m",
    }
    match = re.search(rf"(?<=\d) ?({'|'.join(table)})\b", sentence)
    return sentence[: match.start(1)] + table[match[1]] + sentence[match.end(1) :] if match else None


def unit_spelt_out(sentence: str, passage: Passage, rng: Random) -> str | None:
    table = {
        "km": "kilometres",
        "%": " percent",
        "mph": "miles per hour",
        "mi": "miles",
        "m": "metres",
        "GB": "gigabytes",
    }
    table |= {
        "ft": "feet",
        "kg": "kilograms",
        "min": "minutes",
        "MB": "megabytes",
        "lb": "pounds",
        "cm": "centimetres",
    }
    match = re.search(rf"(?<=\d) ?({'|'.join(table)})(?![\w])", sentence)
    return (
        f"{sentence[: match.start(1)].rstrip()} {table[match[1]].strip()}{sentence[match.end(1) :]}"
        if match
        else None
    )


def time_in_24_hours(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.search(r"\b(\d{1,2}):(\d\d) ?([apAP])\.?[mM]\b\.?", sentence)
    if not match or re.search(r"\d ?- ?\d|\bto\b", sentence):
        return None
    hour = int(match[1]) % 12 + 12 * (match[3].lower() == "p")
    return f"{sentence[: match.start()]}{hour:02d}:{match[2]}{sentence[match.end() :]}".rstrip(".") + "."


def date_in_another_form(sentence: str, passage: Passage, rng: Random) -> str | None:
    month = "|".join(MONTHS)
    if match := re.search(rf"\b(\d{{1,2}}) ({month}) (\d{{4}})\b", sentence):
        new = f"{match[2]} {match[1]}, {match[3]}"
    elif match := re.search(rf"\b({month}) (\d{{1,2}}), (\d{{4}})\b", sentence):
        new = f"{match[2]} {match[1]} {match[3]}"
    elif match := re.search(r"\b(20\d\d)-(\d\d)-(\d\d)\b", sentence):
        new = f"{int(match[3])} {MONTHS[int(match[2]) - 1]} {match[1]}"
    else:
        return None
    return sentence[: match.start()] + new + sentence[match.end() :]


def dollars_spelt_out(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.search(r"\$(\d[\d,]*)(?![\d.,]*\d| (?:million|billion))", sentence)
    return f"{sentence[: match.start()]}{match[1]} dollars{sentence[match.end() :]}" if match else None


def with_a_leading_phrase(sentence: str, passage: Passage, rng: Random) -> str | None:
    lead = rng.choice(["According to the document, ", "As stated, ", "Yes, "])
    if re.match(r"(Yes|No)\b", sentence):
        return None
    return lead + lower_first(sentence, passage)


def with_another_leading_phrase(sentence: str, passage: Passage, rng: Random) -> str | None:
    if re.match(r"(Yes|No)\b", sentence):
        return None
    lead = rng.choice(["The text says that ", "Please note that ", "Sure, ", "Based on the passage, "])
    return lead + lower_first(sentence, passage)


RESTATED: dict[str, tuple[tuple[Template, ...], tuple[Template, ...]]] = {
    "other order": ((adverbial_to_the_end, clauses_exchanged), (adverbial_clause_first, date_first)),
    "synonym": ((synonym_of_a_table,), (synonym_of_another_table,)),
    "number in words or digits": ((number_in_words,), (number_in_digits,)),
    "active for passive": ((active_voice, active_part), (cleft_sentence,)),
    "modifier left out": (
        (bracket_left_out, adverb_left_out),
        (relative_clause_left_out, last_clause_left_out),
    ),
    "noun for pronoun": ((name_for_pronoun,), (name_for_possessive,)),
    "unit or date in another form": (
        (unit_abbreviated, time_in_24_hours),
        (unit_spelt_out, date_in_another_form, dollars_spelt_out),
    ),
    "leading phrase": ((with_a_leading_phrase,), (with_another_leading_phrase,)),
}
"""Templates of each kind: those of the dev half, those of the report half."""
