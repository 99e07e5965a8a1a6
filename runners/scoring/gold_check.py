"""Whether a question's own references are right by the rule that judges answers: :func:`check_gold`.

A reference that the rule calls wrong contradicts the short answers beside it, reads as a refusal, or is worded in a way that
the rule does not understand. Right answers are then counted as wrong for every arm, so this is said before a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rag.errors import BadInput
from rag.text.words import count_noun
from runners.data.questions import Question
from runners.data.sampling import QuestionSplit
from runners.plan.schema import Plan
from runners.scoring.scores import fault_by_plan

MAX_FAILING_SHARE = 0.02
"""Largest share of questions with a reference that fails at which a run goes on without asking."""
SHOWN = 3
MAX_SHOWN_CHARS = 70


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingReference:
    """A reference that the rule calls wrong."""

    file: str
    line: int
    id: str
    text: str
    reason: str

    def __str__(self) -> str:
        """Return place, text and reason."""
        short = self.text if len(self.text) <= MAX_SHOWN_CHARS else self.text[: MAX_SHOWN_CHARS - 1] + "…"
        return f"{self.file}:{self.line}: {short!r}: {self.reason}"


class FailingGold(BadInput):
    """Too many questions have a reference that would not count as a right answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldCheck:
    """The references that fail, the first of each question."""

    checked: int
    """Questions that have a reference."""
    failing: tuple[FailingReference, ...] = ()

    @property
    def too_many(self) -> bool:
        """Whether a run asks before it goes on."""
        return len(self.failing) > MAX_FAILING_SHARE * self.checked

    @property
    def headline(self) -> str:
        """How many questions have a reference that fails."""
        of = f"{len(self.failing)} of {count_noun(self.checked, 'question')}"
        return f"{of} {'has' if len(self.failing) == 1 else 'have'} a reference that would not count as a right answer"

    @property
    def rows(self) -> list[str]:
        """The first references that fail; how many more there are stands behind the last."""
        shown = [str(each) for each in self.failing[:SHOWN]]
        if more := len(self.failing) - len(shown):
            shown[-1] += f" (and {more} more)"
        return shown


def check_gold(plan: Plan, split: QuestionSplit) -> GoldCheck:
    """Judge every reference of a plan's questions as an answer to its question.

    Other wordings of a question are not judged again, and neither is the text of gold spans, which is in the index.
    """
    checked = 0
    failing: list[FailingReference] = []
    own_test = plan.data.test_questions or plan.data.questions
    for path, questions in ((plan.data.questions, split.dev), (own_test, split.test)):
        for question in questions:
            texts = list(_texts(question)) if question.wording_of is None else []
            checked += bool(texts)
            faults = ((text, fault_by_plan(plan, question, text)) for text in texts)
            failing += next(([_failing(path, question, *pair)] for pair in faults if pair[1]), [])
    return GoldCheck(checked=checked, failing=tuple(sorted(failing, key=lambda each: (each.file, each.line))))


def require_gold(check: GoldCheck) -> None:
    """Raise FailingGold where so many references fail that a run asks first."""
    if check.too_many:
        raise FailingGold(
            f"{check.headline}: {'; '.join(check.rows)}",
            "correct reference, answers or all_of of these rows; to measure with them all the same: --accept-failing-gold",
        )


def _failing(path: Path | None, question: Question, text: str, reason: str | None) -> FailingReference:
    return FailingReference(
        file=str(path), line=question.line, id=question.id, text=text, reason=reason or ""
    )


def _texts(question: Question) -> Iterator[str]:
    """Yield each text that the row calls a right answer; its parts with one of its answers are one text."""
    yield from question.references
    if question.all_of:
        for answer in question.answers or ("",):
            yield "; ".join(filter(None, (*question.all_of, answer)))
    else:
        yield from question.answers
