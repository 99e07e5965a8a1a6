"""Retrieval-aware training rows: the question as the tuned model will meet it, passages and all.

A row shows what the index really returns for its question, in varied order. In most rows the passage that supports
the reply is among them; in some it is left out on purpose, and then the reply to learn is a refusal in the house's
words, never the fact (RAFT, Zhang et al. 2024, with the refusal as the target).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rag.errors import BadInput
from rag.grounding import citations, evidence
from rag.grounding.gold import GoldFinder
from rag.text.words import sentences
from rag.types import Chunk, Hit
from runners.arms.prompts import training_row
from runners.arms.retriever import Retriever
from runners.data.examples import Example
from runners.data.formats import Message
from runners.plan.schema import Prompts

SHUFFLED_SHARE = 0.5
"""Share of rows whose passages are shuffled. In the others they stand best first, as they will when it is asked: so
the model learns to read them all, and still that the first one is the likeliest."""
SPARE_PASSAGES = 6
"""Hits beyond the plan's k, to fill the places of passages that were left out."""


@dataclass(frozen=True, slots=True)
class RetrievalRows:
    """The rows and an account of every example they came from."""

    rows: tuple[Example, ...]
    with_gold: int
    without_gold: int
    refusals: int
    """Examples that refuse by themselves."""
    quoted: int
    """Replies that begin with a quotation from the gold passage."""
    unsupported: tuple[int, ...]
    """Lines of examples whose reply no passage supports; they are left out and said."""

    def counts(self) -> dict[str, int]:
        """The counts, for events and manifests."""
        return {
            "rows": len(self.rows),
            "with_gold": self.with_gold,
            "without_gold": self.without_gold,
            "refusals": self.refusals,
            "quoted": self.quoted,
            "unsupported": len(self.unsupported),
        }


def retrieval_rows(
    prompts: Prompts,
    examples: Sequence[Example],
    retriever: Retriever,
    without_gold: float,
    seed: int,
    distractors: int | None = None,
    quote: bool = False,
) -> RetrievalRows:
    """Turn examples into retrieval-aware rows; the same seed gives the same rows.

    Beside the gold passage stand so many ``distractors``; None fills up the passages that are shown when the arm is
    asked. With ``quote`` a reply begins with the gold passage's own words for it (:func:`quoting`). Raises BadInput
    on texts without a question.
    """
    if texts := [e for e in examples if e.raw]:
        raise BadInput(
            f"{len(texts)} examples are plain texts ({texts[0].place}, ...); passages are found for a question",
            "train on the texts first, and go on from that arm with questions and replies",
        )
    k = retriever.step.k if distractors is None else distractors + 1
    golden = GoldPassages(retriever.index.chunks)
    found = retriever.index.search_many([e.question for e in examples], k + SPARE_PASSAGES)
    rows: list[Example] = []
    unsupported: list[int] = []
    kept = dropped = refused = quoted = 0
    for example, hits in zip(examples, found, strict=True):
        chance = random.Random(f"{seed}:{example.line}:{example.question}")
        if example.refuses:
            rows.append(_row(prompts, example, hits[:k], retriever, chance))
            refused += 1
            continue
        gold = golden.find(example)
        if gold is None:
            unsupported.append(example.line)
        elif chance.random() < without_gold:
            others = [
                h
                for h in hits
                if h.chunk.id != gold.id and not evidence.best_support(example.reply, [h.chunk])
            ]
            refusal = prompts.refusals[dropped % len(prompts.refusals)]
            rows.append(_row(prompts, example, others[:k], retriever, chance, refusal))
            dropped += 1
        else:
            if quote:
                example = with_quotation(example, gold)
                quoted += "quote" in example.meta
            rows.append(_row(prompts, example, with_passage(hits, gold, k), retriever, chance, example.reply))
            kept += 1
    return RetrievalRows(tuple(rows), kept, dropped, refused, quoted, tuple(unsupported))


def with_quotation(example: Example, gold: Chunk) -> Example:
    """Return the example with the passage's sentence for its first statement put before the reply, in “ ”.

    The quotation is word for word and kept as ``meta.quote``; without one the example stays as it is. Copying the
    evidence first is RAFT's way to an answer that holds to its passage; it costs tokens and the house style.
    """
    for sentence in sentences(example.reply):
        found = evidence.best_support(sentence, [gold]) if citations.is_factual(sentence) else None
        if found:
            answer: Message = {"role": "assistant", "content": f"“{found.quote}” {example.reply}"}
            meta = {**example.meta, "quote": found.quote}
            return replace(example, messages=(*example.messages[:-1], answer), meta=meta)
    return example


class GoldPassages:
    """Which passage supports each example's reply, within its own document when the row names one."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        """Index the chunks once; documents get a finder of their own when a row first names them."""
        self._chunks = chunks
        self._finders: dict[str | None, GoldFinder] = {}

    def find(self, example: Example) -> Chunk | None:
        """The supporting passage, or None; a row's own `meta.fact` is taken at its word."""
        document, fact = example.meta.get("doc_id"), example.meta.get("fact")
        near = [c for c in self._chunks if c.doc == document] if document else []
        if isinstance(fact, str):
            plain = " ".join(fact.split())
            stated = [c for c in near if plain in " ".join(c.text.split())]
            if stated or len(near) == 1:
                return (stated or near)[0]
        key = document if near else None
        if key not in self._finders:
            self._finders[key] = GoldFinder(near or self._chunks)
        return self._finders[key].find(example.reply, example.question)


def with_passage(hits: Sequence[Hit], gold: Chunk, k: int) -> list[Hit]:
    """The first k hits, the last one giving way to the gold passage when it is not among them."""
    shown = list(hits[:k])
    if all(hit.chunk.id != gold.id for hit in shown):
        shown[k - 1 :] = [Hit(gold, 0.0, 0.0, 0.0)]
    return shown


def _row(
    prompts: Prompts,
    example: Example,
    hits: Sequence[Hit],
    retriever: Retriever,
    chance: random.Random,
    reply: str | None = None,
) -> Example:
    order = list(hits)
    if chance.random() < SHUFFLED_SHARE:
        chance.shuffle(order)
    return training_row(prompts, example, retriever.format_hits(order, example.question), reply)
