"""Retrieval-aware training rows (RAFT, Zhang et al. 2024): the question as the tuned model will see it, with passages.

:func:`retrieval_rows` makes the rows. A row shows what the index returns for its question, in varied order.
In most rows the passage that supports the reply is among them. In some it is left out on purpose, and the
reply to learn is then one of the plan's refusals instead of the fact; the refusal as target is this project's
addition to RAFT.
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
"""Share of rows whose passages are shuffled. In the others they are in order of their score, as at inference:
the model learns to read all of them, and still that the first one is the most likely to hold the answer."""
SPARE_PASSAGES = 6
"""Hits fetched beyond the plan's k, to replace passages that are left out."""


@dataclass(frozen=True, slots=True)
class RetrievalRows:
    """The training rows, and counts of what became of every example."""

    rows: tuple[Example, ...]
    with_gold: int
    without_gold: int
    refusals: int
    """Examples whose own reply is a refusal."""
    quoted: int
    """Replies that begin with a quotation from the gold passage."""
    unsupported: tuple[int, ...]
    """Lines of the examples whose reply no passage supports; they are left out and reported."""

    def counts(self) -> dict[str, int]:
        """Return the counts, for events and manifests."""
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

    Args:
        prompts: the plan's prompts.
        examples: questions with replies.
        retriever: the run's retriever.
        without_gold: share of the rows without the supporting passage, whose reply becomes a refusal.
        seed: seed of the shares and the order of passages; each row has its own generator, so rows do not
            depend on each other.
        distractors: passages beside the gold one; None fills up to the number of passages shown at inference.
        quote: whether a reply begins with the gold passage's own words (:func:`with_quotation`).

    Raises:
        BadInput: some examples are plain texts without a question.
    """
    if texts := [e for e in examples if e.raw]:
        raise BadInput(
            f"{len(texts)} examples are plain texts ({texts[0].place}, ...); passages are found for a question",
            "train on the texts first, and go on from that arm with questions and replies",
        )
    k = retriever.step.k if distractors is None else distractors + 1
    gold_passages = GoldPassages(retriever.index.chunks)
    hits_of_each = retriever.index.search_many([e.question for e in examples], k + SPARE_PASSAGES)
    rows: list[Example] = []
    unsupported: list[int] = []
    with_gold = refused_without_gold = refusals = quoted = 0
    for example, hits in zip(examples, hits_of_each, strict=True):
        rng = random.Random(f"{seed}:{example.line}:{example.question}")
        if example.refuses:
            rows.append(_row(prompts, example, hits[:k], retriever, rng))
            refusals += 1
            continue
        gold = gold_passages.find(example)
        if gold is None:
            unsupported.append(example.line)
        elif rng.random() < without_gold:
            others = [
                hit
                for hit in hits
                if hit.chunk.id != gold.id and not evidence.best_support(example.reply, [hit.chunk])
            ]
            refusal = prompts.refusals[refused_without_gold % len(prompts.refusals)]
            rows.append(_row(prompts, example, others[:k], retriever, rng, refusal))
            refused_without_gold += 1
        else:
            if quote:
                example = with_quotation(example, gold)
                quoted += "quote" in example.meta
            rows.append(_row(prompts, example, with_passage(hits, gold, k), retriever, rng, example.reply))
            with_gold += 1
    return RetrievalRows(tuple(rows), with_gold, refused_without_gold, refusals, quoted, tuple(unsupported))


def with_quotation(example: Example, gold: Chunk) -> Example:
    """Return the example with the passage's sentence for its first factual statement put before the reply, in “ ”.

    The quotation is verbatim and stored as ``meta.quote``; without a supporting sentence the example is
    returned as it is. Quoting the evidence first is RAFT's way to an answer that stays with its passage; it
    costs tokens, and the replies no longer follow the style of the examples.
    """
    for sentence in sentences(example.reply):
        support = evidence.best_support(sentence, [gold]) if citations.is_factual(sentence) else None
        if support:
            last = example.messages[-1]
            reasoning = last["content"].removesuffix(example.reply)
            answer: Message = {**last, "content": f"{reasoning}“{support.quote}” {example.reply}"}
            meta = {**example.meta, "quote": support.quote}
            return replace(example, messages=(*example.messages[:-1], answer), meta=meta)
    return example


class GoldPassages:
    """Finds the passage that supports an example's reply, within its own document when the row names one."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        """Take all chunks; the finder of a document is built when a row first names it."""
        self._chunks = chunks
        self._finders: dict[str | None, GoldFinder] = {}

    def find(self, example: Example) -> Chunk | None:
        """Return the supporting passage, or None; a row's own `meta.fact` is trusted."""
        document, fact = example.meta.get("doc_id"), example.meta.get("fact")
        of_document = [chunk for chunk in self._chunks if chunk.doc == document] if document else []
        if isinstance(fact, str):
            fact_text = " ".join(fact.split())
            stated = [chunk for chunk in of_document if fact_text in " ".join(chunk.text.split())]
            if stated or len(of_document) == 1:
                return (stated or of_document)[0]
        key = document if of_document else None
        if key not in self._finders:
            self._finders[key] = GoldFinder(of_document or self._chunks)
        return self._finders[key].find(example.reply, example.question)


def with_passage(hits: Sequence[Hit], gold: Chunk, k: int) -> list[Hit]:
    """Return the first k hits; the gold passage replaces the last one when it is not among them."""
    shown = list(hits[:k])
    if all(hit.chunk.id != gold.id for hit in shown):
        shown[k - 1 :] = [Hit(gold, 0.0, 0.0, 0.0)]
    return shown


def _row(
    prompts: Prompts,
    example: Example,
    hits: Sequence[Hit],
    retriever: Retriever,
    rng: random.Random,
    reply: str | None = None,
) -> Example:
    order = list(hits)
    if rng.random() < SHUFFLED_SHARE:
        rng.shuffle(order)
    return training_row(prompts, example, retriever.format_hits(order, example.question), reply)
