"""How one question is shown: the question first, then why it matters, an example, and words that are new to the reader."""

from __future__ import annotations

from advisor.glossary import TERMS, Term, find_term, terms_in
from advisor.probe.offer import ProbeOffer
from advisor.questionnaire.question_types import Question
from advisor.wizard.interview import AskedQuestion
from advisor.wizard.leader_line import StyledText

MEASURE_WORD = "measure"
"""What is typed, in place of an answer, to have it measured."""
CHANGES = "This answer may change the recommendation."


class IntroducedWords:
    """The words of the glossary that were explained in this session, each where it was first shown."""

    def __init__(self) -> None:
        """Start with none."""
        self._names: set[str] = set()

    def new_in(self, text: str) -> list[Term]:
        """Return the words of a text that need an explanation and had none yet; they count as explained from now on."""
        terms = [term for term in terms_in(text) if term.name not in self._names]
        self._names |= {term.name for term in terms}
        return terms

    def first_time(self, name: str) -> Term | None:
        """Return the word with this name or alias when it is shown for the first time; None later, or for other words."""
        term = find_term(name)
        if term is None or term.name in self._names:
            return None
        self._names.add(term.name)
        return term


def question_lines(asked: AskedQuestion, words: IntroducedWords) -> list[StyledText]:
    """Return the lines to show above the answer; they are still to be wrapped.

    Args:
        asked: the question.
        words: the words explained before; those that are explained here are added.
    """
    question = asked.question
    lines: list[StyledText] = [("class:why", question.why)]
    if question.example:
        lines.append(("class:why", f"For example: {question.example}"))
    lines += [("class:word", f"{term.name}: {term.sentence}") for term in words.new_in(_shown_text(question))]
    if asked.measurement and not asked.measurement.missing and not question.choices:
        lines.append(("class:decides", f"Not sure? Type {MEASURE_WORD}: {measure_text(asked.measurement)}."))
    if asked.decides:
        lines.append(("class:decides", CHANGES))
    if asked.known and asked.known.note:
        lines.append(("class:why", f"{asked.known.source}: {asked.known.note}"))
    return lines


def measure_text(offer: ProbeOffer) -> str:
    """Return what it takes to have an answer measured."""
    return f"about {offer.minutes} min on some of your questions"


def help_lines(asked: AskedQuestion) -> list[StyledText]:
    """Return what the key ? shows: the words of the question, and that it may be left open."""
    question = asked.question
    terms = terms_in(_shown_text(question), [term.name for term in TERMS])
    lines: list[StyledText] = [
        ("class:word", f"{term.name}: {term.sentence} For example: {term.example}") for term in terms
    ]
    allowed = (
        "" if question.choices or question.kind in ("flag", "text") else f" An answer is {question.allowed}."
    )
    lines.append(
        (
            "class:decides",
            f"You need not know this: without an answer the recommendation is only less certain.{allowed}",
        )
    )
    if asked.measurement:
        offer = asked.measurement
        lines.append(
            ("class:decides", f"It can be measured for you: {offer.missing or measure_text(offer)}.")
        )
    return lines


def _shown_text(question: Question) -> str:
    """Return everything of a question that is shown, except its example."""
    return " ".join([question.text, question.why, *(choice.help for choice in question.choices)])
