"""Rows as the model sees them: which words are learnt, which tokens are the template's own, what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from runners.tokenization.chat_template import ChatTokenizer, EncodedRow


@dataclass(frozen=True, slots=True)
class PreviewSegment:
    """A run of text that is drawn alike."""

    text: str
    learnt: bool
    special: bool
    """A token with a meaning of its own (``<|im_end|>``), not words."""


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One row, ready to be drawn."""

    place: str
    tokens: int
    learnt: int
    segments: tuple[PreviewSegment, ...]
    note: str
    """What is odd about the row, "" if nothing: too long, a piece of a longer text, turns that are not learnt."""


def preview_rows(
    rows: Sequence[EncodedRow], chat: ChatTokenizer, n: int, max_tokens: int | None = None
) -> list[PreviewRow]:
    """Return the first ``n`` rows; those over ``max_tokens`` are marked as left out."""
    return [
        PreviewRow(
            row.place, len(row.ids), len(row.learnt), preview_segments(row, chat), _note(row, max_tokens)
        )
        for row in rows[:n]
    ]


def preview_segments(row: EncodedRow, chat: ChatTokenizer) -> tuple[PreviewSegment, ...]:
    """Return a row's text in runs; together they are the whole text as the tokenizer decodes it."""
    learnt = frozenset(row.learnt)
    found, text, at = [], "", 0
    for (is_learnt, is_special), run in groupby(
        range(len(row.ids)), key=lambda i: (i in learnt, row.ids[i] in chat.special_ids)
    ):
        at += sum(1 for _ in run)
        # Decoding the run alone would lose the space some tokenizers put before a word.
        so_far = chat.tokenizer.decode(list(row.ids[:at]), skip_special_tokens=False)
        found.append(PreviewSegment(so_far[len(text) :], is_learnt, is_special))
        text = so_far
    return tuple(found)


def target_runs(row: EncodedRow, chat: ChatTokenizer) -> list[tuple[str, bool]]:
    """Return a row's text in runs, each with whether it is learnt."""
    runs = groupby(preview_segments(row, chat), key=lambda segment: segment.learnt)
    return [("".join(segment.text for segment in run), learnt) for learnt, run in runs]


def _note(row: EncodedRow, max_tokens: int | None) -> str:
    if max_tokens is not None and len(row.ids) > max_tokens:
        return f"over max_tokens {max_tokens:,}: left out, not cut"
    return row.note
