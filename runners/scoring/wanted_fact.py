"""A fact that an answer must state, taken apart once for all answers to its question: :class:`WantedFact`."""

from __future__ import annotations

import re
from functools import cached_property, lru_cache

from rag.quantities.comparing import Quantity
from rag.text.dates import Date
from runners.scoring.amounts import amounts_of
from runners.scoring.enumerations import items_of, weekdays_of
from runners.scoring.names import TITLES, is_label, is_name
from runners.scoring.stance import asks_yes_or_no, is_denial, leading_stance, without_asked
from runners.scoring.statements import (
    content_tokens,
    dates_of,
    denies,
    language_of,
    numbers_of,
    statements,
    text_besides_dates,
)

LONG_FACT = 25
"""Of a fact with more content words, half of the numbers suffice: no two people would list all of them."""
_CLOSED = re.compile(r"\b(?:clos|shut|not open|ruhetag|geschlossen|cerrad|ferm)", re.I)


class WantedFact:
    """A fact, taken apart once for all answers to its question."""

    def __init__(self, fact: str, question: str, known: tuple[str, ...]) -> None:
        self.fact = fact
        self.question = question
        self.known = known

    @cached_property
    def language(self) -> str:
        """The language of question, fact and references together."""
        return language_of(" ".join((self.question, self.fact, *self.known)))

    @cached_property
    def text(self) -> str:
        """The fact without a closing question, unless it is nothing but a question."""
        return " ".join(statements(self.fact)) or self.fact

    @cached_property
    def question_tokens(self) -> tuple[str, ...]:
        """The content words of the question."""
        return content_tokens(self.question, self.language)

    @cached_property
    def all_tokens(self) -> tuple[str, ...]:
        """The content words of the fact, without its dates."""
        return content_tokens(text_besides_dates(self.text), self.language)

    @cached_property
    def dates(self) -> frozenset[Date]:
        """The dates of the fact."""
        return dates_of(self.text)

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The content words of the fact that the question lacks."""
        in_question = set(self.question_tokens)
        tokens = tuple(token for token in self.all_tokens if token not in in_question)
        named = tuple(token for token in tokens if token.capitalize() not in TITLES) if self.is_name else ()
        return named or tokens

    @cached_property
    def known_tokens(self) -> frozenset[str]:
        """The content words of fact, references and question."""
        texts = (self.text, *self.known)
        return frozenset(
            token for text in texts for token in content_tokens(text, self.language)
        ) | frozenset(self.question_tokens)

    @cached_property
    def numbers(self) -> frozenset[str]:
        """The numbers and times of the fact, without its dates."""
        return numbers_of(text_besides_dates(self.text), self.language)

    @cached_property
    def known_numbers(self) -> frozenset[str]:
        """The numbers of question, fact and references."""
        texts = (self.question, self.text, *self.known)
        return frozenset(number for text in texts for number in numbers_of(text, self.language))

    @cached_property
    def yes_no_question(self) -> bool:
        """Whether the question asks for a yes or no."""
        return asks_yes_or_no(self.question, self.language)

    @cached_property
    def stance(self) -> str | None:
        """The yes or no of the fact: its first word, or for a question that asks for one, whether it denies."""
        if lead := leading_stance(self.fact):
            return lead
        if not self.yes_no_question:
            return None
        if denies(without_asked(self.text, self.question), self.language):
            return "no"
        whole = len(self.fact.split()) > 3 or not (self.tokens or self.numbers or self.dates)
        return "yes" if whole or self.language in ("Japanese", "Chinese") else None

    @cached_property
    def is_denial(self) -> bool:
        """Whether the fact denies something that was not asked by a yes or no."""
        return (
            self.stance is None
            and not (self.yes_no_question or self.numbers or self.dates)
            and len(statements(self.fact)) == 1
            and is_denial(self.text, self.language)
            and not denies(self.question, self.language)
        )

    @cached_property
    def amounts(self) -> tuple[Quantity, ...]:
        """The amounts of the fact, without times and dates."""
        return amounts_of(self.text)

    @cached_property
    def known_amounts(self) -> tuple[Quantity, ...]:
        """The amounts of fact, references and question."""
        return tuple(q for text in (self.text, *self.known, self.question) for q in amounts_of(text))

    @cached_property
    def items(self) -> tuple[str, ...]:
        """The items of a fact that is a list."""
        return () if self.stance or self.yes_no_question else items_of(self.fact, self.question)

    @cached_property
    def weekdays(self) -> frozenset[int]:
        """The days that an answer must name; none for a long fact."""
        short = len(self.all_tokens) <= LONG_FACT
        return self.days_in(self.text) if short else frozenset()

    def days_in(self, text: str) -> frozenset[int]:
        """Return the days that a text names, those of "closed on Sundays" too where the question is about being closed."""
        return weekdays_of(text, groups=True, asked_closed=bool(_CLOSED.search(self.question)))

    @cached_property
    def is_name(self) -> bool:
        """Whether the fact is a name of one to four words: "Maria Lindqvist", "Mill Lane"."""
        return is_name(self.text) and not self.weekdays

    @cached_property
    def is_label(self) -> bool:
        """Whether the fact is a name with a number and no amount: "Kellmann 118"."""
        measured = any(q.unit for q in self.amounts) or any(":" in number for number in self.numbers)
        return is_label(self.text) and not self.dates and not measured

    @cached_property
    def rewrites(self) -> bool:
        """Whether the fact is the question written anew, so that only the whole text can be compared."""
        long = len(self.fact.split()) >= 3 and self.stance is None
        return (
            long
            and not self.tokens
            and self.numbers <= numbers_of(self.question, self.language)
            and (len(self.all_tokens) >= 0.6 * len(self.question_tokens))
            and not self.is_denial
        )


@lru_cache(maxsize=8192)
def wanted_fact(fact: str, question: str, known: tuple[str, ...]) -> WantedFact:
    """Return the fact of a question, taken apart; recent ones are cached, as all arms answer the same questions."""
    return WantedFact(fact, question, known)
