"""Records of what the check of support makes of an arm's answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskPoint:
    """Shares at one cut of the support."""

    answered: float
    """Of all judged questions."""
    wrong: float
    """Of the answers given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedAnswers:
    """What an arm's answers are with one way of the check; rows of all training seeds count."""

    right: int
    """Right answers that were given; refusals of questions without an answer are not among them."""
    wrong: int
    refused: int

    @property
    def given(self) -> int:
        """How many answers were given."""
        return self.right + self.wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerChecks:
    """The same answers with unsupported ones marked, and with them refused."""

    applied: str
    """refuse or mark."""
    why: str
    """Why one or the other is applied, "" where the plan wants them marked."""
    least_support: float
    """Support under which an answer is refused."""
    mark: CheckedAnswers
    refuse: CheckedAnswers
