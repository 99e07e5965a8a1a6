"""Whether a free-text answer states a fact: :func:`text_states_fact`.

The answer must have the fact's numbers, its yes or no and at least half of its content words, together in a few
neighbouring sentences, and little that has nothing to do with it. Words and numbers are compared as
:mod:`runners.scoring.statements` reads them, in several languages.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import cached_property

from rag.text.dates import dates_within
from rag.text.words import sentences
from runners.scoring.amounts import (
    amounts_of,
    are_swapped,
    counts_something_else,
    denies_the_thing,
    has_equal,
    is_equal,
    is_measured,
    is_no_time,
    is_of_another,
    is_of_the_whole,
)
from runners.scoring.enumerations import besides_days, lists_exactly, weekdays_of
from runners.scoring.names import has_last_name, names_another, replaces_name
from runners.scoring.plain_forms import in_figures, readings
from runners.scoring.stance import (
    denies_the_same,
    negates_word,
    stance_by_question,
    stance_of,
    states_exception,
    states_opposite,
)
from runners.scoring.statements import (
    bounds_of,
    content_tokens,
    dates_of,
    denies,
    language_of,
    leading_answers,
    numbers_of,
    shared_tokens,
    statements,
    states_number,
    text_besides_dates,
)
from runners.scoring.wanted_fact import LONG_FACT, WantedFact, wanted_fact

FACT_SHARE = 0.5
"""Least share of the fact's content words that are not in the question."""
SHORT_FACT = 4
"""A fact of so few words needs more than half of them, unless the answer says nothing besides."""
FREE_FOREIGN_WORDS = 11
"""Content words that an answer may have besides those of fact, reference and question: courtesy, a side remark."""
MIN_KNOWN_SHARE = 0.3
"""Least share of an answer's content words that are in fact, reference or question, once it has more foreign ones
than half of FREE_FOREIGN_WORDS."""
FREE_SENTENCES = 1
"""Sentences about something else that an answer may have; a long fact allows one more for each three of its own."""
MIN_OFF_TOPIC_WORDS = 3
OFF_TOPIC_SHARE = 0.6
"""A sentence is about something else when it has at least so many foreign content words, and more than this share."""
LIST_ITEMS = 5
"""From so many items without function words on, an answer is a list; it may hold FREE_LISTED_WORDS foreign words."""
FREE_LISTED_WORDS = 2
MAX_LACKS_SHOWN = 3
MOSTLY_OTHER = "most of it is about something else"
"""The fault of an answer that may state the fact, but with too much beside it."""
_WORKING_DAYS = re.compile(r"\b(?:working|business)[ -]days?\b", re.I)
_LEFT_OUT_DAYS = re.compile(r"\b(?:(?:working|business|week)[ -]?days?|weekends?)\b", re.I)
_DAYS = re.compile(r"\bdays?\b", re.I)
_COURTESIES = (
    "answer ask assist assistance call check contact detail enjoy find forward glad happy hear hello help hope "
    "inform information know let like look love pleas pleasur question reach tell thank today visit welcom "
    "wish according base document note passage provid state mention follow"
)
_COURTESY = frozenset(_COURTESIES.split())
"""Stems that carry no claim of their own."""
_FREE = re.compile(
    r"\b(?:free(?: of charge)?|costs? nothing|nothing to pay|pay nothing|at no (?:extra )?(?:charge|cost)"
    r"|without (?:any )?charge|gratis|no charge"
    r"|(?:do not|don't|needn't) (?:have to )?pay(?: anything)?)\b",
    re.I,
)
_EXCEPT = re.compile(
    r",? (?:except|excluding|apart from|other than|save for|with the exception of|not counting|(?:but|just|though) not"
    r"|(?<=everything )but|(?<=anything )but|(?<=everyone )but)\b(?: for\b)?",
    re.I,
)
_NOTHING = re.compile(r"(?:nothing|nil|zero|none)\.?", re.I)
_COST_ASKED = re.compile(r"\b(?:costs?|pay|price|charged?|fees?|how much|deposit)\b", re.I)
_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+|(?:https?://|www\.)[\w/.-]*\w")
"""Addresses of mail and of pages, which must be the same letter by letter."""
_ALTERNATIVES = re.compile(
    r"(\d[\d.,:]*\d|\d)(?:\s*[\w€$%]+)?[\s,;]*\b(?:or|oder|ou|o)\s+(?:\w+\s+)?(\d[\d.,:]*\d|\d)"
)


def text_states_fact(answer: str, fact: str, question: str = "", known: Sequence[str] = ()) -> bool:
    """Return whether a free-text answer states a fact, and little else; arguments as of :func:`fault_of`."""
    return not fault_of(answer, fact, question, known)


def fault_of(answer: str, fact: str, question: str = "", known: Sequence[str] = ()) -> str:
    """Return why a free-text answer does not state a fact, "" where it does, and little else.

    Args:
        answer: the answer.
        fact: a short answer, a sentence or a longer text.
        question: the question; its words prove nothing.
        known: texts of the gold (short answers, references) whose words an honest answer may have besides the fact's.
    """
    if wanted_fact(fact, question, tuple(known)).rewrites:
        return "" if _is_rewritten(answer, fact, question) else "it is not rewritten as the gold is"
    if _plain(answer) == _plain(fact) != "":
        return ""
    question, known = in_figures(question), tuple(map(in_figures, known))
    answer = in_figures(answer)
    if _EXCEPT.search(fact) and not weekdays_of(fact):
        answer, fact = _EXCEPT.sub(" except", answer), _EXCEPT.sub(" except", fact)
        excepted = fact.partition(" except")[2]
        if not states_exception(excepted, statements(answer)):
            return f"it does not except {excepted.strip()!r}"
    if _NOTHING.fullmatch(fact.strip()) and _COST_ASKED.search(question):
        fact = "free"
    if _FREE.search(fact) or _FREE.search(question):
        answer, fact = _FREE.sub("free", answer), _FREE.sub("free", fact)
    for address in _ADDRESS.findall(fact):
        if address.lower() not in answer.lower():
            return f"it lacks {address}"
    faults = [_fault(answer, wanted_fact(reading, question, known)) for reading in readings(fact)]
    return "" if "" in faults else faults[0]


def fault_of_parts(answer: str, parts: Sequence[str], question: str, known: Sequence[str]) -> str:
    """Return which part of a fact a free-text answer does not state, and why; "" where it states all."""
    for part in parts:
        if fault := fault_of(answer, part, question, known):
            return f"of the part {part!r}: {fault}"
    plain = [in_figures(part, False) for part in parts]
    language = language_of(" ".join((question, *parts)))
    swapped = are_swapped(plain, in_figures(question), statements(in_figures(answer)), language)
    return "it has the amount of one part for another" if swapped else ""


def _fault(answer: str, wanted: WantedFact) -> str:
    given = _Answer(answer, wanted)
    if not given.sentences:
        return "it states nothing"
    if not given.is_about_the_fact:
        return MOSTLY_OTHER
    if _WORKING_DAYS.search(wanted.text) and _DAYS.search(answer) and not _LEFT_OUT_DAYS.search(answer):
        return "it says days, and the gold working days"
    if given.contradicts:
        return "it says something else in the place of the gold"
    if wanted.is_denial:
        denied = denies_the_same(wanted.text, given.sentences, wanted.question, wanted.language)
        return "" if denied else "it does not deny what the gold denies"
    if wanted.stance and (stance := given.stance) is not None:
        if stance != wanted.stance:
            return f"it says {stance}, and the gold {wanted.stance}"
        if not wanted.numbers and (wanted.yes_no_question or not wanted.tokens):
            return ""
    elif wanted.stance and not wanted.tokens and not wanted.numbers:
        return f"it says neither yes nor no, and the gold {wanted.stance}"
    return "" if given.has_fact else given.lack


class _Answer:
    """An answer seen against a fact."""

    def __init__(self, text: str, wanted: WantedFact) -> None:
        self.wanted = wanted
        self.text = text
        asked = {_plain(sentence) for sentence in sentences(wanted.question)} | {_plain(wanted.question)}
        self.sentences = [sentence for sentence in statements(text) if _plain(sentence) not in asked]
        if not self.sentences and not statements(wanted.fact):
            self.sentences = [text.strip()]  # a fact that is a question is stated by a question
        self.joined = " ".join(self.sentences)
        self.tokens = content_tokens(self.joined, wanted.language)
        self.numbers = numbers_of(self.joined, wanted.language)

    @cached_property
    def foreign(self) -> list[str]:
        """The answer's content words that neither fact, references nor question have."""
        known = set(shared_tokens(self.tokens, self.wanted.known_tokens))
        return [token for token in self.tokens if token not in known and token not in _COURTESY]

    @cached_property
    def is_about_the_fact(self) -> bool:
        """Whether what the answer says besides the fact is a remark, no copied passage and no list."""
        wanted, foreign = self.wanted, len(self.foreign)
        free = FREE_FOREIGN_WORDS + len(wanted.known_tokens - set(wanted.question_tokens)) // 3
        if foreign > free:
            return False
        strange = [n for n in self.numbers if not states_number(n, wanted.known_numbers)]
        if len(strange) > (1 + len(wanted.numbers) if wanted.numbers else 3):
            return False
        if not (self._is_mostly_known or self._states_whole_fact or self._replies_by_kind):
            return False
        if foreign > FREE_LISTED_WORDS and self._is_list:
            return False
        off_topic = sum(map(self._is_off_topic, self.sentences))
        return off_topic <= FREE_SENTENCES + len(statements(wanted.fact)) // 3 + self._begins_with_the_fact

    @property
    def _begins_with_the_fact(self) -> bool:
        """Whether the first sentence answers in the question's words: a person reads no further."""
        wanted, first = self.wanted, self.sentences[0]
        asked = shared_tokens(wanted.question_tokens, content_tokens(first, wanted.language))
        return bool(asked) and not self._is_off_topic(first) and self._has_all(first)

    @property
    def _replies_by_kind(self) -> bool:
        """Whether the first sentence is a yes or no by the kind of the question, in words that are all its own."""
        wanted = self.wanted
        asked = wanted.stance is not None and wanted.yes_no_question
        return asked and stance_by_question(self.sentences[0], wanted.question, wanted.language) is not None

    @cached_property
    def _states_whole_fact(self) -> bool:
        """Whether one sentence has each word, date and amount of a fact, which is no bare number."""
        return any(map(self._has_all, self.sentences))

    def _has_all(self, sentence: str) -> bool:
        wanted, language = self.wanted, self.wanted.language
        if not (wanted.tokens or wanted.dates or wanted.amounts):
            return False
        units = {token for q in wanted.amounts for token in content_tokens(q.unit, language)}
        words = [token for token in wanted.tokens if token not in units]
        if len(shared_tokens(words, content_tokens(sentence, language))) < len(words):
            return False
        given, numbers = amounts_of(sentence), numbers_of(sentence, language)
        if not all(any(is_equal(q, other) for other in given) for q in wanted.amounts):
            return False
        stated = (states_number(n, numbers) or has_equal(n, wanted.amounts, given) for n in wanted.numbers)
        return all(stated) and dates_within(wanted.dates, dates_of(sentence), numbers)

    @cached_property
    def _is_mostly_known(self) -> bool:
        """Whether enough of the answer's words are known, once it has many foreign ones; a remark beside it is free."""
        remarks = [sentence for sentence in self.sentences if self._is_off_topic(sentence)]
        on_topic = [s for s in self.sentences if s not in remarks] if len(remarks) <= FREE_SENTENCES else []
        tokens = content_tokens(" ".join(on_topic or self.sentences), self.wanted.language)
        foreign = sum(token in self.foreign for token in tokens)
        return foreign <= FREE_FOREIGN_WORDS / 2 or 1 - foreign / len(tokens) >= MIN_KNOWN_SHARE

    def _is_off_topic(self, sentence: str) -> bool:
        tokens = content_tokens(sentence, self.wanted.language)
        foreign = sum(token in self.foreign for token in tokens)
        strange = foreign >= MIN_OFF_TOPIC_WORDS and foreign > OFF_TOPIC_SHARE * len(tokens)
        return strange and not self._has_all(sentence)

    @cached_property
    def _is_list(self) -> bool:
        items = [
            item.split() for item in re.split(r"[,;\n•|/]+|(?<=\w)\.\s|\s-\s", self.joined) if item.strip()
        ]
        bare = len(self.joined.split()) >= 8 and len(self.tokens) >= 0.85 * len(
            set(self.joined.lower().split())
        )
        return bare or (len(items) >= LIST_ITEMS and sum(map(len, items)) <= 3 * len(items))

    @cached_property
    def contradicts(self) -> bool:
        """Whether the answer says something else in the fact's place."""
        wanted, joined = self.wanted, self.joined
        texts = (wanted.text, *wanted.known, wanted.question)
        known_days = frozenset(day for text in texts for day in wanted.days_in(text))
        if weekdays_of(wanted.text) and not wanted.days_in(joined) <= known_days:
            return True
        given = amounts_of(joined)
        if any(counts_something_else(number, wanted.known_amounts, given) for number in wanted.numbers):
            return True
        if any(is_no_time(n, given) and n not in self.numbers for n in wanted.numbers):
            return True
        affirmative = (
            wanted.language == "English" and not wanted.stance and not denies(wanted.text, "English")
        )
        if (
            wanted.amounts
            and affirmative
            and denies_the_thing(wanted.question_tokens, self.sentences, "English")
        ):
            return True
        if is_of_the_whole(wanted.amounts, joined):
            return True
        if is_of_another(
            wanted.amounts, wanted.known_amounts, wanted.question_tokens, self.sentences, wanted.language
        ):
            return True
        if wanted.is_name and names_another(
            wanted.tokens, wanted.known_tokens, wanted.question_tokens, self.sentences, wanted.language
        ):
            return True
        if (
            affirmative
            and len(wanted.all_tokens) <= LONG_FACT
            and negates_word(wanted.tokens, self.sentences, "English")
        ):
            return True
        if affirmative and states_opposite(wanted.tokens, wanted.known_tokens, self.sentences):
            return True
        if not wanted.numbers:
            return False
        bounds = bounds_of(" ".join((wanted.question, wanted.text, *wanted.known)))
        opposite = any(
            (number, not upper) in bounds and (number, upper) not in bounds
            for number, upper in bounds_of(joined)
        )
        return opposite or self._restates_with_other_numbers or self._negates_number

    @cached_property
    def _restates_with_other_numbers(self) -> bool:
        """Whether one sentence stands twice with different numbers, or the number stands beside an alternative."""
        language, wanted = self.wanted.language, self.wanted.numbers
        seen: list[tuple[set[str], frozenset[str]]] = []
        for sentence in self.sentences:
            words, numbers = set(content_tokens(sentence, language)), numbers_of(sentence, language)
            if not numbers:
                continue
            for other_words, other_numbers in seen:
                alike = len(words & other_words) >= 0.7 * len(words | other_words)
                if alike and numbers != other_numbers and (numbers ^ other_numbers) & wanted:
                    return True
            seen.append((words, numbers))
        for first, second in _ALTERNATIVES.findall(self.joined):
            pair = [numbers_of(number, language) for number in (first, second)]
            either_is_wanted = any(not numbers.isdisjoint(wanted) for numbers in pair)
            if either_is_wanted and not all(numbers <= self.wanted.known_numbers for numbers in pair):
                return True
        return False

    @cached_property
    def _negates_number(self) -> bool:
        """Whether "not" stands right before a number of the fact ("it is not 12 euros")."""
        text = " ".join((self.wanted.question, self.wanted.text))
        if denies(text, self.wanted.language):
            return False
        match = re.search(
            r"\b(?:not|n['’]t|nicht|no|ne|non)\s+(?:cost |be |\w+en )?(\d[\d.,:]*\d|\d)(?! or| oder)",
            self.joined,
            re.I,
        )
        return match is not None and not numbers_of(match[1], self.wanted.language).isdisjoint(
            self.wanted.numbers
        )

    @cached_property
    def stance(self) -> str | None:
        """The answer's yes or no, None when it takes none, "both" when it takes both."""
        wanted = self.wanted
        topic = (*wanted.question_tokens, *wanted.tokens)
        return stance_of(self.sentences, wanted.question, topic, wanted.stance or "", wanted.language)

    @cached_property
    def has_fact(self) -> bool:
        """Whether a few neighbouring sentences have the fact's numbers, dates and words."""
        # A long fact takes as many sentences as it has itself, and one more.
        most = max(2, len(statements(self.wanted.fact)) + 1)
        return any(
            self._window_has_fact(" ".join(self.sentences[start : start + size]))
            for size in range(1, min(most, len(self.sentences)) + 1)
            for start in range(len(self.sentences) - size + 1)
        )

    @property
    def lack(self) -> str:
        """What of the fact the whole answer lacks, in words."""
        wanted, given = self.wanted, amounts_of(self.joined)
        numbers = [
            number
            for number in sorted(wanted.numbers)
            if not (states_number(number, self.numbers) or has_equal(number, wanted.amounts, given))
        ]
        words = [token for token in wanted.tokens if not shared_tokens([token], self.tokens)]
        lacks = numbers or words
        if lacks:
            return f"it lacks {', '.join(map(repr, lacks[:MAX_LACKS_SHOWN]))}"
        return "it lacks the date or day" if wanted.dates or wanted.weekdays else "it does not state the gold"

    def _window_has_fact(self, window: str) -> bool:
        wanted, language = self.wanted, self.wanted.language
        numbers = numbers_of(window, language)
        plain = numbers if wanted.dates else numbers_of(text_besides_dates(window), language)
        given = amounts_of(window)
        measured = {q.value for q in wanted.amounts if q.unit}
        stated = sum(
            (number in plain if number in measured else states_number(number, plain))
            or has_equal(number, wanted.amounts, given)
            for number in wanted.numbers
        )
        needed = len(wanted.numbers) if len(wanted.all_tokens) <= LONG_FACT else len(wanted.numbers) / 2
        if stated < needed or not dates_within(wanted.dates, dates_of(window), numbers):
            return False
        if not wanted.weekdays <= wanted.days_in(window):
            return False
        have = content_tokens(window, language)
        if wanted.items:
            return lists_exactly(
                wanted.items, self.sentences, wanted.known_tokens, wanted.question_tokens, language
            )
        if not wanted.tokens:
            # All its words are in the question: the answer must choose them, not repeat the question.
            alike = shared_tokens(wanted.all_tokens, have)
            repeated = shared_tokens(wanted.question_tokens, have)
            chosen = len(alike) == len(wanted.all_tokens)
            return bool(wanted.numbers or wanted.dates) or (
                bool(wanted.all_tokens)
                and chosen
                and (
                    leading_answers(self.sentences) == {"yes"}
                    or len(repeated) < max(len(alike) + 2, 0.7 * len(wanted.question_tokens))
                )
            )
        if wanted.numbers and wanted.tokens and not shared_tokens(wanted.tokens, have):
            bare = wanted.numbers - measured
            if wanted.is_label or (bare and all(is_measured(number, given) for number in bare)):
                return False  # "12 hours" for "line 12"
        if wanted.numbers and len(wanted.tokens) <= 2:
            return True  # a number with its unit: another unit is a contradiction, none is an abbreviation
        tokens = besides_days(wanted.tokens) if wanted.weekdays else wanted.tokens
        if not tokens:
            return True
        hits = shared_tokens(tokens, have)
        replaced = replaces_name(window, hits, wanted.known_tokens, language)
        if wanted.is_name and hits and not replaced and has_last_name(window, wanted.text):
            return True
        share = len(hits) / len(tokens)
        if share < FACT_SHARE or share == 1 or wanted.numbers or len(wanted.tokens) > SHORT_FACT:
            return share >= FACT_SHARE
        return not self.foreign if share == FACT_SHARE else not replaced


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _is_rewritten(answer: str, fact: str, question: str) -> bool:
    """Return whether a text is rewritten as the reference has it, case and punctuation included.

    At most a tenth of the words differ, and at least half of what had to be changed in the question is changed.
    """
    error = _word_error(answer, fact)
    return error <= 0.1 and error <= _word_error(question, fact) / 2


def _word_error(text: str, reference: str) -> float:
    a, b = text.split(), reference.split()
    return 1 - difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()
