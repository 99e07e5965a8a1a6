"""What the files say beyond the answers of the questionnaire: counted, never asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DataFacts:
    """Facts counted in the user's files that decide between methods; None where they cannot be told.

    Attributes:
        label_count: number of different labels among the replies, where the replies are labels.
        rows_per_label: median number of examples of a label.
        largest_label_share: share of the most frequent label, 0 to 1.
        language: ISO 639-1 code of the language of the examples, else of the questions, else of the documents.
        passages_in_prompts: share of prompts, 0 to 1, that already hold the text that the reply is taken from.
    """

    label_count: int | None = None
    rows_per_label: float | None = None
    largest_label_share: float | None = None
    language: str | None = None
    passages_in_prompts: float | None = None
