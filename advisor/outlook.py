"""How the choice depends on one answer, all others staying as they are: a line cut into spans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from advisor.profile import Profile
from advisor.questions import BY_ID
from advisor.ranking import rank
from advisor.thresholds import NUMERIC, Span, spans

CHOICES: tuple[str, ...] = tuple(
    key for key, question in BY_ID.items() if question.kind in ("choice", "flag")
)


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where every answer, changed alone, leads."""

    numbers: Mapping[str, tuple[Span, ...]]
    """For each numeric answer its spans, ascending."""
    choices: Mapping[str, Mapping[str | bool, str]]
    """For each answer to choose from what each value leads to."""

    @classmethod
    def of(cls, p: Profile) -> Outlook:
        """Work it out for a profile: some hundred rankings."""
        return cls({key: spans(p, key) for key in NUMERIC}, {key: choices(p, key) for key in CHOICES})


def choices(p: Profile, key: str) -> dict[str | bool, str]:
    """Return the choice that each possible value of an answer to choose from leads to."""
    values: list[str | bool] = [choice.value for choice in BY_ID[key].choices] or [True, False]
    return {value: rank(p.change(key, value)).choice for value in values}
