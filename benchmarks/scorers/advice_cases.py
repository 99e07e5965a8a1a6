"""Score the advice on published cases: situations in which one way of adapting a model came out ahead."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from advisor.display.console import table
from advisor.methods.registry import methods_by_name
from advisor.questionnaire.profile import Profile
from advisor.recommendation.also_measure import arms_to_measure
from advisor.recommendation.confidence import level_of
from advisor.recommendation.probability import advice_probability
from advisor.recommendation.ranking import Ranking, rank_methods
from rag.errors import BadInput, Problem
from rag.evaluation.statistics import WilsonShare

CASE_USES = ("winner_only", "winner_or_also", "constraint")
BANDS = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 1.01)
"""Edges of the bands of probability in a reliability table."""
PROMPTED_METHODS = {"prompting", "few-shot"}
OTHER_WINNERS = ("classifier", "nearest-reply", "router", "long-context", "agentic-search")
"""What can win a published comparison beside the methods that are advised."""


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
    probability: float
    """That the choice is accepted, 0 to 1."""

    @property
    def accepted(self) -> bool:
        """Whether the choice counts as right."""
        return self.case.accepts(self.ranking.choice)

    @property
    def exact(self) -> bool:
        """Whether the choice is the winner itself."""
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
            f"{path} has no cases", 'it must be {"cases": [{"id", "answers", "winner", ...}, ...]}'
        )
    return tuple(_case(row, f"{path}, case {number}") for number, row in enumerate(rows, 1))


def score_cases(cases: Sequence[AdviceCase]) -> tuple[ScoredCase, ...]:
    """Rank every case, with the probability of its first method."""
    scored = []
    for case in cases:
        ranking = rank_methods(case.profile)
        sure = advice_probability(case.profile, ranking, arms_to_measure(case.profile))
        scored.append(ScoredCase(case, ranking, sure.value))
    return tuple(scored)


def reliability(pairs: Sequence[tuple[float, bool]]) -> list[dict[str, Any]]:
    """Return how often advice of each band of probability held: the band, its mean, and a share with its Wilson interval.

    Args:
        pairs: probability, 0 to 1, and whether the advice held.
    """
    rows = []
    for low, high in pairwise(BANDS):
        inside = [pair for pair in pairs if low <= pair[0] < high]
        share = WilsonShare.of(sum(held for _, held in inside), len(inside))
        mean = sum(value for value, _ in inside) / len(inside) if inside else None
        rows.append({"from": low, "below": high, "mean": mean and round(mean, 3), **share.to_json()})
    return rows


def brier_score(pairs: Sequence[tuple[float, bool]]) -> float:
    """Return the mean squared difference of probability and outcome, 0 (always sure and right) to 1 (Brier, 1950)."""
    return sum((value - held) ** 2 for value, held in pairs) / len(pairs)


def cases_json(scored: Sequence[ScoredCase]) -> dict[str, Any]:
    """Return what ``eval-advice --json`` prints: counts, reliability, who was mistaken for whom, each miss."""
    pairs = [(result.probability, result.accepted) for result in scored]
    right = sum(result.accepted for result in scored) / len(scored)
    confusion = Counter((result.case.winner, result.ranking.choice) for result in scored)
    names = _winners()
    table = {
        winner: {choice: confusion[winner, choice] for choice in names if confusion[winner, choice]}
        for winner in names
        if any(confusion[winner, choice] for choice in names)
    }
    return {
        "schema": 1,
        "n": len(scored),
        "accepted": sum(result.accepted for result in scored),
        "exact": sum(result.exact for result in scored),
        "levels": levels(scored),
        "brier": round(brier_score(pairs), 4),
        "brier_of_constant": round(right * (1 - right), 4),
        "reliability": reliability(pairs),
        "confusion": table,
        "cases": [
            {
                "id": result.case.id,
                "winner": result.case.winner,
                "choice": result.ranking.choice,
                "accepted": result.accepted,
                "exact": result.exact,
                "probability": round(result.probability, 3),
                "level": level_of(result.probability),
            }
            for result in scored
        ],
        "misses": [_miss(result) for result in scored if not result.accepted],
        "near": [
            {"id": result.case.id, "winner": result.case.winner, "choice": result.ranking.choice}
            for result in scored
            if result.accepted and not result.exact
        ],
    }


def levels(scored: Sequence[ScoredCase]) -> dict[str, dict[str, Any]]:
    """Return cases and accepted cases for each level of confidence, with a Wilson interval of the share."""
    counted: dict[str, dict[str, Any]] = {}
    for level in ("high", "medium", "low"):
        inside = [result for result in scored if level_of(result.probability) == level]
        share = WilsonShare.of(sum(result.accepted for result in inside), len(inside))
        counted[level] = {
            "n": share.n,
            "accepted": share.hits,
            "low": round(share.low, 4),
            "high": round(share.high, 4),
        }
    return counted


def render_case_scores(scores: dict[str, Any]) -> Group:
    """Return the score of the advice on published cases: counts, confusion table, and each miss with its reasons.

    Args:
        scores: the object of ``eval-advice --json``.
    """
    names = list(
        dict.fromkeys(
            [*scores["confusion"], *(choice for row in scores["confusion"].values() for choice in row)]
        )
    )
    rows = [
        (
            winner,
            *(
                f"[green]{count}[/]" if (count := row.get(name, 0)) and name == winner else str(count or "·")
                for name in names
            ),
        )
        for winner, row in scores["confusion"].items()
    ]
    count = scores["n"]
    parts: list[RenderableType] = [
        Text.from_markup(
            f"[bold]{scores['accepted']}[/] of {count} accepted, [bold]{scores['exact']}[/] exact\n"
        ),
        table(("won \\ advised", *names), rows, right=range(1, len(names) + 1)),
        Text(),
        *_reliability_parts(scores),
    ]
    for miss in scores["misses"]:
        lines = [f"{escape(reason['text'])} [dim](rule {reason['rule']})[/]" for reason in miss["reasons"]]
        lines += [f"[red]blocked[/] {escape(blocker['text'])}" for blocker in miss["winner_blockers"]]
        head = f"\n[bold]{escape(miss['id'])}[/]  {miss['winner']} won, {miss['choice']} was advised"
        shown = Group(*(Text.from_markup(f"• {line}") for line in lines))
        source = Text.from_markup(f"{head} [dim]{escape(miss['source'])}[/]")
        parts += [source, Padding(shown, (0, 0, 0, 2), expand=False)]
    return Group(*parts)


def _reliability_parts(scores: Mapping[str, Any]) -> list[RenderableType]:
    """Return two tables, accepted cases by level of confidence and by band of probability, and the Brier scores."""
    levels = [
        (level, str(row["n"]), str(row["accepted"]), _share_interval(row["accepted"], row))
        for level, row in scores["levels"].items()
    ]
    bands = [
        (
            f"{row['from']:.2f} to {min(1.0, row['below']):.2f}",
            str(row["n"]),
            f"{row['mean']:.2f}",
            _share_interval(row["hits"], row),
        )
        for row in scores["reliability"]
        if row["n"]
    ]
    return [
        table(("confidence", "cases", "accepted", "share, 95 %"), levels, right=(1, 2)),
        Text(),
        table(("probability", "cases", "mean", "accepted, 95 %"), bands, right=(1, 2)),
        Text(
            f"Brier score {scores['brier']:.3f}; of always the same probability {scores['brier_of_constant']:.3f}"
        ),
    ]


def _share_interval(hits: int, row: Mapping[str, Any]) -> str:
    return f"{hits / row['n']:.2f}  {row['low']:.2f}–{row['high']:.2f}" if row["n"] else "–"


def _miss(result: ScoredCase) -> dict[str, Any]:
    """Return a case on which the advice was wrong, with the reasons of the advice and what blocked the winner."""
    first = result.ranking.methods[0]
    counted = [
        finding
        for finding in result.ranking.findings
        if finding.need and first.method.serves.get(finding.need, 0) >= 0.5
    ]
    by_name = {scored.method.name: scored for scored in result.ranking.methods}
    winner = by_name.get(result.case.winner)
    return {
        "id": result.case.id,
        "source": result.case.source,
        "winner": result.case.winner,
        "choice": result.ranking.choice,
        "reasons": [{"rule": finding.rule.code(), "text": finding.text} for finding in counted],
        "probability": round(result.probability, 3),
        "winner_score": winner.score if winner else None,
        "choice_score": first.score,
        "winner_blockers": [blocker.to_json() for blocker in winner.blockers] if winner else [],
    }


def _case(row: Any, location: str) -> AdviceCase:
    """Return a case from its row; BadInput names ``location`` and the key that cannot be used."""
    if not isinstance(row, dict):
        raise BadInput(f"{location} is not an object")
    name = str(row.get("id") or location)
    location = f"{location} ({name})" if row.get("id") else location
    winner, use = row.get("winner"), row.get("test_use") or "winner_or_also"
    if winner not in _winners():
        raise BadInput(f"{location}: winner cannot be {winner!r}", f"allowed: {', '.join(_winners())}")
    if use not in CASE_USES:
        raise BadInput(f"{location}: test_use cannot be {use!r}", f"allowed: {', '.join(CASE_USES)}")
    answers = row.get("answers")
    if not isinstance(answers, dict):
        raise BadInput(f"{location}: answers is missing", "an object with the questionnaire's keys")
    answers = {**answers, **_of_labels(row.get("coded"))}
    try:
        # Published runs are judged as they were made: other programs shard 4-bit weights and answer from several GPUs.
        profile = replace(Profile.of(answers), other_program=True)
    except Problem as problem:
        raise BadInput(f"{location}: {problem.message}", problem.hint) from None
    forbids = row.get("hardware_forbids") or {}
    also_acceptable = _names(row.get("also_acceptable") or (), f"{location}: also_acceptable")
    forbidden = _names(
        forbids.get("methods") or () if isinstance(forbids, Mapping) else (), f"{location}: methods"
    )
    if use == "constraint" and not forbidden:
        raise BadInput(f"{location}: test_use is constraint, but hardware_forbids names no method")
    source = row.get("source")
    title = source.get("title") if isinstance(source, Mapping) else source
    return AdviceCase(name, str(title or ""), profile, winner, also_acceptable, use, forbidden)


def _of_labels(coded: Any) -> dict[str, Any]:
    """Return the answers that ``coded`` gives: number of labels, and whether they need knowledge.

    These keys were coded before the questionnaire asked for them.
    """
    if not isinstance(coded, Mapping) or coded.get("labels") is None:
        return {}
    return {
        "output_format": "labels",
        "label_count": coded["labels"],
        "labels_need_knowledge": coded.get("world_knowledge"),
    }


def _winners() -> tuple[str, ...]:
    return tuple(dict.fromkeys((*methods_by_name(), *OTHER_WINNERS)))


def _names(given: Any, location: str) -> frozenset[str]:
    unknown = (
        [name for name in given if name not in _winners()] if isinstance(given, list | tuple) else [given]
    )
    if unknown:
        raise BadInput(f"{location} cannot contain {unknown[0]!r}", f"allowed: {', '.join(_winners())}")
    return frozenset(given)
