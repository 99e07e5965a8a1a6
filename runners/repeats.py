"""Rows that repeat each other: learnt twice, counted once."""

from __future__ import annotations

from collections.abc import Sequence

from runners import near
from runners.complaints import Check, places, rows_of
from runners.example import Example, normalised, place
from runners.labels import labels_of

MANY = 0.2
"""From this share of repeats on, the file holds much less than its row count says."""


def check(rows: Sequence[Example]) -> Check:
    """Return the check of repeats: equal but for case and punctuation, and nearly equal (:mod:`runners.near`)."""
    texts = ["\n".join(m["content"] for m in row.messages if m["role"] != "system") for row in rows]
    labels = labels_of([row.reply for row in rows])
    groups = near.groups(texts, [row.reply.strip() for row in rows] if labels else None)
    exact = len(rows) - len({normalised(text) for text in texts})
    again = sorted(at for group in groups for at in group[1:])
    if not again:
        return Check("PF012", "ok", "no row repeats another")
    nearly = max(0, len(again) - exact)
    told = (
        f"{exact:,} repeat another row, {nearly:,} nearly do: {rows_of(len(groups))} of {len(rows):,} differ"
    )
    level = "warn" if len(again) >= MANY * len(rows) else "ok"
    todo = "remove repeats, or lower --epochs: repeated rows are learnt by heart" if level == "warn" else ""
    return Check(
        "PF012", "warn" if level == "warn" else "ok", told, places(place(rows[at]) for at in again), todo
    )
