"""Replay: a share of general rows mixed into training, so that the model keeps what it could do before.

A few percent of rows like those the model was made with already keep most of what tuning would make it forget
(Scialom et al., "Fine-tuned Language Models are Continual Learners", 2022: 1 %). They are the user's own file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import floor

from rag.durable import sha256_text
from rag.errors import BadInput
from runners.example import Example


def mix(
    rows: Sequence[Example], replay_rows: Sequence[Example], share: float, seed: int
) -> tuple[Example, ...]:
    """Return ``rows`` followed by so many replay rows that they make up ``share`` of all.

    They are drawn by the seed, whatever their order, and carry ``meta.replay`` (:func:`count`). Raises BadInput
    when there are too few of them: none is repeated.
    """
    if not 0 <= share < 1:
        raise BadInput(f"the share of replay rows must be from 0 to below 1, found {share}")
    wanted = round(len(rows) * share / (1 - share))
    if wanted > len(replay_rows):
        most = floor(100 * len(replay_rows) / (len(rows) + len(replay_rows))) / 100
        raise BadInput(
            f"{wanted} replay rows are wanted to make up {share:.0%} beside {len(rows)} rows, "
            f"there are {len(replay_rows)}",
            f"lower the share to {most:g}, or give more replay rows",
        )
    drawn = sorted(replay_rows, key=lambda row: sha256_text(f"{seed}\0{row.place}\0{row.messages}"))[:wanted]
    return (*rows, *(replace(row, meta={**row.meta, "replay": True}) for row in drawn))


def count(rows: Sequence[Example]) -> int:
    """Count the replay rows among rows."""
    return sum(row.meta.get("replay") is True for row in rows)
