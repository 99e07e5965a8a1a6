"""Preview of training rows: which text is a target of the loss, which tokens are special, and what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from runners.tokenization.chat_template import ChatTokenizer, EncodedRow


@dataclass(frozen=True, slots=True)
class PreviewSegment:
    """A run of tokens of the same kind, as text."""

    text: str
    learnt: bool
    """Whether the loss is taken on it."""
    special: bool
    """Whether it is special tokens (``<|im_end|>``)."""


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One row as segments of text, with its counts."""

    place: str
    tokens: int
    learnt: int
    """Number of tokens that the loss is taken on."""
    segments: tuple[PreviewSegment, ...]
    note: str
    """Note about the row, "" for none: too long, a piece of a longer text, turns that are not trained on."""


def preview_rows(
    rows: Sequence[EncodedRow], chat: ChatTokenizer, n: int, max_tokens: int | None = None
) -> list[PreviewRow]:
    """Return the first ``n`` rows; those over ``max_tokens`` have a note that they are left out."""
    return [
        PreviewRow(
            row.place, len(row.ids), len(row.learnt), preview_segments(row, chat), _note(row, max_tokens)
        )
        for row in rows[:n]
    ]


def preview_segments(row: EncodedRow, chat: ChatTokenizer) -> tuple[PreviewSegment, ...]:
    """Return a row's text in segments; joined, they are the whole text as the tokenizer decodes it."""
    targets = frozenset(row.learnt)
    segments = []
    text = ""
    end = 0
    for (is_target, is_special), run in groupby(
        range(len(row.ids)), key=lambda i: (i in targets, row.ids[i] in chat.special_ids)
    ):
        end += sum(1 for _ in run)
        # Decoding the run alone would lose the space that some tokenizers put before a word.
        decoded = chat.tokenizer.decode(list(row.ids[:end]), skip_special_tokens=False)
        segments.append(PreviewSegment(decoded[len(text) :], is_target, is_special))
        text = decoded
    return tuple(segments)


def target_runs(row: EncodedRow, chat: ChatTokenizer) -> list[tuple[str, bool]]:
    """Return a row's text in runs, each with whether the loss is taken on it."""
    runs = groupby(preview_segments(row, chat), key=lambda segment: segment.learnt)
    return [("".join(segment.text for segment in run), is_target) for is_target, run in runs]


def _note(row: EncodedRow, max_tokens: int | None) -> str:
    if max_tokens is not None and len(row.ids) > max_tokens:
        return f"over max_tokens {max_tokens:,}: skipped, not cut"
    return row.note
