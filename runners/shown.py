"""Rows as the model sees them: which words are learnt, which tokens are the template's own, what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from runners.chat import Chat, Encoded


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of text that is drawn alike."""

    text: str
    learnt: bool
    special: bool
    """A token with a meaning of its own (``<|im_end|>``), not words."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One row, ready to be drawn."""

    place: str
    tokens: int
    learnt: int
    segments: tuple[Segment, ...]
    note: str
    """What is odd about the row, "" if nothing: too long, a piece of a longer text, turns that are not learnt."""


def shown(rows: Sequence[Encoded], chat: Chat, n: int, max_tokens: int | None = None) -> list[Shown]:
    """Return the first ``n`` rows; those over ``max_tokens`` are marked as left out."""
    return [
        Shown(row.place, len(row.ids), len(row.learnt), segments(row, chat), _note(row, max_tokens))
        for row in rows[:n]
    ]


def segments(row: Encoded, chat: Chat) -> tuple[Segment, ...]:
    """Return a row's text in runs; together they are the whole text as the tokenizer decodes it."""
    learnt = frozenset(row.learnt)
    found, text, at = [], "", 0
    for (is_learnt, is_special), run in groupby(
        range(len(row.ids)), key=lambda i: (i in learnt, row.ids[i] in chat.special_ids)
    ):
        at += sum(1 for _ in run)
        # Decoding the run alone would lose the space some tokenizers put before a word.
        so_far = chat.tokenizer.decode(list(row.ids[:at]), skip_special_tokens=False)
        found.append(Segment(so_far[len(text) :], is_learnt, is_special))
        text = so_far
    return tuple(found)


def pieces(row: Encoded, chat: Chat) -> list[tuple[str, bool]]:
    """Return a row's text in runs, each with whether it is learnt."""
    runs = groupby(segments(row, chat), key=lambda segment: segment.learnt)
    return [("".join(segment.text for segment in run), learnt) for learnt, run in runs]


def _note(row: Encoded, max_tokens: int | None) -> str:
    if max_tokens is not None and len(row.ids) > max_tokens:
        return f"over max_tokens {max_tokens:,}: left out, not cut"
    return row.note
