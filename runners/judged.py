"""What the judge said, arm by arm, and how far the deterministic scores say the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from runners.trial import ArmScores

NO_DIFFERENCE = 1e-9
"""Combined scores closer than this are equal but for rounding."""


def summary(
    model: str, choice: str, arms: Sequence[ArmScores], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The judge's part of the report: preference for the chosen arm against each other, -1 to 1, with intervals.

    A comparison counts when both orders of it have been read; where the two disagree it is a tie. ``same_sign`` is
    the share of comparisons where judge and combined score favour the same arm, or neither; ``kappa`` is Cohen's
    (1960), None where one of them always says the same and so chance explains everything.
    """
    from rag.stats import interval

    by_name = {arm.arm: dict(zip(arm.questions, arm.combined, strict=True)) for arm in arms}
    orders: dict[tuple[str, str], list[int | None]] = {}
    for row in rows:
        orders.setdefault((row["b"], row["id"]), []).append(row["verdict"])
    against, every = [], []
    for arm in arms:
        if arm.arm == choice:
            continue
        both = {q: said for (b, q), said in orders.items() if b == arm.arm and len(said) == 2}
        read = {q: said for q, said in both.items() if None not in said}
        judged = {q: agreed(said) for q, said in read.items()}
        pairs = [(judged[q], _sign(by_name[choice][q] - by_name[arm.arm][q])) for q in judged]
        every += pairs
        words = [said for said, _ in pairs]
        against.append(
            {
                "a": choice, "b": arm.arm, "n": len(pairs), "of": len(arm.questions),
                "better": words.count(1), "worse": words.count(-1), "ties": words.count(0),
                "inconsistent": sum(len(set(said)) > 1 for said in read.values()),
                "unreadable": len(both) - len(read),
                "preference": asdict(interval([float(word) for word in words])) if words else None,
                **agreement(pairs),
            }
        )  # fmt: skip
    return {"model": model, "n": len(every), **agreement(every), "against": against}


def agreed(said: Sequence[int | None]) -> int:
    """The verdict of two orders: what both say, else a tie."""
    first, second = said
    return first if first is not None and first == second else 0


def agreement(pairs: Sequence[tuple[int, int]]) -> dict[str, float | None]:
    """Share of pairs whose two signs are the same, and Cohen's kappa over the three signs; None without pairs."""
    if not pairs:
        return {"same_sign": None, "kappa": None}
    count = len(pairs)
    same = sum(a == b for a, b in pairs) / count
    chance = sum(
        sum(a == sign for a, _ in pairs) * sum(b == sign for _, b in pairs) / count**2 for sign in (-1, 0, 1)
    )
    kappa = None if chance > 1 - NO_DIFFERENCE else round((same - chance) / (1 - chance), 4)
    return {"same_sign": round(same, 4), "kappa": kappa}


def _sign(difference: float) -> int:
    return 0 if abs(difference) < NO_DIFFERENCE else 1 if difference > 0 else -1
