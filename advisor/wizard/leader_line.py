"""The line after each answer: who leads now, how that moved, and what cannot be done and why."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from advisor.recommendation.ranking import Ranking, ScoredMethod

StyledText = tuple[str, str]
"""A style class and its text, as prompt_toolkit takes them."""
MIN_SCORE_MOVE = 0.005
REASON_LINES = 2


def leader_lines(
    before: Ranking | None, after: Ranking, lacking: Mapping[str, str], width: int
) -> list[list[StyledText]]:
    """Return the lines, at most ``width`` columns wide: the scores, then what is impossible here.

    The leader comes first; ▲ and ▼ show what rose and fell, and "was" names the leader before when it changed.
    """
    was = {scored.method.name: scored for scored in before.methods} if before else {}
    open_methods = [s for s in after.methods if not s.blockers and s.method.name not in lacking]
    same = before is not None and _told(before) == _told(after)
    tail = ""
    if before and before.choice != after.choice:
        tail = f"  (was {before.choice})"
    elif same:
        tail = "  (unchanged)"
    lines = [_scores(open_methods, was, same, tail, width)]
    if not same:
        reasons = textwrap.wrap(
            _impossible(after, lacking), width - 2, max_lines=REASON_LINES, placeholder=" …"
        )
        lines += [[("class:why", f"  {line}")] for line in reasons]
    return lines


def _scores(
    methods: list[ScoredMethod], was: Mapping[str, ScoredMethod], same: bool, tail: str, width: int
) -> list[StyledText]:
    """Return as many methods as fit; how many are left out is said."""
    parts: list[StyledText] = []
    room = width - len(tail)
    used = 0
    for number, scored in enumerate(methods):
        text = f"  {scored.method.name} {_score(scored)}{_arrow(scored, was)}"
        left = len(methods) - number
        more = f"  +{left} lower"
        if used + len(text) + (len(more) if left > 1 else 0) > room:
            parts.append(("class:why", more))
            break
        style = "class:why" if same else "class:leader" if number == 0 else ""
        parts.append((style, text))
        used += len(text)
    return [*parts, ("class:why", tail)]


def _impossible(after: Ranking, lacking: Mapping[str, str]) -> str:
    """Return each reason once, after the methods that it forbids."""
    by_reason: dict[str, list[str]] = {}
    for scored in after.methods:
        name = scored.method.name
        reason = scored.blockers[0].text if scored.blockers else lacking.get(name)
        if reason:
            by_reason.setdefault(reason, []).append(name)
    said = [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]
    return f"not possible: {'; '.join(said)}" if said else ""


def _told(ranking: Ranking) -> list[tuple[str, float, str]]:
    """Return what the lines would tell of a ranking."""
    return [(s.method.name, s.score, s.blockers[0].text if s.blockers else "") for s in ranking.methods]


def _score(scored: ScoredMethod) -> str:
    return f"{scored.score:.2f}".removeprefix("0")


def _arrow(scored: ScoredMethod, was: Mapping[str, ScoredMethod]) -> str:
    before = was.get(scored.method.name)
    if before is None:
        return ""
    if before.blockers:
        return " ▲"
    change = scored.score - before.score
    return " ▲" if change > MIN_SCORE_MOVE else " ▼" if change < -MIN_SCORE_MOVE else ""
