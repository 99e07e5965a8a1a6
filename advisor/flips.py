"""What would change the advice: for numbers the threshold, for other answers the single change."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from advisor.outlook import Outlook
from advisor.profile import Profile
from advisor.questions import BY_ID
from advisor.thresholds import Span
from advisor.values import say

MEASURED = ("detected", "counted", "probed")
SHRINKING = ("labelled_examples", "unlabelled_tokens", "corpus_tokens", "gpu_count", "gpu_memory_gib", "ram_gib",
             "cpu_cores", "budget_usd")  # fmt: skip
"""Numbers that seldom fall: examples are not lost, and machines are not taken away."""


def flips(p: Profile, choice: str, outlook: Outlook) -> tuple[dict[str, Any], ...]:
    """Return every single change of an answer that makes another method first, the most plausible first.

    Applying one (the answer ``key`` set to ``to``, all else as it is) makes ``choice_becomes`` the choice.
    For numbers ``from`` and ``below`` bound the span in which it does (null: no bound); the thresholds are
    those of :mod:`advisor.thresholds`. ``distance`` orders them: unknown answers come before known
    ones (numbers that are seldom the answer after all others), small steps before large ones, growth before
    loss, what a person said before what was measured, and what everybody is asked before what is seldom
    decisive.
    """
    found = [flip for key, spans in outlook.numbers.items() for flip in _numeric(p, key, choice, spans)]
    found += [flip for key, leads in outlook.choices.items() for flip in _single(p, key, choice, leads)]
    return tuple(sorted(found, key=lambda flip: (flip["distance"], flip["key"], str(flip["to"]))))


def _numeric(p: Profile, key: str, choice: str, spans: Sequence[Span]) -> Iterator[dict[str, Any]]:
    now = getattr(p, key)
    whole = BY_ID[key].kind == "count"
    for span in spans:
        if span.choice == choice or (now is not None and now in span):
            continue
        falling = now is not None and span.high <= now
        to = span.most(whole) if falling else span.least(whole)
        usual = any(value in span for value in BY_ID[key].tries)
        distance = (0.3 if usual else 1.3) if now is None else _steps(now, to) + 0.2
        if falling and key in SHRINKING:
            distance *= 2
        flip = _flip(p, key, int(to) if whole else to, span.choice, distance, f"were {span.words(whole)}")
        flip["from"] = span.low if span.low > BY_ID[key].low else None
        flip["below"] = span.high if math.isfinite(span.high) else None
        yield flip


def _single(p: Profile, key: str, choice: str, leads: Mapping[Any, str]) -> Iterator[dict[str, Any]]:
    now = getattr(p, key)
    order = [c.value for c in BY_ID[key].choices]
    for value, becomes in leads.items():
        if value == now or becomes == choice:
            continue
        steps = abs(order.index(value) - order.index(now)) if order and now in order else 1
        yield _flip(p, key, value, becomes, 0.2 if now is None else 0.5 * steps, f"were {say(value)}")


def _steps(now: float, to: float) -> float:
    """How far a number would have to move: half a point per power of ten (a share counts as it is)."""
    if 0 <= now <= 1 and 0 <= to <= 1:
        return abs(to - now)
    return 0.5 * abs(math.log10((to + 1) / (now + 1)))


def _flip(p: Profile, key: str, to: Any, becomes: str, distance: float, condition: str) -> dict[str, Any]:
    now = getattr(p, key)
    if now is None and BY_ID[key].detail:
        distance += 0.3
    if now is not None and key in p.sources and p.sources[key].source in MEASURED:
        distance += 0.3
    text = f"{becomes}, if {key} {condition} (now {say(now)})"
    return {"key": key, "to": to, "choice_becomes": becomes, "text": text, "distance": round(distance, 3)}
