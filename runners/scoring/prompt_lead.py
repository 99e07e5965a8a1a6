"""Whether a prompt replaces the default: its lead on fresh questions, and what it costs to read.

A prompt replaces the default when at least :data:`MIN_DIFFERING` fresh questions differ and its lead holds. Of two prompts
that are about as good the cheaper one is kept. :attr:`ScoreLead.replaces` is the rule; `benchmarks/audition.py` simulates it
beside others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MIN_DIFFERING = 3
"""Fresh questions on which both prompts must have different scores. The mean of one difference among zeros equals its own
standard error, of two about one and a half: with fewer than three, one lucky answer decides."""
LEAD_ERRORS = 1.12
"""Standard errors by which the other prompt must lead. So of equal prompts it is taken in at most 15 of 100 trials with 8
questions (Student's t), and less with more; a sign-flip test at that level takes nearly the same ones."""
SMALL_LEAD = 0.02
"""Prompts whose mean scores are less than this apart are about as good, where one is cheaper."""
CHEAPER_SHARE = 0.9
"""A prompt with at most this share of another's tokens is cheaper; a few tokens less are no reason to take it."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreLead:
    """The lead of one prompt over the default on the same fresh questions, and the tokens of both."""

    difference: float
    error: float
    """Standard error of the mean difference over the questions."""
    questions: int
    differing: int
    """Questions on which the two have different scores."""
    tokens: float = 0.0
    """Mean prompt tokens of the other, with the questions and their passages."""
    default_tokens: float = 0.0
    """The same of the default."""

    @property
    def holds(self) -> bool:
        """Whether the lead is more than luck: enough questions differ, and it is large beside its standard error."""
        if self.differing < MIN_DIFFERING or self.difference <= _ROUNDING:
            return False
        return self.difference >= LEAD_ERRORS * self.error

    @property
    def cheaper(self) -> bool:
        """Whether the other prompt is cheaper to read than the default."""
        return is_cheaper(self.tokens, self.default_tokens)

    @property
    def dearer(self) -> bool:
        """Whether the default is cheaper to read than the other prompt."""
        return is_cheaper(self.default_tokens, self.tokens)

    @property
    def replaces(self) -> bool:
        """Whether the other prompt replaces the default.

        It does when its lead holds. A dearer one must also lead by :data:`SMALL_LEAD`: less is about as good. A cheaper one
        replaces it too where fewer than :data:`MIN_DIFFERING` questions differ and it is not behind: nearly the same answers
        for less. Where more differ and no lead holds, neither is known to be as good as the other, and the default stays.
        """
        if self.cheaper and self.differing < MIN_DIFFERING and self.difference >= -_ROUNDING:
            return True
        return self.holds and not (self.dearer and self.difference < SMALL_LEAD - _ROUNDING)

    def reason(self, other: str, default: str) -> str:
        """Return which of the two prompts is used, and why, in words.

        Args:
            other: name of the other prompt.
            default: name of the default.
        """
        differing = f"{self.differing or 'none'} of them {'differ' if self.differing > 1 else 'differs'}"
        evidence = f"{self.difference:+.2f} on {self.questions} fresh questions, {differing}"
        tokens = f"{self.tokens:,.0f} prompt tokens instead of {self.default_tokens:,.0f}"
        if self.replaces:
            return f"{other} chosen: {evidence}" + (f"; {tokens}" if self.cheaper or self.dearer else "")
        if self.difference <= _ROUNDING:
            why = "not ahead"
        elif self.differing < MIN_DIFFERING:
            why = f"at least {MIN_DIFFERING} must"
        elif not self.holds:
            why = f"a lead below {LEAD_ERRORS:g} of its standard errors ({self.error:.2f}) may be luck"
        else:
            why = f"about as good, but {tokens}"
        return f"{default} kept: {other} {evidence} ({why})"


def score_lead(
    other: Sequence[float], default: Sequence[float], tokens: float = 0.0, default_tokens: float = 0.0
) -> ScoreLead:
    """Return how far one prompt's scores are above the default's, paired by question.

    Args:
        other: scores of the other prompt [questions], at least two.
        default: scores of the default on the same questions.
        tokens: mean prompt tokens of the other prompt.
        default_tokens: mean prompt tokens of the default on the same questions.
    """
    differences = [a - b for a, b in zip(other, default, strict=True)]
    mean = sum(differences) / len(differences)
    variance = sum((value - mean) ** 2 for value in differences) / (len(differences) - 1)
    return ScoreLead(
        difference=mean,
        error=math.sqrt(variance / len(differences)),
        questions=len(differences),
        differing=sum(abs(value) > _ROUNDING for value in differences),
        tokens=tokens,
        default_tokens=default_tokens,
    )


def is_cheaper(tokens: float, others: float) -> bool:
    """Return whether a prompt of so many tokens is cheaper than one of ``others``."""
    return tokens < others and tokens <= CHEAPER_SHARE * others
