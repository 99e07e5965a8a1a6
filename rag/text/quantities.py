"""The quantities of a text: each number, amount, time and date, as citations, right answers and conflicts compare them.

:func:`read_quantities` returns them. A :class:`Quantity` has its value and unit, how it is bounded ("at least 3 days" is 3,
days, from below), what it is per, and whether a change ends at it ("to 5") or is as large ("by 5"). :func:`agree` says
whether one bears out another: the same amount, also in another unit, in the same sense.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise

from rag.text.dates import Date, dates_within, find_dates
from rag.text.numbers import find_numbers
from rag.text.units import MONEY, PERIODS, PHRASES, UNITS, dimension_of, size_of
from rag.text.words import STOP_WORDS, stem

UP, MORE, DOWN, LESS = "at least", "more than", "at most", "less than"
OF = "of"
"""The bound of one case among several: "a child of ten", "a group of 20"."""
ABOUT, NEARLY, EXACTLY, STARTS, ENDS, TO, BY, FROM = (
    "about",
    "nearly",
    "exactly",
    "from",
    "until",
    "to",
    "by",
    "from",
)
"""How a quantity is bounded; STARTS and ENDS are of times, dates and ranges. TO, BY and FROM say what it is in a change."""
_GREATER = r"(?:more|greater|higher|longer|larger|bigger|older|later|taller|heavier|further|wider|faster|better|over) than"
_FEWER = r"(?:less|fewer|lower|shorter|smaller|younger|earlier|lighter|narrower|slower|cheaper) than"
_PREFIXES = tuple(
    (
        bound,
        re.compile(
            rf"(?:^|[^\w-])(?:{pattern})(?:\s+(?:a|an|the|of|about|zu[mr]|de[mnr]|age|at))*(?:\s+(?:first|last|next))?\s*[$£€¥(]?\s*$",
            re.I,
        ),
    )
    for bound, pattern in (
        (DOWN, rf"(?:no|not|never)(?: \w+)? {_GREATER}|no later than|not exceed(?:ing)?|not over"),
        (UP, rf"(?:no|not|never)(?: \w+)? {_FEWER}|no earlier than|not under|not before"),
        (EXACTLY, r"exactly|precisely|just(?= )(?! (?:over|under))|genau|exactamente"),
        (NEARLY, r"nearly|almost|close to|just (?:under|below|short of)|fast|knapp|casi|not quite"),
        (
            ABOUT,
            r"on average(?: within| about| around| some)?|an average of|about|approximately|approx\.?|roughly|around|circa|ca?\.|some|an estimated|estimated at|etwa|ungefähr|rund"
            r"|unos|unas|alrededor de|aproximadamente|~|≈",
        ),
        (
            UP,
            r"at (?:the very )?least|upwards? of|min\.?|(?:a )?minimum(?: \w+)?(?: of| is)?|not below|al menos"
            r"|como mínimo|mínimo(?: de)?|mindestens",
        ),
        (
            MORE,
            rf"{_GREATER}|(?:just |well )?over|above|exceed(?:s|ed|ing)?|beyond|in excess of|más de|mehr als|über",
        ),
        (
            DOWN,
            r"at (?:the very )?most|up to|as (?:many|much|late) as|within|max\.?|limited to|(?:only )?up to"
            r"|(?:a )?maximum(?: \w+)?(?: of| is)?|como máximo|hasta|máximo(?: de)?|höchstens|maximal|bis zu",
        ),
        (LESS, rf"{_FEWER}|under|below|menos de|weniger als|unter"),
        (
            ENDS,
            r"before|until|till|prior to|by|through|to|antes de(?:l)?|vor|bis|spätestens(?: um)?|jusqu['’]à|avant",
        ),
        (
            STARTS,
            r"frühestens(?: um)?|dès|après|au moins|after|from|since|starting(?: at| on| from)?|beginning(?: at| on)?|as of|following|después de(?:l)?|desde"
            r"|nach|seit|ab|ab dem",
        ),
    )
)
_HIGHER = r"(?:more|over|older|above|later|up|longer|higher)\b(?! than)"
_LOWER = r"(?:less|fewer|under|younger|below|earlier|shorter|lower)\b(?! than)"
_SUFFIXES = (
    (UP, re.compile(r"\s*(?:\w+ )?(?:ahead|before|in advance) or earlier\b", re.I)),
    (UP, re.compile(rf"\s*(?:\+|(?:\w+ ){{0,2}}?(?:or|and) {_HIGHER}|(?:\w+ )?(?:at least|minimum)\b)", re.I)),
    (
        DOWN,
        re.compile(rf"\s*(?:(?:\w+ ){{0,2}}?(?:or|and) {_LOWER}|(?:\w+ )?(?:at most|maximum|max)\b)", re.I),
    ),
    (ABOUT, re.compile(r"\s*(?:\w+ )?(?:or so|approximately|or thereabouts|on average)\b", re.I)),
)
_BETWEEN = re.compile(r"\b(?:between|zwischen|entre)\s*[$£€¥]?\s*$", re.I)
_TO_BETWEEN = re.compile(r"\s*(?:-|–|—|to|until|till|bis|a|hasta)\s*[$£€¥]?\s*", re.I)
_AND = re.compile(r"\s*(?:and|und|y)\s*[$£€¥]?\s*", re.I)
_WORD_AFTER = re.compile(
    r"\s*-?\s*(?:(?:more|additional|extra|further|full|whole|consecutive|working|business|calendar|long|short|US) )?"
    r"([^\W\d_][\w'’/²³]*|[%°″¢€$£](?:[CF]\b)?)"
)
_PHRASE_AFTER = re.compile(
    r"\s*-?\s*(" + "|".join(sorted(map(re.escape, PHRASES), key=len, reverse=True)) + r")s?\b", re.I
)
_CURRENCY = re.compile(r"([$£€¥₹]|\b(?:USD|EUR|GBP|JPY|CHF))\s*$")
_SMALL_UNITS = frozenset(("s", "h", "d", "m", "g", "l", "b", "t", "v", "w", "p", "in", "min"))
"""Abbreviations that are also words or letters: units only right after digits."""
_NOT_COUNTED = frozenset(
    "last next ago later earlier old high wide deep long tall thick away each daily weekly monthly yearly extra fewer less"
    " compared respectively altogether total within".split()
)
_PER = re.compile(
    r"\s*(?:(?:each|in total) )?(?:/\s*|(?:(?:for|in|on) )?(?:per|each|every|a|an|pro|por|je)\s+)(?P<of>[^\W\d_]+)"
    r"|\s*(?P<ly>daily|hourly|weekly|monthly|yearly|annually|nightly)\b|\s*(?P<head>each|apiece|a head)\b",
    re.I,
)
_NO_PER = frozenset(
    "one two three four five six seven eight nine ten eleven twelve twenty thirty hundred thousand total minimum maximum few"
    " half quarter further year's day's".split()
)
_PER_BEFORE = re.compile(
    r"\b(daily|hourly|weekly|monthly|yearly|annual|nightly)\s+(?:[a-z]+\s+){1,2}?(?:of|is|was|are)\s+[$£€]?$", re.I
)
_AND_PER = re.compile(r"\s+and\s+(?P<of>[^\W\d_]+)", re.I)
_PER_WORDS = {
    "daily": "day",
    "hourly": "hour",
    "weekly": "week",
    "monthly": "month",
    "yearly": "year",
    "annually": "year",
    "annum": "year",
    "annual": "year",
    "nightly": "night",
}
_RISE = (
    r"(?:r[io]se|risen|rising|rises|grow[ns]?|grew|growing|increas(?:e[sd]?|ing)|climb(?:s|ed)?|gain(?:s|ed)?|rais(?:e[sd]?|ing)"
    r"|went up|goes up|gone up|jump(?:s|ed)?|improv(?:e[sd]?|ing)|exten(?:d(?:s|ed)?)|enlarg(?:e[sd]?|ing)|expand(?:s|ed)?|went"
    r"|climbed|reached)"
)
_FALL = (
    r"(?:f[ae]lls?|fallen|falling|dropp?(?:s|ed|ing)?|declin(?:e[sd]?|ing)|decreas(?:e[sd]?|ing)|shr[aiu]nk|reduc(?:e[sd]?|ing)"
    r"|cut(?:s|ting)?|lower(?:s|ed)?|went down|goes down|gone down|lost|loses?|sank|sunk"
    r"|(?:up|down)(?= (?:by |from )?[$£€]?\d))"
)
_CHANGE = re.compile(rf"\b(?:{_RISE}|{_FALL}|doubled|tripled|halved|change[sd]?)\b", re.I)
_BY_BEFORE = re.compile(rf"(?:\bby|\b(?:rose|rises?|risen|fell|falls?|fallen|grew|grows?|grown|increased|decreased|dropped|declined|shrank|sank|up|down)|\b(?:rise|fall|drop|increase|decrease|growth|reduction|cut|decline|gain|loss) of)\s*(?:about |around |roughly |nearly |almost |over |some |only |a further |another |more than |just )*[$£€¥]?\s*$", re.I)
_BY_AFTER = re.compile(
    r"\s*(?:(?:more|higher|lower|less|fewer|longer|shorter|cheaper|dearer|cooler|warmer|wider|taller|heavier|lighter)\b"
    r"(?! than [$£€]?\d)|(?:\w+ )?(?:increase|decrease|rise|fall|drop|reduction|growth)\b)",
    re.I,
)
_TO_BEFORE = re.compile(r"\b(?:to|at)\s*(?:about |around |roughly |nearly |almost |over |some |only |just )*[$£€¥]?\s*$", re.I)
_FROM_BEFORE = re.compile(r"\bfrom\s*(?:about |around |roughly |nearly |almost |over |some |only |just )*[$£€¥]?\s*$", re.I)
_BEFORE_YEAR = re.compile(r"\b(?:in|since|during|until|before|after|year|early|late|mid)\s+$", re.I)
_YEAR_BEFORE = re.compile(
    r"[^.;\d]{0,14}?\b(?:the (?:year before|previous year|preceding year|prior year)|a year (?:earlier|before))", re.I
)
_YEAR_AFTER = re.compile(
    r"[^.;\d]{0,14}?\b(?:the (?:year after|following year|next year|subsequent year)|a year later)", re.I
)
_TIME_WORD = re.compile(r"\b(?:after|since|following|before|prior to)\s*[$£€]?\s*(?:only |just )?$", re.I)
_THAN_THE = re.compile(r"\bthan the\s*[$£€]?\s*$", re.I)
_CASE = re.compile(
    r"(?:\b(?:child|boy|girl|person|rider|member|student|pupil|guest|visitor|passenger|group|party|someone|anyone|family) of|\baged) #"
    r"|#-years?-old|# years? old|(?:^|\s)#-person|#-strong",
    re.I,
)
_YEAR = re.compile(r"(?:1\d|20)\d\d")
_FRACTION = re.compile(
    r"\b(?:(?P<n>an?|one|two|three|four)[\s-](?P<part>half|third|quarter|fifth|tenth)s?(?=\s+of\b|\s*[,.;]|\s*$|\s+(?:more|less|fewer))"
    r"|(?P<half>half)(?=\s+(?:of|the|its|his|her|their|our|all)\b))",
    re.I,
)
_PARTS = {"half": Decimal("0.5"), "third": Decimal(1) / 3, "quarter": Decimal("0.25"), "fifth": Decimal("0.2"), "tenth": Decimal("0.1")}
_COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4}
_PART_OF_UNIT = re.compile(
    r"\b(?:(?P<half>half an?)|(?P<quarter>a quarter of an?)|(?P<quarters>three quarters of an?))\s+(?P<unit>[a-z]+)\b"
    r"|\b(?:(?:for|after|in|within|lasting|takes?|took|lasts?|lasted|about|least|most|up to|than|over|under|needs?) )(?P<whole>an?)\s+(?P<long>hour|day|week|fortnight|month|year|minute|decade|century|kilo(?:gram|metre)?|litre|metre|mile)\b(?! (?:ticket|pass|trip|job|care|centre|before|after|ago))"
    r"(?P<and>\s+and\s+a\s+half)?|(?<!of )\bevery (?P<every>hour|week|month|quarter|year)\b",
    re.I,
)
_FREQUENCY = re.compile(r"\b(?P<n>once|twice|thrice)(?=\s+(?:a|an|per|each|every|daily|weekly|monthly|yearly|in)\b)", re.I)
_SPOKEN_TIME = re.compile(
    r"\b(?:(?P<past>half[\s-]past)|(?P<halb>halb)|(?P<after>(?:a )?quarter past|viertel nach)"
    r"|(?P<before>(?:a )?quarter to|viertel vor))\s+(?P<hour>\d{1,2}|[^\W\d]+)\b"
    r"|\b(?P<full>\d{1,2}|[a-z]+) o['’]clock\b",
    re.I,
)
_EVENING = re.compile(r"\s+(?:(?P<pm>in the (?:evening|afternoon)|at night|p\.?m\b)|in the morning|a\.?m\b)", re.I)
_HOURS = {
    word: n
    for words_of_hours in (
        "one two three four five six seven eight nine ten eleven twelve",
        "eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
    )
    for n, word in enumerate(words_of_hours.split(), 1)
} | {"ein": 1}
_POINT_TIME = re.compile(r"(?:[01]?\d|2[0-4])[.][0-5]\d")
_BEFORE_TIME = re.compile(r"(?:\b(?:at|from|until|till|to|by|before|after|between|and|is|closes|opens)|\d\.\d\d\s*[–-])\s*$", re.I)
_LABEL_NOUNS = frozenset(
    (
        "room ward line route hall zone level stage platform gate bus tram train building section chapter article part page"
        " phase step model version berth lane bay table figure exit terminal grade tour plot locker block flat track unit"
        " district region house apartment suite cabin desk counter window court pitch trail path pier dock quay"
        " highway motorway road junction class form type category module lesson unit paragraph clause number no extension"
    ).split()
)
"""Nouns whose number is their name."""
_PEOPLE = frozenset(("people", "men", "women", "children"))
_NO_LABEL = frozenset(
    (
        "monday tuesday wednesday thursday friday saturday sunday january february march april may june july august"
        " september october november december spring summer autumn winter easter christmas chf usd eur gbp about over under"
        " nearly almost around roughly only up"
    ).split()
)
_FREQUENCIES = {"once": "1", "twice": "2", "thrice": "3"}
_JOINED_DURATION = re.compile(r"\s*(?:and|,)?\s*", re.I)
_APPROXIMATE = Decimal("0.06")
"""Share by which an amount may be off one that is said to be about as large."""
_FAR = Decimal("0.34")
"""Share by which an amount may be above one that it is said to be more than."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One number, amount, time or date of a text."""

    value: str
    """As :func:`rag.text.numbers.extract_numbers` returns it; "" for a date."""
    date: Date | None
    unit: str
    """One of the names of :data:`rag.text.units.UNITS`; "" where it has none."""
    bound: str
    """at least, more than, at most, less than, about, nearly, exactly, from, until, or "" for the value itself."""
    change: str = ""
    """to, by or from, where it is a part of a change; else ""."""
    per: frozenset[str] = frozenset()
    """Stems of what it is for each of: "12 euros per person and night"."""
    year: str = ""
    """The year that it belongs to, where the text names several: "4.1 in 2021 and 5.3 in 2022"."""
    counted: str = ""
    """Stem of the word right after it, where that is no unit: "48 berths"."""
    start: int
    end: int
    """Offset after its digits or words."""
    through: int
    """Offset after its unit, where that follows; else ``end``."""

    @property
    def timed(self) -> bool:
        """Whether it is a time of the day, a date or a year."""
        return self.date is not None or ":" in self.value or self.is_year

    @property
    def is_year(self) -> bool:
        """Whether it is a year alone."""
        return not self.unit and not self.counted and _YEAR.fullmatch(self.value) is not None

    @property
    def kind(self) -> str:
        """Return date, time, year, money, share, duration, measure or number."""
        if self.date is not None or ":" in self.value:
            return "date" if self.date is not None else "time"
        if self.is_year:
            return "year"
        if self.unit in MONEY or self.unit == "pounds":
            return "money"
        known = {"ratio": "share", "time": "duration", "months": "duration", "": "number"}
        return known.get(dimension_of(self.unit), "measure")


def read_quantities(text: str) -> tuple[Quantity, ...]:
    """Return the quantities of a text in their order."""
    places: list[tuple[str, Date | None, int, int]] = []
    plain = text
    for date, start, end in find_dates(text):
        places.append(("", date, start, end))
        # an equally long gap, so that the offsets of the other numbers stay
        plain = plain[:start] + " " * (end - start) + plain[end:]
    whole: list[Quantity] = []
    for pattern in (_SPOKEN_TIME, _PART_OF_UNIT, _FRACTION, _FREQUENCY):
        for match in pattern.finditer(plain):
            quantity = _spoken_time(match) if pattern is _SPOKEN_TIME else _fraction(match)
            if quantity is not None:
                whole.append(quantity)
                plain = (
                    plain[: quantity.start]
                    + " " * (quantity.through - quantity.start)
                    + plain[quantity.through :]
                )
    places += [(value, None, start, end) for value, start, end in find_numbers(plain)]
    places = _without_labels(text, sorted(places, key=lambda place: place[2:]))
    quantities = [
        _quantity(text, value, date, start, end, places[n - 1][3] if n else 0)
        for n, (value, date, start, end) in enumerate(places)
    ]
    quantities = sorted([*quantities, *whole], key=lambda q: (q.start, q.end))
    quantities = _joined_durations(text, quantities)
    quantities = [_in_context(text, q, quantities[n - 1].through if n else 0) for n, q in enumerate(quantities)]
    for n, (one, other) in enumerate(pairwise(quantities)):
        one = quantities[n]
        alike = one.timed == other.timed or ":" in one.value + other.value
        if alike and not one.change and not other.change and _TO_BETWEEN.fullmatch(text[one.through : other.start]):
            quantities[n] = replace(one, bound=one.bound or STARTS, unit=one.unit or other.unit)
            quantities[n + 1] = replace(other, bound=ENDS)
        if _BETWEEN.search(text[: one.start]) and _AND.fullmatch(text[one.through : other.start]):
            quantities[n] = replace(one, bound=STARTS if one.timed else UP, unit=one.unit or other.unit)
            quantities[n + 1] = replace(other, bound=ENDS if other.timed else DOWN)
    for n, (one, other) in enumerate(pairwise(quantities)):
        if one.change == FROM and other.change == TO and not one.unit:
            quantities[n] = replace(one, unit=other.unit)
    return _with_years(text, quantities)


def agree(claimed: Quantity, source: Quantity) -> bool:
    """Return whether a source says a claimed quantity: the same amount, in the same sense and of the same kind."""
    if claimed.date is not None or source.date is not None:
        if claimed.date is None or source.date is None:
            known = source.date is not None and claimed.value == str(source.date[0])
            named = (
                claimed.date is not None and source.value == str(claimed.date[0]) and claimed.date[2] is None
            )
            if not known and not named:
                return False
        elif not dates_within(frozenset((claimed.date,)), frozenset((source.date,))):
            return False
        return _same_bound(claimed, source)
    if (":" in claimed.value) != (":" in source.value):
        return _is_hour(claimed, source) and _same_bound(claimed, source)
    if claimed.bound == OF and source.bound not in ("", OF):
        return (same_unit(claimed, source) or not source.unit) and _is_in(claimed, source)
    if not same_unit(claimed, source) or not _same_change(claimed, source):
        return False
    if claimed.per and source.per and claimed.per.isdisjoint(source.per):
        return False
    if claimed.year and source.year and claimed.year != source.year:
        return False
    if ":" in claimed.value and ":" in source.value:
        return same_amount(claimed, source) and _same_bound(claimed, source)
    if same_amount(claimed, source):
        return _same_bound(claimed, source)
    return _within(claimed, source)


def ends_of_range(one: Quantity, other: Quantity) -> bool:
    """Return whether two quantities are bounded on opposite sides, as the ends of "from 5 to 8"."""
    rising, falling = (UP, MORE, STARTS), (DOWN, LESS, ENDS)
    return (
        (one.bound in rising and other.bound in falling)
        or (one.bound in falling and other.bound in rising)
        or {one.change, other.change} == {FROM, TO}
    )


def same_unit(one: Quantity, other: Quantity) -> bool:
    """Return whether two quantities may count the same: their units are of one dimension, or one has none."""
    if one.unit and other.unit:
        if (one.unit, other.unit) in _HUNDREDTHS or (other.unit, one.unit) in _HUNDREDTHS:
            return True
        return _dimension(one) == _dimension(other) or _is_pound(one, other) or _is_pound(other, one)
    measured, plain = (one, other) if one.unit else (other, one)
    if measured.unit == "share":
        return not plain.counted
    # "42 stone" is not 42 kg, and neither is "42 parcels"
    return not measured.unit or not plain.counted


def same_amount(one: Quantity, other: Quantity) -> bool:
    """Return whether two quantities of one dimension are equally large, also in different units."""
    if one.value == other.value and (one.unit == other.unit or not one.unit or not other.unit):
        return True
    if ":" in one.value or ":" in other.value:
        return ":" in one.value and ":" in other.value and _same_time(one.value, other.value)
    a, b = _size(one, other)
    if not one.unit or not other.unit or (one.unit == other.unit and one.unit != "share"):
        return a == b
    return abs(a - b) <= Decimal("0.001") * max(abs(a), abs(b))


_HUNDREDTHS = {("cent", "euro"), ("cent", "dollar"), ("pence", "sterling"), ("pence", "pounds")}


def _is_pound(one: Quantity, other: Quantity) -> bool:
    return one.unit == "pounds" and other.unit in ("pound", "sterling", "pounds")


def _dimension(quantity: Quantity) -> str:
    return dimension_of(quantity.unit)


def _same_time(one: str, other: str) -> bool:
    """Return whether two times are one; "6:30" without a leading zero is in either half of the day."""
    if len(one) == len(other) == 5:
        return one == other
    (hour, _, minute), (other_hour, _, other_minute) = one.partition(":"), other.partition(":")
    return int(hour) % 12 == int(other_hour) % 12 and minute == other_minute


def _is_hour(one: Quantity, other: Quantity) -> bool:
    """Return whether one is a time and the other the same as a plain number: "at 9", "6.40"."""
    time, plain = (one, other) if ":" in one.value else (other, one)
    if plain.unit or plain.counted or plain.change or plain.is_year:
        return False
    hour, _, minute = time.value.partition(":")
    value = Decimal(hour) + Decimal(minute) / 100
    return Decimal(plain.value) in (value, value + 12 if len(hour) == 1 else value)


def _is_in(case: Quantity, source: Quantity) -> bool:
    """Return whether one case is among those that a bounded amount is about: a child of ten, "under 12"."""
    value, limit = _size(case, source)
    match source.bound:
        case "less than":
            return value < limit
        case "at most" | "until":
            return value <= limit
        case "more than":
            return value > limit
        case "at least" | "from":
            return value >= limit
    return False


def _size(one: Quantity, other: Quantity) -> tuple[Decimal, Decimal]:
    """Return two amounts in one unit, as different numbers where that is not known."""
    a, b = Decimal(one.value), Decimal(other.value)
    if not one.unit or not other.unit or one.unit == other.unit:
        return a, b
    if _is_pound(one, other) or _is_pound(other, one):
        return a, b
    if (one.unit, other.unit) in _HUNDREDTHS or (other.unit, one.unit) in _HUNDREDTHS:
        return (a / 100, b) if (one.unit, other.unit) in _HUNDREDTHS else (a, b / 100)
    if not size_of(one.unit) or not size_of(other.unit):
        return a, a + 1
    return a * size_of(one.unit), b * size_of(other.unit)


def _same_bound(claimed: Quantity, source: Quantity) -> bool:
    """Return whether a source that says an amount bears out the same amount as the claim bounds it."""
    said, known = claimed.bound, source.bound
    rising, falling = (UP, MORE, STARTS), (DOWN, LESS, ENDS)
    if said == known or {said, known} in ({UP, STARTS}, {DOWN, ENDS}, {LESS, ENDS}, {MORE, STARTS}):
        return True
    if said == EXACTLY:
        return known == ""
    if ABOUT in (said, known) or NEARLY in (said, known):
        return (said, known) in ((ABOUT, ""), (ABOUT, NEARLY), (ABOUT, EXACTLY), (DOWN, NEARLY), (LESS, NEARLY))
    if (said, known) in ((UP, MORE), (DOWN, LESS)):
        return True
    if (said in rising and known in falling) or (said in falling and known in rising):
        return False
    # "opens at 9" for "open from 9"; but 5 is not "up to 5"
    return not {said, known} & {UP, MORE, DOWN, LESS} or known == EXACTLY


def _within(claimed: Quantity, source: Quantity) -> bool:
    """Return whether an exact amount lies where another one, that it is compared with, says: 312 is "over 300"."""
    if source.bound not in ("", EXACTLY) or ":" in claimed.value + source.value or claimed.is_year:
        return False
    said, known = _size(claimed, source)
    if not said or not known or (claimed.unit and not source.unit) or (source.unit and not claimed.unit):
        return False
    ratio = known / said
    match claimed.bound:
        case "about":
            return abs(ratio - 1) <= _APPROXIMATE
        case "nearly":
            return 1 - 2 * _APPROXIMATE <= ratio < 1
        case "more than" | "at least":
            return 1 < ratio <= 1 + _FAR
        case "less than" | "at most":
            return 1 - _FAR <= ratio < 1
    return False


def _same_change(claimed: Quantity, source: Quantity) -> bool:
    """Return whether two amounts are the same part of a change; what it led to may be said without it."""
    if claimed.change == source.change:
        return True
    if BY in (claimed.change, source.change):
        return False
    if source.change == FROM:
        return bool(claimed.year) and not claimed.change
    return claimed.change != FROM


def _quantity(text: str, value: str, date: Date | None, start: int, end: int, previous: int) -> Quantity:
    before, after = text[max(previous, start - 40) : start], text[end : end + 40]
    unit, through, timed = "", end, date is not None or ":" in value
    if not timed and _POINT_TIME.fullmatch(text[start:end]) and _BEFORE_TIME.search(text[:start]):
        word = _WORD_AFTER.match(after)
        if not word or (UNITS.get(word[1].lower(), "") == "" and not _PHRASE_AFTER.match(after)):
            hour, _, minute = text[start:end].partition(".")
            value, timed = f"{int(hour) % 24:02d}:{minute}", True
    if not timed:
        unit, length = _unit(before, after, text[start:end])
        through += length
    counted = ""
    year = _YEAR.fullmatch(text[start:end]) and _BEFORE_YEAR.search(text[:start])
    if not unit and not timed and not year and (word := _WORD_AFTER.match(after)) and after[:1].isspace():
        form = word[1].lower()
        plain = form.isalpha() and form not in STOP_WORDS and (word[1].islower() or text[:start].strip() == "")
        counted = stem(form) if plain and form not in _NOT_COUNTED and after[: word.start(1)].isspace() else ""
    return Quantity(
        value=value, date=date, unit=unit, bound="", counted=counted, start=start, end=end, through=through
    )


def _in_context(text: str, quantity: Quantity, previous: int) -> Quantity:
    """Return a quantity with its bound, its part in a change, and what it is per."""
    start, end, timed = quantity.start, quantity.end, quantity.timed
    before, after = text[max(previous, start - 40) : start], text[end : end + 40]
    bound = _bound(before, after, text[quantity.through : quantity.through + 30], timed)
    change = ""
    if not timed:
        change = _change(text, quantity, before)
        if change or bound == ENDS:
            to = bound == ENDS and re.search(r"\bto\s*[$£€¥]?\s*$", before, re.I)
            bound = _inner_bound(before) if change or to else bound
        if bound in (STARTS, ENDS) and quantity.kind != "duration" and _TIME_WORD.search(before):
            bound = ""
        if bound in (LESS, MORE) and _THAN_THE.search(before):
            bound = ""
        if not bound and _CASE.search(text[max(0, start - 20) : start] + "#" + text[end : end + 10]):
            bound = OF
    if timed:
        return replace(quantity, bound=bound)
    later = re.match(r"\s+(later|earlier|ago|after|before)\b", text[quantity.through :], re.I)
    counted = later[1].lower() if later and quantity.kind == "duration" else quantity.counted
    per = _all_per(text, quantity.through)
    if not per and (front := _PER_BEFORE.search(text[:start])):
        per = frozenset((_PER_WORDS[front[1].lower()],))
    return replace(quantity, bound=bound, change=change, per=per, counted=counted)


def _all_per(text: str, at: int) -> frozenset[str]:
    """Return the stems of what an amount that ends at an offset is for each of."""
    found: set[str] = set()
    while match := _PER.match(text, at) or (found and _AND_PER.match(text, at)):
        found.add(_per(match))
        at = match.end()
    return frozenset(found - {""})


def _inner_bound(before: str) -> str:
    """Return the bound behind "by" or "to": "fell by almost 5 percent"."""
    inner = re.sub(r"\b(?:by|to|from)\s+(?=\w)", "", before, flags=re.I)
    found = _bound(inner, "", "", False)
    return found if found in (ABOUT, NEARLY, MORE, UP, LESS, DOWN) and inner != before else ""


def _change(text: str, quantity: Quantity, before: str) -> str:
    """Return the part of an amount in a change: by how much, to what, from what; "" where there is none."""
    head = text[: quantity.start]
    if _BY_AFTER.match(text, quantity.through):
        return BY
    clause = re.split(r"[;.]\s|\b(?:and|but|while|when)\b(?![^;]*\bto\s*[$£€]?\s*$)", head)[-1]
    if not _CHANGE.search(clause) and not _CHANGE.search(text[quantity.through : quantity.through + 40]):
        return ""
    if _FROM_BEFORE.search(before):
        return FROM
    if not _CHANGE.search(clause):
        return BY if re.match(r"\s+(?:rise|fall|increase|decrease|drop|cut|reduction)\b", text[quantity.through :]) else ""
    if _TO_BEFORE.search(before) or re.search(r"\bup to\s*[$£€]?\s*$", before):
        return TO
    return BY if _BY_BEFORE.search(head) else ""


def _per(match: re.Match[str]) -> str:
    """Return the stem of what an amount is for each of; "" where it is none, as in "5 euros a ticket for"."""
    found = match.groupdict()
    if found.get("head"):
        return ""
    if found.get("ly"):
        return _PER_WORDS[found["ly"].lower()]
    word = match["of"].lower()
    if word in _NO_PER:
        return ""
    word = UNITS.get(word, _PER_WORDS.get(word, word))
    return word if word in PERIODS else stem(word)


def _fraction(match: re.Match[str]) -> Quantity | None:
    """Return the quantity of words such as "half an hour", "two thirds of" and "twice a week"."""
    found = match.groupdict()
    start, end = match.start(), match.end()
    unit = "share"
    if found.get("part") or (found.get("half") and "unit" not in found):
        value = _PARTS[(found["part"] or "half").lower()] * _COUNTS[(found["n"] or "a").lower()]
    elif "unit" in found:
        name = found["unit"] or found["long"] or found["every"]
        unit = UNITS.get((name or "").lower(), "")
        if not unit or len(name or "") < 3:
            return None
        value = Decimal("0.5") if found["half"] else Decimal("0.25") if found["quarter"] else Decimal("0.75")
        if not (found["half"] or found["quarter"] or found["quarters"]):
            value = Decimal("1.5") if found["and"] else Decimal(1)
            start = match.start("whole" if found["whole"] else "every")
    else:
        value, unit = Decimal(_FREQUENCIES[found["n"].lower()]), "times"
    text = format(round(value, 4).normalize(), "f")
    return Quantity(value=text, date=None, unit=unit, bound="", start=start, end=end, through=end)


def spoken_times(text: str) -> frozenset[str]:
    """Return times such as "half past six" and "Viertel vor acht", in both halves of the day where none is named."""
    times: set[str] = set()
    for match in _SPOKEN_TIME.finditer(text):
        quantity = _spoken_time(match)
        if quantity is not None:
            hour, _, minute = quantity.value.partition(":")
            halves = (int(hour) % 12, int(hour) % 12 + 12) if len(hour) == 1 or int(hour) > 9 else (int(hour),)
            times |= {f"{half:02d}:{minute}" for half in halves}
    return frozenset(times)


def measures(text: str) -> frozenset[tuple[str, str]]:
    """Return (value, unit) of each amount with a unit of which there is only one."""
    return frozenset((q.value, q.unit) for q in read_quantities(text) if q.unit and q.unit not in _OF_SEVERAL)


def bounds(text: str) -> frozenset[tuple[str, bool]]:
    """Return (value, whether it is an upper bound) of each number and time that is bounded."""
    upper, lower = (DOWN, LESS, ENDS), (UP, MORE, STARTS)
    return frozenset((q.value, q.bound in upper) for q in read_quantities(text) if q.bound in upper + lower)


def has_amounts(wanted: str, text: str) -> bool:
    """Return whether a text has every amount, time and date of another one, however it bounds them; False for none."""
    needed = [unbounded(q) for q in read_quantities(wanted)]
    return bool(needed) and are_among(needed, [unbounded(q) for q in read_quantities(text)])


def are_among(wanted: Sequence[Quantity], known: Sequence[Quantity]) -> bool:
    """Return whether each of some quantities agrees with one of others."""
    return all(any(agree(q, other) for other in known) for q in wanted)


def unbounded(quantity: Quantity) -> Quantity:
    """Return the amount alone, without its bound, its part in a change, its year and what it is per."""
    return replace(quantity, bound="", change="", year="", per=frozenset(), counted="")


_OF_SEVERAL = frozenset(("pounds", "share", "times", "points", "degree"))
"""Units that stand for several, or that are no measure."""


def _spoken_time(match: re.Match[str]) -> Quantity | None:
    """Return a time such as "half past six"; without "in the evening" it is in either half of the day."""
    word = (match["hour"] or match["full"]).lower()
    hour = int(word) if word.isdigit() else _HOURS.get(word, 0)
    if not 0 < hour <= 12:
        return None
    hour -= match["before"] is not None or match["halb"] is not None
    minute = "30" if match["past"] or match["halb"] else "15" if match["after"] else "45" if match["before"] else "00"
    half = _EVENING.match(match.string, match.end())
    value = f"{hour % 12 or 12}:{minute}" if hour % 12 else f"0:{minute}"
    if half:
        value = f"{hour % 12 + 12 * bool(half['pm']):02d}:{minute}"
    end = half.end() if half else match.end()
    return Quantity(value=value, date=None, unit="", bound="", start=match.start(), end=end, through=end)


def _without_labels(
    text: str, places: Sequence[tuple[str, Date | None, int, int]]
) -> list[tuple[str, Date | None, int, int]]:
    """Return the numbers without those that are parts of names: "the Aldra 300", "room 12", "zones 1 and 2"."""
    kept: list[tuple[str, Date | None, int, int]] = []
    last = -1
    for place in places:
        _, date, start, end = place
        if date is None and _is_label(text, start, end, last):
            last = end
        else:
            kept.append(place)
    return kept


def find_labels(text: str) -> frozenset[str]:
    """Return names that end in a number as one word each: "aldra300", and "zone1" and "zone2" of "zones 1 and 2"."""
    found: set[str] = set()
    noun, last = "", -1
    for _, start, end in find_numbers(text):
        if not _is_label(text, start, end, last):
            continue
        if before := re.search(r"([^\W\d_][\w’'-]*)\s$", text[:start]):
            noun = before[1].lower() if last < 0 or text[last:start].strip() not in ("and", "to", "or") else noun
        noun = noun[:-1] if noun.endswith("s") and noun[:-1] in _LABEL_NOUNS else noun
        last = end
        found.add(noun + text[start:end])
    return frozenset(found)


def _is_label(text: str, start: int, end: int, last: int) -> bool:
    digits, head, tail = text[start:end], text[:start], text[end : end + 30]
    if not digits.isdigit() or len(digits) > 4 or re.match(r"\s*(?:[%°]|[€$£](?!\d))|-", tail):
        return False
    if last >= 0 and re.fullmatch(r"\s*(?:and|to|or|,|–|-)\s*", text[last:start]):
        return True
    before = re.search(r"([^\W\d_][\w’'-]*)\s$", head)
    if not before:
        return False
    word = before[1].lower()
    following = re.match(r"\s+([^\W\d_]+)", tail)
    after = following[1].lower() if following else ""
    if after in UNITS and len(after) > 1:
        return False
    if word in _LABEL_NOUNS or (word.endswith("s") and word[:-1] in _LABEL_NOUNS):
        return not (word == "no" or word.endswith("s")) or not after.endswith("s")
    if _YEAR.fullmatch(digits) or not before[1][0].isupper() or word in STOP_WORDS or word in _NO_LABEL:
        return False
    first = not head[: before.start()].strip() or head[: before.start()].rstrip()[-1:] in ".!?:"
    counts = (after.endswith("s") and not after.endswith("ss") and stem(after) not in _LABEL_VERBS) or after in _PEOPLE
    return not counts and not (first and after and stem(after) not in _LABEL_VERBS)


_LABEL_VERBS = frozenset(
    map(
        stem,
        (
            "is was has are can must may will does do runs leaves delivers costs weighs holds takes needs starts ends stops"
            " goes carries seats opens closes serves follows burns uses lasts includes offers covers works heats sails departs"
            " arrives reaches connects charges measures produces contains and or also only"
        ).split(),
    )
)


def _joined_durations(text: str, quantities: Sequence[Quantity]) -> list[Quantity]:
    """Return the quantities with "2 hours 30 minutes" as one."""
    joined: list[Quantity] = []
    for q in quantities:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.unit != q.unit
            and dimension_of(last.unit) == dimension_of(q.unit) in ("time", "months")
            and size_of(last.unit) > size_of(q.unit)
            and _JOINED_DURATION.fullmatch(text[last.through : q.start])
        ):
            sum_of = Decimal(last.value) + Decimal(q.value) * size_of(q.unit) / size_of(last.unit)
            value = format(round(sum_of, 4).normalize(), "f")
            joined[-1] = replace(last, value=value, end=q.end, through=q.through)
        elif (
            last is not None
            and last.unit in MONEY
            and not q.unit
            and not q.counted
            and text[last.through : q.start].isspace()
            and q.value.isdigit()
            and int(q.value) < 100
        ):
            # "three euros fifty"
            value = format((Decimal(last.value) + Decimal(q.value) / 100).normalize(), "f")
            joined[-1] = replace(last, value=value, end=q.end, through=q.through)
        else:
            joined.append(q)
    return joined


def _with_years(text: str, quantities: Sequence[Quantity]) -> tuple[Quantity, ...]:
    """Return the quantities, each amount with the year that it belongs to: the one named next, else the one before."""
    years = [q for q in quantities if q.is_year or (q.date is not None and q.date[0] and q.date[2] is None)]
    if not years:
        return tuple(quantities)
    amounts = [q for q in quantities if not q.timed and q.change != BY]
    listed = _listed_years(text, amounts, years)
    found = []
    for q in quantities:
        if q not in amounts:
            found.append(q)
            continue
        year = listed.get(q.start)
        if year is None:
            later = next((y for y in years if y.start >= q.through), None)
            between = text[q.through : later.start] if later else ""
            near = (
                later is not None
                and not any(q.start < other.start < later.start for other in amounts)
                and re.search(r"[;.]\s|,\s(?:and|but)\b|,\s|\b(?:and|but|while|from|to|than|up|compared)\b", between) is None
            )
            earlier = [y for y in years if y.end <= q.start]
            year = later if near else earlier[-1] if earlier else later if len(years) == 1 else None
        value = "" if year is None else year.value if year.is_year else str((year.date or (0,))[0])
        found.append(replace(q, year=_relative_year(text, q, value)))
    return tuple(found)


def _relative_year(text: str, quantity: Quantity, year: str) -> str:
    """Return the year of an amount, one less or more where "the year before" or "the following year" is behind it."""
    tail = text[quantity.through : quantity.through + 45]
    step = -1 if _YEAR_BEFORE.match(tail) else 1 if _YEAR_AFTER.match(tail) else 0
    return str(int(year) + step) if year and step else year


def _listed_years(text: str, amounts: Sequence[Quantity], years: Sequence[Quantity]) -> dict[int, Quantity]:
    """Return the year of each amount, by its offset, in "4.1 and 5.3 in 2021 and 2022 respectively"."""
    ends = [q for q in amounts if q.change in (FROM, TO)]
    if [q.bound for q in years] == [STARTS, ENDS] and [q.change for q in ends] == [FROM, TO]:
        if years[0].start > ends[1].start:
            return {amount.start: year for amount, year in zip(ends, years, strict=True)}
    if len(amounts) != len(years) or "respectively" not in text.lower():
        return {}
    return {amount.start: year for amount, year in zip(amounts, years, strict=True)}


def _unit(before: str, after: str, digits: str) -> tuple[str, int]:
    """Return the unit of a number and how many characters of the text after it name it; "" and 0 for none."""
    if symbol := _CURRENCY.search(before):
        return UNITS[symbol[1].lower()], 0
    if phrase := _PHRASE_AFTER.match(after):
        return PHRASES[phrase[1].lower()], phrase.end()
    word = _WORD_AFTER.match(after)
    if not word or (word[1] in "$£€¥" and after[word.end() : word.end() + 1].isdigit()):
        return "", 0
    form = word[1].lower()
    joined = after[:1] == word[1][0]
    # "5 in a row" and "under 18s" name no unit; nor do letters after a number in words
    if form in _SMALL_UNITS and (
        not digits[-1:].isdigit() or (form == "in" and not joined) or (form == "s" and joined)
    ):
        return "", 0
    if form in ("pound", "pounds"):
        return "pounds", word.end()
    unit = UNITS.get(form, UNITS.get(form.partition("/")[0], ""))
    return unit, (word.start(1) + len(form.partition("/")[0]) if "/" in form and form not in UNITS else word.end()) if unit else 0


def _bound(before: str, after: str, behind: str, timed: bool) -> str:
    for text in (after, behind):
        for bound, pattern in _SUFFIXES:
            if pattern.match(text):
                return bound
    for bound, pattern in _PREFIXES:
        if match := pattern.search(before):
            word = match.group().strip(" $£€¥(").lower()
            # "by 5" bounds a time
            if not timed and word in ("by", "through", "vor", "nach"):
                return ""
            return bound
    return ""
