"""Templates that make a false statement of a true sentence, eight kinds, in two halves."""

from __future__ import annotations

import re
from random import Random

from benchmarks.citation_support.edits import (
    DAYS,
    MONTHS,
    NAME,
    SMALL,
    Template,
    both_ways,
    lower_first,
    plain_numbers,
    replaced,
    same_number,
    subject_of,
)
from benchmarks.citation_support.passages import Passage


def _others(sentence: str, passage: Passage) -> str:
    return " ".join(other for other in passage.sentences if other != sentence)


def number_of_another_sentence(sentence: str, passage: Passage, rng: Random) -> str | None:
    own = plain_numbers(sentence)
    new = [n for n in plain_numbers(_others(sentence, passage)) if not any(same_number(n, o) for o in own)]
    if not own or not new:
        return None
    return _put(sentence, rng.choice(own), rng.choice(new))


def numbers_exchanged(sentence: str, passage: Passage, rng: Random) -> str | None:
    own = list(dict.fromkeys(plain_numbers(sentence)))
    if len(own) < 2 or same_number(own[0], own[1]):
        return None
    first, second = own[:2]
    return _put(_put(_put(sentence, first, "\0"), second, first), "\0", second)


def number_with_the_same_unit(sentence: str, passage: Passage, rng: Random) -> str | None:
    counted = re.compile(r"(?<![\w.,$])(\d+) ([a-z]{3,})")
    other = {unit: n for n, unit in counted.findall(_others(sentence, passage))}
    for number, unit in counted.findall(sentence):
        if unit in other and other[unit] != number:
            return _put(sentence, number, other[unit])
    return None


def spelt_number_of_another_sentence(sentence: str, passage: Passage, rng: Random) -> str | None:
    own = plain_numbers(sentence)
    new = [n for n in plain_numbers(_others(sentence, passage)) if n.isdigit() and 1 < int(n) <= 20]
    new = [n for n in new if n not in own]
    return _put(sentence, rng.choice(own), SMALL[int(rng.choice(new))]) if own and new else None


def number_of_the_other_clause(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.match(r"(.+?)(?:, and|, but|, while|;) (.+)\.$", sentence)
    if not match or len(match[1].split()) < 4:
        return None
    first, second = plain_numbers(match[1]), plain_numbers(match[2])
    if len(first) != 1 or not second or same_number(first[0], second[0]):
        return None
    return _put(match[1], first[0], second[0]) + "."


def _put(sentence: str, old: str, new: str) -> str:
    return re.sub(rf"(?<![\w.,]){re.escape(old)}(?![\w]|[.,]\d)", new, sentence, count=1)


_UNITS = both_ways(
    {
        "hours": "days",
        "hour": "day",
        "minutes": "hours",
        "years": "months",
        "km": "miles",
        "kilometres": "miles",
        "dollars": "euros",
        "yards": "feet",
        "weeks": "days",
        "grams": "ounces",
        "MB": "GB",
    }
) | {"hours": "days", "minutes": "hours", "days": "hours", "miles": "km", "percent": "dollars"}
_UNITS_R = both_ways(
    {
        "seconds": "minutes",
        "feet": "metres",
        "pounds": "kilograms",
        "million": "billion",
        "thousand": "million",
        "inches": "centimetres",
        "acres": "hectares",
        "day": "week",
        "month": "year",
        "cents": "dollars",
    }
) | {
    "days": "weeks",
    "months": "weeks",
    "years": "decades",
    "hours": "minutes",
    "minutes": "seconds",
    "m": "ft",
}


def unit_of_a_table(sentence: str, passage: Passage, rng: Random) -> str | None:
    return _unit(sentence, _UNITS)


def unit_of_another_table(sentence: str, passage: Passage, rng: Random) -> str | None:
    return _unit(sentence, _UNITS_R)


def _unit(sentence: str, table: dict[str, str]) -> str | None:
    units = "|".join(table)
    match = re.search(rf"(\b(?:\d[\d,.]*|{'|'.join(SMALL[1:])})[ -])({units})\b", sentence)
    return sentence[: match.start(2)] + table[match[2]] + sentence[match.end(2) :] if match else None


def percent_for_a_count(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.search(r"(\d[\d.]*)%", sentence)
    return sentence[: match.end() - 1] + " euros" + sentence[match.end() :] if match else None


def other_currency(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.search(r"([$£€])(?=\d)", sentence)
    return (
        sentence[: match.start()] + {"$": "€", "£": "$", "€": "£"}[match[1]] + sentence[match.end() :]
        if match
        else None
    )


_COMPARATORS = both_ways(
    {"at least": "at most", "more than": "less than", "before": "after", "minimum": "maximum"}
) | {"over": "under"}
_COMPARATORS_R = {
    "up to": "at least",
    "no more than": "no less than",
    "fewer than": "more than",
    "more than": "fewer than",
    "until": "from",
    "since": "until",
    "above": "below",
    "below": "above",
    "within": "after",
    "earlier": "later",
    "later": "earlier",
    "maximum": "minimum",
    "or more": "or less",
    "higher than": "lower than",
    "at least": "up to",
    "less than": "more than",
    "greater than": "less than",
    "prior to": "after",
    "only after": "only before",
    "from": "until",
}


def comparator_of_a_table(sentence: str, passage: Passage, rng: Random) -> str | None:
    return replaced(sentence, _COMPARATORS, rng)


def comparator_before_a_number(sentence: str, passage: Passage, rng: Random) -> str | None:
    table = {
        "at least": "fewer than",
        "more than": "at most",
        "less than": "over",
        "over": "at most",
        "under": "over",
    }
    match = re.search(rf"\b({'|'.join(table)}) (?=[$£€]?\d)", sentence, re.I)
    return re.sub(match[1], table[match[1].lower()], sentence, count=1) if match else None


def comparator_of_another_table(sentence: str, passage: Passage, rng: Random) -> str | None:
    table = {k: v for k, v in _COMPARATORS_R.items() if k not in ("from", "since", "within")}
    number = re.search(r"\b(from|since|within) (?=\d|noon|midnight)", sentence)
    if number and not re.search(r"\bto\b|until|-|–", sentence[number.end() : number.end() + 25]):
        return sentence[: number.start(1)] + _COMPARATORS_R[number[1]] + sentence[number.end(1) :]
    return replaced(sentence, table, rng)


def comparator_put_in(sentence: str, passage: Passage, rng: Random) -> str | None:
    plain = re.search(r"\b(?:has|had|is|of) (?=\d+ [a-z]{3})", sentence)
    if not plain or re.search(r"than|least|most|up to|about", sentence):
        return None
    return sentence[: plain.end()] + rng.choice(["more than ", "at most "]) + sentence[plain.end() :]


def name_of_the_passage(sentence: str, passage: Passage, rng: Random) -> str | None:
    return _name(sentence, NAME.findall(_others(sentence, passage)), rng)


def name_of_a_passage_beside(sentence: str, passage: Passage, rng: Random) -> str | None:
    return _name(sentence, [name for _, text in passage.beside for name in NAME.findall(text)], rng)


def _name(sentence: str, names: list[str], rng: Random) -> str | None:
    own = [n for n in NAME.findall(sentence) if n not in (*MONTHS, *DAYS)]
    present = {word for name in NAME.findall(sentence) for word in name.split()} | set(sentence.split())
    new = [n for n in names if n not in (*MONTHS, *DAYS) and not present & set(n.split())]
    if not own or not new:
        return None
    old = rng.choice(own)
    return sentence.replace(old, rng.choice(new), 1)


def first_name_changed(sentence: str, passage: Passage, rng: Random) -> str | None:
    full = [n for n in NAME.findall(sentence) if " " in n and n.split()[0] not in (*MONTHS, *DAYS)]
    if not full:
        return None
    old = rng.choice(full)
    return sentence.replace(
        old, " ".join([rng.choice(["Henrik", "Paula", "Northern", "Ines"]), *old.split()[1:]]), 1
    )


def invented_name(sentence: str, passage: Passage, rng: Random) -> str | None:
    return _name(
        sentence, ["Marlena Voss", "Tobias Keller", "Lisbon", "Kestrel Bay", "Halvorsen", "Adelaide"], rng
    )


def names_exchanged(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.search(
        r"\b([A-Z][a-zé]{2,}(?: [A-Z][a-zé]{2,})*) ((?:[a-z]+ )?(?:[a-z]+ed|beat|won|wrote|led|took|made|gave|built|"
        r"sold|taught|met|told|brought|became)(?: [a-z]+)?) ([A-Z][a-zé]{2,}(?: [A-Z][a-zé]{2,})*)",
        sentence,
    )
    if not match or match[1] in (*MONTHS, *DAYS) or match[3] in (*MONTHS, *DAYS) or " by" in match[2]:
        return None
    if match[1].lower() in ("the", "they", "she", "however", "this") or re.search(
        r" (in|on|at|and)$", match[2]
    ):
        return None
    return f"{sentence[: match.start()]}{match[3]} {match[2]} {match[1]}{sentence[match.end() :]}"


_ANTONYMS = both_ways(
    {
        "open": "closed",
        "large": "small",
        "high": "low",
        "first": "last",
        "early": "late",
        "increase": "decrease",
        "increased": "decreased",
        "allowed": "forbidden",
        "free": "paid",
        "possible": "impossible",
        "safe": "unsafe",
        "public": "private",
        "won": "lost",
        "success": "failure",
        "inside": "outside",
        "always": "never",
        "same": "different",
        "north": "south",
        "available": "unavailable",
        "near": "far from",
        "cheap": "expensive",
        "buy": "sell",
        "begins": "ends",
        "old": "new",
        "long": "short",
        "best": "worst",
        "easy": "hard",
        "positive": "negative",
        "accept": "reject",
        "require": "prohibit",
    }
)
_ANTONYMS_R = both_ways(
    {
        "clean": "dirty",
        "strong": "weak",
        "quiet": "noisy",
        "friendly": "unfriendly",
        "fast": "slow",
        "good": "bad",
        "great": "terrible",
        "hot": "cold",
        "top": "bottom",
        "rich": "poor",
        "male": "female",
        "win": "lose",
        "arrive": "depart",
        "remove": "add",
        "enable": "disable",
        "enabled": "disabled",
        "legal": "illegal",
        "married": "unmarried",
        "young": "old",
        "western": "eastern",
        "major": "minor",
        "upper": "lower",
        "internal": "external",
        "modern": "ancient",
        "common": "rare",
        "thick": "thin",
        "light": "heavy",
        "spacious": "cramped",
        "comfortable": "uncomfortable",
        "most": "least",
        "majority": "minority",
        "active": "inactive",
        "stable": "unstable",
        "supported": "unsupported",
        "convenient": "inconvenient",
        "disappointed": "pleased",
        "love": "hate",
        "loved": "hated",
        "present": "absent",
        "death": "birth",
        "died": "was born",
        "front": "back",
        "left": "right",
        "dry": "wet",
        "deep": "shallow",
        "wide": "narrow",
        "maximum": "minimum",
        "include": "exclude",
        "includes": "excludes",
        "friend": "enemy",
    }
)


def antonym_of_a_table(sentence: str, passage: Passage, rng: Random) -> str | None:
    return replaced(sentence, _ANTONYMS, rng)


def antonym_of_another_table(sentence: str, passage: Passage, rng: Random) -> str | None:
    return replaced(sentence, _ANTONYMS_R, rng)


def antonym_in_a_clause(sentence: str, passage: Passage, rng: Random) -> str | None:
    new = replaced(sentence.split(", ")[0], _ANTONYMS, rng)
    return f"{new.rstrip('.')}." if new and len(new.split()) > 4 else None


def antonym_in_another_clause(sentence: str, passage: Passage, rng: Random) -> str | None:
    new = replaced(re.split(r", | and ", sentence)[0], _ANTONYMS_R, rng)
    return f"{new.rstrip('.')}." if new and len(new.split()) > 4 else None


def not_put_in(sentence: str, passage: Passage, rng: Random) -> str | None:
    if re.search(r"\bnot?\b|n't\b|never|without|neither", sentence):
        return None
    match = re.search(r"\b(is|are|was|were|can|could|will|would|must|should) (?!not)", sentence)
    return sentence[: match.end()] + "not " + sentence[match.end() :] if match else None


def not_taken_out(sentence: str, passage: Passage, rng: Random) -> str | None:
    if len(re.findall(r"\bnot\b", sentence)) != 1 or re.search(
        r"not only|whether or not|if not|n't", sentence
    ):
        return None
    return sentence.replace("cannot", "can").replace(" not ", " ", 1)


def never_put_in(sentence: str, passage: Passage, rng: Random) -> str | None:
    if re.search(r"\bnot?\b|n't\b|never|without|neither", sentence):
        return None
    match = re.search(r"\b(has|have|had|is|are|was|were|will|can) (?=[a-z]+)", sentence)
    word = rng.choice(["never ", "no longer "])
    return sentence[: match.end()] + word + sentence[match.end() :] if match else None


def contracted_not(sentence: str, passage: Passage, rng: Random) -> str | None:
    if re.search(r"\bnot?\b|n't\b|never|without|neither", sentence):
        return None
    match = re.search(r"\b(is|are|was|were|could|would|does|did|has|have)\b(?= )", sentence)
    return f"{sentence[: match.end()]}n't{sentence[match.end() :]}" if match else None


def without_and_no(sentence: str, passage: Passage, rng: Random) -> str | None:
    table = {"without": "with", "There is no": "There is a", "there is no": "there is a", "has no": "has a"}
    table |= {
        "No ": "Some ",
        "are no": "are some",
        "did not have": "had",
        "does not have": "has",
        "do not": "do",
    }
    return replaced(sentence, table, rng)


def year_or_weekday_changed(sentence: str, passage: Passage, rng: Random) -> str | None:
    years = re.findall(r"\b(?:1[5-9]|20)\d\d\b", sentence)
    others = [y for y in re.findall(r"\b(?:1[5-9]|20)\d\d\b", _others(sentence, passage)) if y not in years]
    if years and others:
        return sentence.replace(rng.choice(years), rng.choice(others), 1)
    for names in (DAYS, MONTHS):
        own = [name for name in names if re.search(rf"\b{name}s?\b", sentence) and name != "May"]
        if own:
            return sentence.replace(own[0], rng.choice([n for n in names if n not in sentence]), 1)
    return None


def half_of_the_day(sentence: str, passage: Passage, rng: Random) -> str | None:
    swap = {"a": "p", "p": "a", "A": "P", "P": "A"}
    match = re.search(r"(?<=\d)( ?)([apAP])(\.?[mM]\b)", sentence)
    return sentence[: match.start(2)] + swap[match[2]] + sentence[match.end(2) :] if match else None


def order_of_first_and_then(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.match(r"(.+?),? (before|after) ([a-z ]*ing .+)\.$", sentence)
    other = {"before": "after", "after": "before"}
    return f"{match[1]} {other[match[2]]} {match[3]}." if match else None


def years_exchanged(sentence: str, passage: Passage, rng: Random) -> str | None:
    years = list(dict.fromkeys(re.findall(r"\b(?:1[5-9]|20)\d\d\b", sentence)))
    if len(years) < 2:
        return None
    return sentence.replace(years[0], "\0", 1).replace(years[1], years[0], 1).replace("\0", years[1], 1)


def ordinal_or_season(sentence: str, passage: Passage, rng: Random) -> str | None:
    table = both_ways({"second": "third", "morning": "evening", "summer": "winter", "spring": "autumn"})
    table |= {
        "18th": "17th",
        "19th": "18th",
        "20th": "19th",
        "16th": "15th",
        "afternoon": "morning",
        "night": "morning",
    }
    table |= {
        "today": "tomorrow",
        "daily": "weekly",
        "annually": "monthly",
        "weekends": "weekdays",
        "fifth": "fourth",
    }
    table |= {"breakfast": "dinner", "every year": "every month", "monthly": "annual"}
    return replaced(sentence, table, rng)


def day_of_a_date(sentence: str, passage: Passage, rng: Random) -> str | None:
    month = "|".join(MONTHS)
    match = re.search(
        rf"\b(\d{{1,2}}) (?:{month})\b|\b(?:{month}) (\d{{1,2}})\b|\b20\d\d-\d\d-(\d\d)\b", sentence
    )
    if not match:
        return None
    at = match.span(match.lastindex or 1)
    old = int(sentence[at[0] : at[1]])
    return f"{sentence[: at[0]]}{(old + rng.randint(1, 9)) % 27 + 1:02d}{sentence[at[1] :]}"


def hour_moved(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.search(r"\b(\d{1,2}):(\d\d)", sentence)
    if not match:
        return None
    return f"{sentence[: match.start()]}{(int(match[1]) + rng.randint(1, 4)) % 12 + 1}:{match[2]}{sentence[match.end() :]}"


def sides_of_before_exchanged(sentence: str, passage: Passage, rng: Random) -> str | None:
    match = re.match(
        r"([A-Z][\w ]{8,60}?),? (before|after|until) ((?:the|a|an|his|her|its) [\w ]{6,60})\.$", sentence
    )
    if not match:
        return None
    return f"{match[3][0].upper()}{match[3][1:]} {match[2]} {lower_first(match[1], passage)}."


def _pairs(
    sentence: str, passage: Passage, rng: Random
) -> tuple[tuple[str, str, str], tuple[str, str, str]] | None:
    """Return the parts of this sentence and of another one about something else with the same auxiliary."""
    own = subject_of(sentence)
    if not own:
        return None
    words = set(re.findall(r"[a-z]{3,}", own[0].lower()))
    others = [
        parts
        for other in passage.sentences
        if other != sentence
        and (parts := subject_of(other))
        and parts[1] == own[1]
        and not words & set(re.findall(r"[a-z]{3,}", other.lower()))
    ]
    return (own, rng.choice(others)) if others else None


def subject_of_another_sentence(sentence: str, passage: Passage, rng: Random) -> str | None:
    pair = _pairs(sentence, passage, rng)
    return f"{pair[0][0]} {pair[1][1]} {pair[1][2]}." if pair else None


def second_predicate(sentence: str, passage: Passage, rng: Random) -> str | None:
    pair = _pairs(sentence, passage, rng)
    if not pair or len(pair[0][2].split()) > 12:
        return None
    return f"{pair[0][0]} {pair[0][1]} {pair[0][2]} and {pair[1][1]} {pair[1][2]}."


def predicate_of_a_clause(sentence: str, passage: Passage, rng: Random) -> str | None:
    pair = _pairs(sentence, passage, rng)
    if not pair:
        return None
    rest = re.split(r"[,;]| and ", pair[1][2])[0]
    return f"{pair[0][0]} {pair[1][1]} {rest}." if len(rest.split()) >= 3 else None


def relative_clause_of_another(sentence: str, passage: Passage, rng: Random) -> str | None:
    pair = _pairs(sentence, passage, rng)
    rest = pair and re.split(r"[,;]", pair[1][2])[0]
    return f"{pair[0][0]}, which {pair[1][1]} {rest}, {pair[0][1]} {pair[0][2]}." if pair else None


ALTERED: dict[str, tuple[tuple[Template, ...], tuple[Template, ...]]] = {
    "number of another subject": (
        (number_of_another_sentence, numbers_exchanged),
        (number_with_the_same_unit, spelt_number_of_another_sentence, number_of_the_other_clause),
    ),
    "unit": ((unit_of_a_table, percent_for_a_count), (unit_of_another_table, other_currency)),
    "comparator": (
        (comparator_of_a_table, comparator_before_a_number),
        (comparator_of_another_table, comparator_put_in),
    ),
    "name": (
        (name_of_the_passage, name_of_a_passage_beside),
        (first_name_changed, invented_name, names_exchanged),
    ),
    "opposite": (
        (antonym_of_a_table, antonym_in_a_clause),
        (antonym_of_another_table, antonym_in_another_clause),
    ),
    "negation": (
        (not_put_in, not_taken_out),
        (never_put_in, contracted_not, without_and_no),
    ),
    "date, time or order": (
        (year_or_weekday_changed, half_of_the_day, order_of_first_and_then),
        (years_exchanged, ordinal_or_season, day_of_a_date, hour_moved, sides_of_before_exchanged),
    ),
    "joined clauses": (
        (subject_of_another_sentence, second_predicate),
        (predicate_of_a_clause, relative_clause_of_another),
    ),
}
"""Templates of each kind: those of the dev half, those of the report half."""
