"""Scores of a trial in which questions are asked in other words too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from runners.trial.trial import ArmScores


def repeat_in_wordings(arm: ArmScores, wordings: int | Sequence[int]) -> ArmScores:
    """Return the scores as if each question were also asked in some wordings, with the same result.

    Args:
        arm: the scores.
        wordings: how many other wordings each question has.
    """
    counts = [wordings] * len(arm.questions) if isinstance(wordings, int) else wordings
    at = [n for n, count in enumerate(counts) for _ in range(count + 1)]
    names = [
        (id, None) if k == 0 else (f"{id}~{k}", id)
        for id, count in zip(arm.questions, counts, strict=True)
        for k in range(count + 1)
    ]
    values: dict[str, Any] = {
        name: tuple(column[n] for n in at) if (column := getattr(arm, name)) else ()
        for name in ("scores", "combined", "seconds", "prompt_tokens", "completion_tokens", "documents")
    }
    values |= {name: tuple(getattr(arm, name)[n] for n in at) for name in ("made",) if arm.made}
    return replace(
        arm,
        questions=tuple(id for id, _ in names),
        wording_of=tuple(of for _, of in names),
        hits=(None,) * len(at),
        **values,
    )
