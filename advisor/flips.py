"""What would change the advice: for numbers the threshold, for other answers the single change."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from advisor.profile import Profile
from advisor.questions import BY_ID
from advisor.ranking import Ranking, rank

# Values worth trying on the way to a threshold: the search halves between two neighbours that differ.
GRIDS: dict[str, tuple[float, ...]] = {
    "labelled_examples": (0, 5, 10, 25, 50, 100, 200, 500, 1000, 2000, 5000, 20_000, 100_000),
    "corpus_tokens": (0, 1_000, 50_000, 200_000, 1_000_000),
    "unlabelled_tokens": (0, 1_000_000, 1_000_000_000),
    "calls_per_month": (0, 3_000, 30_000, 1_000_000),
    "prompting_pass_rate": (0.0, 0.4, 0.6, 0.9),
    "prompt_tokens": (100, 1_000, 3_000, 20_000),
    "model_params_b": (0.1, 0.5, 1, 2, 4, 8, 16, 35, 70),
    "gpu_memory_gib": (0, 8, 12, 16, 24, 48, 80),
    "budget_usd": (0, 10, 100, 1_000),
}
CHOICES: tuple[str, ...] = (
    "behaviour_gap", "task_needs_facts", "must_cite", "facts_change", "call_volume", "output_format",
    "absence_is_legal", "wrong_answer_cost",
)  # fmt: skip


def flips(p: Profile, ranking: Ranking) -> tuple[dict[str, Any], ...]:
    """Return every single change that makes another method first, the most plausible change first.

    Unknown answers come before known ones, near numbers before far ones.

    Applying one (the answer ``key`` set to ``to``, all else as it is) makes ``choice_becomes`` the choice.
    """
    choice = ranking.choice
    found = [flip for key in GRIDS for flip in _numeric(p, key, choice)]
    found += [flip for key in CHOICES for flip in _single(p, key, choice)]
    return tuple(sorted(found, key=lambda flip: (flip["distance"], flip["key"])))


def _choose(p: Profile, key: str, value: Any) -> str:
    return rank(p.change(key, value)).choice


def _single(p: Profile, key: str, choice: str) -> list[dict[str, Any]]:
    question, now = BY_ID[key], getattr(p, key)
    values: list[Any] = [c.value for c in question.choices] or [True, False]
    if now is None and key in ("output_format", "absence_is_legal"):
        values = values[1:] if key == "output_format" else [True]
    found = []
    for value in values:
        if value != now and (becomes := _choose(p, key, value)) != choice:
            distance = 0.3 if now is None else 0.5
            found.append(_flip(key, now, value, becomes, distance, f"{key} were {_say(value)}"))
    return found


def _numeric(p: Profile, key: str, choice: str) -> list[dict[str, Any]]:
    """Walk outwards from the present value; where the choice changes, halve to the threshold."""
    now = getattr(p, key)
    if now is None:
        return _unknown_number(p, key, choice)
    grid = GRIDS[key]
    found = []
    for steps, word in (
        ([g for g in grid if g > now], "at least"),
        ([g for g in reversed(grid) if g < now], "at most"),
    ):
        inside = now
        for value in steps:
            if (becomes := _choose(p, key, value)) != choice:
                edge, becomes = _halve(
                    lambda v: _choose(p, key, v), inside, value, choice, becomes, BY_ID[key].kind
                )
                found.append(
                    _flip(key, now, edge, becomes, _distance(now, edge), f"{key} were {word} {_say(edge)}")
                )
                break
            inside = value
    return found


def _unknown_number(p: Profile, key: str, choice: str) -> list[dict[str, Any]]:
    """Return the smallest grid value at which an unknown number would matter, with its exact threshold."""
    inside: float | None = None
    for value in GRIDS[key]:
        becomes = _choose(p, key, value)
        if becomes != choice:
            edge = value
            if inside is not None:
                edge, becomes = _halve(
                    lambda v: _choose(p, key, v), inside, value, choice, becomes, BY_ID[key].kind
                )
            word = "at least" if inside is not None else "only"
            return [_flip(key, None, edge, becomes, 0.8, f"{key} turned out to be {word} {_say(edge)}")]
        inside = value
    return []


def _halve(
    choose: Callable[[float], str], inside: float, outside: float, choice: str, becomes: str, kind: str
) -> tuple[float, str]:
    """Return the value nearest to ``inside`` that changes the choice, and what it becomes."""
    whole = kind == "count"
    while abs(outside - inside) > (1 if whole else 0.01 * max(abs(outside), 0.1)):
        middle = (inside + outside) / 2
        middle = float(int(middle)) if whole else round(middle, 4)
        if middle in (inside, outside):
            break
        if (there := choose(int(middle) if whole else middle)) == choice:
            inside = middle
        else:
            outside, becomes = middle, there
    return (int(outside) if whole else outside), becomes


def _distance(now: float, edge: float) -> float:
    """How far a number would have to move: half a point per power of ten (a share counts as it is)."""
    if 0 <= now <= 1 and 0 <= edge <= 1:
        return abs(edge - now)
    return 0.5 * abs(math.log10((edge + 1) / (now + 1)))


def _flip(key: str, now: Any, to: Any, becomes: str, distance: float, condition: str) -> dict[str, Any]:
    present = "unknown" if now is None else _say(now)
    text = f"{becomes}, if {condition} (now {present})"
    return {"key": key, "to": to, "choice_becomes": becomes, "text": text, "distance": round(distance, 3)}


def _say(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"
    return str(value)
