"""What the files say beyond the answers of the questionnaire: counted, never asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag.text.words import count_noun

if TYPE_CHECKING:  # it loads numpy, and every verb imports this module
    from rag.evaluation.statistics import WilsonShare

STATE_FACTS = "state prices, times or other values that their prompts do not hold"
"""What replies do that are facts, for messages."""
MOST_FACTS = 0.5
"""Share of replies that state values of their own from which the task counts as one that needs facts.

Of 20 public data sets of replies, one that is about dates has .98, and none of the others more than .19.
"""


HALF_HELD = 0.5
"""Share of right answers that stand in the documents below which a search in them has little to find."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCount:
    """How many right answers the documents hold, among rows of which words can tell."""

    share: WilsonShare
    """Answers that a passage supports, of the rows of which words can tell."""
    looked_up: int
    """Rows that were looked up."""
    of: int
    """Rows with a right answer; of examples an estimate from the sample."""
    rows: str
    """What they are: question or example."""
    missing: tuple[str, ...] = ()
    """The first rows whose answer no passage holds, with their lines."""

    @property
    def rate(self) -> float:
        """The share as the answer ``answers_in_documents`` has it."""
        return round(self.share.hits / self.share.n, 4)

    @property
    def surely_under_half(self) -> bool:
        """Whether the whole interval is under one half."""
        return self.share.below(HALF_HELD)

    @property
    def text(self) -> str:
        """The count with its interval, and what it is of."""
        share, left = self.share, self.looked_up - self.share.n
        sample = f", a sample of {self.of:,} {self.rows}s" if self.looked_up < self.of else ""
        open_ones = f"; of {left} more, words do not tell" if left else ""
        counted = f"{share.hits} of {count_noun(share.n, self.rows)}"
        return f"{counted} (95 % interval {share.low:.0%} to {share.high:.0%}){sample}{open_ones}"

    @property
    def lack(self) -> str:
        """That documents lack answers, what to do about it, and the first rows without a passage."""
        more = ", ..." if self.share.n - self.share.hits > len(self.missing) else ""
        return (
            f"the documents hold the right answer to only {self.text}: give the documents that hold the answers, or correct "
            f"the answers (no passage supports that of {', '.join(self.missing)}{more})"
        )


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
        answers: how many right answers the documents hold.
        token_ranges: answers whose tokens are estimated, each with the least and the most; () by the model's tokenizer.
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
    answers: AnswerCount | None = None
    token_ranges: tuple[tuple[str, int, int], ...] = ()

    @property
    def replies_state_facts(self) -> bool:
        """Whether half of the replies or more state values of their own, and no documents are named to look them up in."""
        return self.facts_in_replies is not None and self.facts_in_replies >= MOST_FACTS
