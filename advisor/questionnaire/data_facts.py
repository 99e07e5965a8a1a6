"""What the files say beyond the answers of the questionnaire: counted, never asked."""

from __future__ import annotations

from dataclasses import dataclass

STATE_FACTS = "state prices, times or other values that their prompts do not hold"
"""What replies do that are facts, for messages."""
MOST_FACTS = 0.5
"""Share of replies that state values of their own from which the task counts as one that needs facts.

Of 20 public data sets of replies, one that is about dates has .98, and none of the others more than .19.
"""


@dataclass(frozen=True, slots=True)
class DataFacts:
    """Facts counted in the user's files that decide between methods; None where they cannot be told.

    Attributes:
        label_count: number of different labels among the replies, where the replies are labels.
        rows_per_label: median number of examples of a label.
        largest_label_share: share of the most frequent label, 0 to 1.
        language: ISO 639-1 code of the language of the examples, else of the questions, else of the documents.
        passages_in_prompts: share of prompts, 0 to 1, that already hold the text that the reply is taken from.
        facts_in_replies: share of replies, 0 to 1, that state values which their prompts do not hold; None with documents.
        repeated_replies: share of examples, 0 to 1, whose reply another example gives word for word; None for labels.
        text_tokens: mean tokens of a text that gets a label; None without labels.
        documents_language: ISO 639-1 code of the language of the documents.
    """

    label_count: int | None = None
    rows_per_label: float | None = None
    largest_label_share: float | None = None
    language: str | None = None
    passages_in_prompts: float | None = None
    facts_in_replies: float | None = None
    repeated_replies: float | None = None
    text_tokens: int | None = None
    documents_language: str | None = None

    @property
    def replies_state_facts(self) -> bool:
        """Whether half of the replies or more state values of their own, and no documents are named to look them up in."""
        return self.facts_in_replies is not None and self.facts_in_replies >= MOST_FACTS
