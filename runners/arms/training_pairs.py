"""Pairs to train a retriever on: the questions of training examples, each with its gold passage in the run's index.

Only training examples are read, never dev or test questions. An example whose reply is a refusal has no passage, a plain
text no question; an example without a passage is left out and counted. The gold passages are those that retrieval-aware rows
are made with (:mod:`runners.arms.gold_passages`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rag.errors import BadInput
from rag.index import Index
from rag.text.words import count_noun
from rag.training.pairs import TrainingPair
from runners.arms.gold_passages import GoldPassages
from runners.data.examples import Example, RowPlace, row_place
from runners.data.questions import Question, with_wordings

ORDERING_HITS = 10
"""Hits that order the passages of a document that a row only names."""
MIN_PAIRS = 16
"""With fewer pairs nothing is trained: half a batch of the default size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSet:
    """The pairs of a run's training examples, and what became of the others."""

    pairs: tuple[TrainingPair, ...]
    examples: int
    refusals: int
    """Examples whose reply is a refusal."""
    texts: int
    """Plain texts without a question."""
    repeated: int
    """Examples that repeat question and passage of an earlier one."""
    unsupported: tuple[RowPlace, ...]
    """Places of the examples for which no passage is known."""
    by: dict[str, int]
    """How the gold passages were found, such as spans or support."""
    drawn_from: int
    """Pairs that there were before the step's limit."""

    def counts(self) -> dict[str, Any]:
        """Return the counts, for events and reports."""
        return {
            "examples": self.examples,
            "pairs": len(self.pairs),
            "drawn_from": self.drawn_from,
            "refusals": self.refusals,
            "texts": self.texts,
            "repeated": self.repeated,
            "unsupported": len(self.unsupported),
            "by": self.by,
        }

    @property
    def text(self) -> str:
        """The counts in one sentence."""
        parts = [f"{count_noun(len(self.pairs), 'pair')} of {count_noun(self.examples, 'example')}"]
        parts += [f"{len(self.unsupported):,} without a passage"] if self.unsupported else []
        parts += [f"{self.refusals:,} refusals"] if self.refusals else []
        parts += [f"{self.texts:,} plain texts"] if self.texts else []
        parts += [f"{self.repeated:,} repeats"] if self.repeated else []
        if len(self.pairs) < self.drawn_from:
            parts.append(f"drawn from {self.drawn_from:,}")
        return ", ".join(parts)


def training_pairs(
    index: Index, examples: Sequence[Example], max_pairs: int | None = None, seed: int = 0
) -> PairSet:
    """Return the pairs of examples; the same examples and seed give the same pairs in the same order.

    Args:
        index: of the run, opened with its embedder.
        examples: the training examples.
        max_pairs: most pairs, drawn by the seed; None for all.
        seed: of the draw.
    """
    usable = [e for e in examples if not e.raw and not e.refuses and e.question.strip()]
    finder = GoldPassages(index.chunks)
    hits_of_each = index.search_many([e.question for e in usable], ORDERING_HITS) if usable else []
    pairs: list[TrainingPair] = []
    unsupported: list[RowPlace] = []
    by: dict[str, int] = {}
    seen: set[tuple[str, int]] = set()
    repeated = 0
    for example, hits in zip(usable, hits_of_each, strict=True):
        gold = finder.gold_of(example, hits)
        if not gold.passages:
            unsupported.append(row_place(example))
            continue
        key = example.question.strip(), gold.passages[0].id
        if key in seen:
            repeated += 1
            continue
        seen.add(key)
        by[gold.by] = by.get(gold.by, 0) + 1
        # A document that is only named may hold the answer anywhere; one named with several others may, too.
        documents = gold.documents if gold.by != "support" or len(gold.documents) > 1 else frozenset[str]()
        pairs.append(TrainingPair(example.question, gold.passages, example.reply, documents))
    drawn = pairs
    if max_pairs is not None and len(pairs) > max_pairs:
        chosen = sorted(random.Random(seed).sample(range(len(pairs)), max_pairs))
        drawn = [pairs[n] for n in chosen]
    texts = sum(e.raw for e in examples)
    refusals = sum(e.refuses for e in examples if not e.raw)
    return PairSet(
        pairs=tuple(drawn),
        examples=len(examples),
        refusals=refusals,
        texts=texts,
        repeated=repeated,
        unsupported=tuple(unsupported),
        by=by,
        drawn_from=len(pairs),
    )


def require_pairs(pairs: PairSet, held_out: Sequence[Question] = ()) -> None:
    """Refuse too few pairs, and pairs of held-out questions.

    Args:
        pairs: of the training examples.
        held_out: dev and test questions.

    Raises:
        BadInput: naming the counts, or a held-out question among the pairs.
    """
    texts = {" ".join(pair.question.split()).casefold() for pair in pairs.pairs}
    if leaked := [q for q in with_wordings(held_out) if " ".join(q.question.split()).casefold() in texts]:
        raise BadInput(
            f"{len(leaked)} held-out questions are among the pairs that train the retriever ({leaked[0].id}: "
            f"{leaked[0].question[:60]!r})",
            "take them out of data.examples, or out of the questions",
        )
    if len(pairs.pairs) < MIN_PAIRS:
        raise BadInput(
            f"a retriever is trained on at least {MIN_PAIRS} pairs, and there are {pairs.text}",
            "name each row's document in meta.doc_id, add examples, or remove the embedder step",
        )
