"""The lines after each answer: which method leads now, how the scores moved, and what is not offered and why."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from advisor.recommendation.ranking import Ranking, ScoredMethod

StyledText = tuple[str, str]
"""A style class and its text, as prompt_toolkit takes them."""
MIN_SCORE_MOVE = 0.005
"""Least change of a score that is shown as ▲ or ▼."""
REASON_LINES = 3
"""Most lines about methods that cannot be done here or would have no use."""


SCORE_LABEL = "  fit:"
"""Label of the scores, which go from 0 to 1."""


def leader_lines(
    before: Ranking | None, after: Ranking, lacking: Mapping[str, str], width: int
) -> list[list[StyledText]]:
    """Return the lines to show: the scores with the leader first, then what is not possible here.

    ▲ and ▼ mark scores that rose or fell; "was" names the earlier leader when it changed.

    Args:
        before: ranking before the answer, None if there was none.
        after: ranking after it.
        lacking: methods for which a package is missing, with what they need.
        width: most columns of a line.
    """
    scored_before = {scored.method.name: scored for scored in before.methods} if before else {}
    open_methods = [
        scored for scored in after.methods if not scored.blockers and scored.method.name not in lacking
    ]
    unchanged = before is not None and _shown_parts(before) == _shown_parts(after)
    tail = ""
    if before and before.choice != after.choice:
        tail = f"  (was {before.choice})"
    elif unchanged:
        tail = "  (unchanged)"
    lines = [_score_line(open_methods, scored_before, unchanged, tail, width)]
    if not unchanged:
        reasons = textwrap.wrap(
            _impossible_methods(after, lacking), width - 2, max_lines=REASON_LINES, placeholder=" …"
        )
        lines += [[("class:why", f"  {line}")] for line in reasons]
    return lines


def _score_line(
    methods: list[ScoredMethod],
    scored_before: Mapping[str, ScoredMethod],
    unchanged: bool,
    tail: str,
    width: int,
) -> list[StyledText]:
    """Return as many methods as fit into ``width``, and how many are left out."""
    parts: list[StyledText] = [("class:why", SCORE_LABEL)]
    space = width - len(tail)
    used = len(SCORE_LABEL)
    for number, scored in enumerate(methods):
        text = f"  {scored.method.name} {_score(scored)}{_arrow(scored, scored_before)}"
        left = len(methods) - number
        rest_text = f"  +{left} more"
        if used + len(text) + (len(rest_text) if left > 1 else 0) > space:
            parts.append(("class:why", rest_text))
            break
        style = "class:why" if unchanged else "class:leader" if number == 0 else ""
        parts.append((style, text))
        used += len(text)
    return [*parts, ("class:why", tail)]


def _impossible_methods(after: Ranking, lacking: Mapping[str, str]) -> str:
    """Return each reason once, after the methods that it rules out."""
    by_reason: dict[str, list[str]] = {}
    for scored in after.shown:
        name = scored.method.name
        reason = scored.blockers[0].text if scored.blockers else lacking.get(name)
        if reason:
            by_reason.setdefault(reason, []).append(name)
    lines = [f"{', '.join(names)} ({reason})" for reason, names in by_reason.items()]
    return f"not offered: {'; '.join(lines)}" if lines else ""


def _shown_parts(ranking: Ranking) -> list[tuple[str, float, str]]:
    """Return the parts of a ranking that the lines show."""
    return [
        (scored.method.name, scored.score, scored.blockers[0].text if scored.blockers else "")
        for scored in ranking.methods
    ]


def _score(scored: ScoredMethod) -> str:
    return f"{scored.score:.2f}".removeprefix("0")


def _arrow(scored: ScoredMethod, scored_before: Mapping[str, ScoredMethod]) -> str:
    before = scored_before.get(scored.method.name)
    if before is None:
        return ""
    if before.blockers:
        return " ▲"
    change = scored.score - before.score
    return " ▲" if change > MIN_SCORE_MOVE else " ▼" if change < -MIN_SCORE_MOVE else ""
