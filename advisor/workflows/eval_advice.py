"""Score the advice on published cases: situations in which one way of adapting a model came out ahead."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.methods.registry import methods_by_name
from advisor.questionnaire.profile import Profile
from advisor.recommendation.ranking import Ranking, rank_methods
from rag.errors import BadInput, Problem

CASE_USES = ("winner_only", "winner_or_also", "constraint")
PROMPTED_METHODS = {"prompting", "few-shot"}


@dataclass(frozen=True, slots=True)
class AdviceCase:
    """One published situation with the method that won in it."""

    id: str
    source: str
    profile: Profile
    winner: str
    also: frozenset[str]
    use: str
    forbidden: frozenset[str]

    def accepts(self, choice: str) -> bool:
        """Whether a choice counts as right.

        ``constraint``: anything the hardware does not forbid; ``winner_only``: the winner; else the winner or
        what the source supports nearly as well, and prompting and few-shot stand for each other.
        """
        if self.use == "constraint":
            return choice not in self.forbidden
        if self.use == "winner_only":
            return choice == self.winner
        both = PROMPTED_METHODS if self.winner in PROMPTED_METHODS else frozenset()
        return choice == self.winner or choice in self.also or choice in both


@dataclass(frozen=True, slots=True)
class ScoredCase:
    """A case and the advice given on it."""

    case: AdviceCase
    ranking: Ranking

    @property
    def accepted(self) -> bool:
        """Whether the choice counts as right."""
        return self.case.accepts(self.ranking.choice)

    @property
    def exact(self) -> bool:
        """Whether the choice is the very winner."""
        return self.case.winner == self.ranking.choice


def read_cases(path: Path) -> tuple[AdviceCase, ...]:
    """Read ``{"cases": [...]}``; BadInput names the file, the case and the key that cannot be used."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadInput(f"the case file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BadInput(f"the case file {path} is not JSON: {error}") from None
    rows = data.get("cases") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not rows:
        raise BadInput(
            f"{path} holds no cases", 'it must be {"cases": [{"id", "answers", "winner", ...}, ...]}'
        )
    return tuple(_case(row, f"{path}, case {number}") for number, row in enumerate(rows, 1))


def score_cases(cases: Sequence[AdviceCase]) -> tuple[ScoredCase, ...]:
    """Rank every case."""
    return tuple(ScoredCase(case, rank_methods(case.profile)) for case in cases)


def cases_json(scored: Sequence[ScoredCase]) -> dict[str, Any]:
    """Return what ``eval-advice --json`` prints: counts, the confusion table, each miss with its reasons."""
    confusion = Counter((one.case.winner, one.ranking.choice) for one in scored)
    table = {
        winner: {
            choice: confusion[winner, choice] for choice in methods_by_name() if confusion[winner, choice]
        }
        for winner in methods_by_name()
        if any(confusion[winner, choice] for choice in methods_by_name())
    }
    return {
        "schema": 1,
        "n": len(scored),
        "accepted": sum(one.accepted for one in scored),
        "exact": sum(one.exact for one in scored),
        "confusion": table,
        "misses": [_miss(one) for one in scored if not one.accepted],
        "near": [
            {"id": one.case.id, "winner": one.case.winner, "choice": one.ranking.choice}
            for one in scored
            if one.accepted and not one.exact
        ],
    }


def _miss(one: ScoredCase) -> dict[str, Any]:
    first = one.ranking.methods[0]
    counted = [f for f in one.ranking.findings if f.need and first.method.serves.get(f.need, 0) >= 0.5]
    wanted = next(s for s in one.ranking.methods if s.method.name == one.case.winner)
    return {
        "id": one.case.id,
        "source": one.case.source,
        "winner": one.case.winner,
        "choice": one.ranking.choice,
        "reasons": [{"rule": f.rule.code(), "text": f.text} for f in counted],
        "winner_score": wanted.score,
        "choice_score": first.score,
        "winner_blockers": [blocker.to_json() for blocker in wanted.blockers],
    }


def _case(row: Any, place: str) -> AdviceCase:
    if not isinstance(row, dict):
        raise BadInput(f"{place} is not an object")
    name = str(row.get("id") or place)
    place = f"{place} ({name})" if row.get("id") else place
    winner, use = row.get("winner"), row.get("test_use") or "winner_or_also"
    if winner not in methods_by_name():
        raise BadInput(f"{place}: winner cannot be {winner!r}", f"allowed: {', '.join(methods_by_name())}")
    if use not in CASE_USES:
        raise BadInput(f"{place}: test_use cannot be {use!r}", f"allowed: {', '.join(CASE_USES)}")
    answers = row.get("answers")
    if not isinstance(answers, dict):
        raise BadInput(f"{place}: answers is missing", "an object with the questionnaire's keys")
    try:
        profile = Profile.of(answers)
    except Problem as problem:
        raise BadInput(f"{place}: {problem.message}", problem.hint) from None
    forbids = row.get("hardware_forbids") or {}
    also = _names(row.get("also_acceptable") or (), f"{place}: also_acceptable")
    forbidden = _names(
        forbids.get("methods") or () if isinstance(forbids, Mapping) else (), f"{place}: methods"
    )
    if use == "constraint" and not forbidden:
        raise BadInput(f"{place}: test_use is constraint, but hardware_forbids names no method")
    source = row.get("source")
    title = source.get("title") if isinstance(source, Mapping) else source
    return AdviceCase(name, str(title or ""), profile, winner, also, use, forbidden)


def _names(given: Any, place: str) -> frozenset[str]:
    wrong = (
        [name for name in given if name not in methods_by_name()]
        if isinstance(given, list | tuple)
        else [given]
    )
    if wrong:
        raise BadInput(f"{place} cannot hold {wrong[0]!r}", f"allowed: {', '.join(methods_by_name())}")
    return frozenset(given)
