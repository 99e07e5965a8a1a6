"""Retrieval-aware training rows (RAFT, Zhang et al. 2024): the question as the tuned model will see it, with passages.

:func:`retrieval_rows` makes the rows. A row shows what its question will find, in varied order.
In most rows the passage that supports the reply is among them (:mod:`runners.arms.gold_passages` finds it). In some it
is left out on purpose, and the reply to learn is then one of the plan's refusals instead of the fact; the refusal as
target is this project's addition to RAFT. A row for which no passage is known keeps its reply and the passages that the
search returns, and is counted: many of them teach to answer from no passage at all.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rag.errors import BadInput
from rag.grounding import citations, evidence
from rag.grounding.fields import structured_fields
from rag.grounding.gold import MIN_FIELDS_SUPPORTED
from rag.text.words import sentences
from rag.types import Chunk, Hit
from runners.arms.gold_passages import GoldPassages, RowGold
from runners.arms.prompts import training_row
from runners.arms.retriever import Retriever
from runners.data.examples import Example, RowPlace, row_place
from runners.data.formats import Message
from runners.plan.data import Prompts

SHUFFLED_SHARE = 0.5
"""Share of rows whose passages are shuffled. In the others they are in order of their score, as at inference:
the model learns to read all of them, and still that the first one is the most likely to hold the answer."""
SPARE_PASSAGES = 6
"""Hits fetched beyond the plan's k, to replace passages that are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalRows:
    """The training rows, and counts of what became of every example."""

    rows: tuple[Example, ...]
    with_gold: int
    without_gold: int
    refusals: int
    """Examples whose own reply is a refusal."""
    quoted: int
    """Replies that begin with a quotation from the gold passage."""
    unsupported: tuple[RowPlace, ...]
    """Places of the examples for which no passage is known; their rows have the passages that the search returns."""
    by_document: int = 0
    """Rows with or without gold whose passage is only known by the document that the row names."""
    unknown_documents: tuple[str, ...] = ()
    """Document ids of rows that the index does not have, each once."""

    def counts(self) -> dict[str, int]:
        """Return the counts, for events and manifests."""
        return {
            "examples": len(self.rows),
            "rows": len(self.rows),
            "with_gold": self.with_gold,
            "without_gold": self.without_gold,
            "refusals": self.refusals,
            "quoted": self.quoted,
            "unsupported": len(self.unsupported),
            "by_document": self.by_document,
            "unknown_documents": len(self.unknown_documents),
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
            "train on the texts first, and continue from that arm with questions and replies",
        )
    k = retriever.step.k if distractors is None else distractors + 1
    gold_passages = GoldPassages(retriever.index.chunks)
    hits_of_each = retriever.candidates([e.question for e in examples], k + SPARE_PASSAGES)
    rows: list[Example] = []
    unsupported: list[RowPlace] = []
    unknown: dict[str, None] = {}
    counts = Counter[str]()
    for example, hits in zip(examples, hits_of_each, strict=True):
        rng = random.Random(f"{seed}:{example.line}:{example.question}")
        gold = RowGold() if example.refuses else gold_passages.gold_of(example, hits)
        kind = _kind(example, gold, rng, without_gold)
        unknown |= dict.fromkeys(gold.unknown)
        if kind == "unsupported":
            unsupported.append(row_place(example))
        if kind == "with_gold" and quote:
            example = with_quotation(example, gold.passages[0])
            counts["quoted"] += "quote" in example.meta
        refusal = prompts.refusals[counts["without_gold"] % len(prompts.refusals)]
        reply = refusal if kind == "without_gold" else example.reply
        shown = _shown_hits(kind, example, gold, hits, k)
        rows.append(_row(prompts, example, shown, retriever, rng, reply))
        counts[kind] += 1
        counts["by_document"] += gold.by == "document"
    return _counted_rows(rows, counts, unsupported, tuple(unknown))


def _counted_rows(
    rows: Sequence[Example],
    counts: Counter[str],
    unsupported: Sequence[RowPlace],
    unknown_documents: tuple[str, ...],
) -> RetrievalRows:
    """Return the rows with the counts by kind."""
    return RetrievalRows(
        rows=tuple(rows),
        with_gold=counts["with_gold"],
        without_gold=counts["without_gold"],
        refusals=counts["refusals"],
        quoted=counts["quoted"],
        unsupported=tuple(unsupported),
        by_document=counts["by_document"],
        unknown_documents=unknown_documents,
    )


def _kind(example: Example, gold: RowGold, rng: random.Random, without_gold: float) -> str:
    """Return what a row teaches: refusals (its own), unsupported, without_gold (drawn by its generator) or with_gold."""
    if example.refuses:
        return "refusals"
    if not gold.passages:
        return "unsupported"
    return "without_gold" if rng.random() < without_gold else "with_gold"


def _shown_hits(kind: str, example: Example, gold: RowGold, hits: Sequence[Hit], k: int) -> list[Hit]:
    """Return the k passages of a row of this kind, best first."""
    if kind == "with_gold":
        return with_passages(hits, gold.passages, k)
    if kind == "without_gold":
        return [hit for hit in hits if not _may_answer(hit.chunk, example, gold)][:k]
    return list(hits[:k])


def _may_answer(chunk: Chunk, example: Example, gold: RowGold) -> bool:
    """Return whether a passage may hold the answer, so that it is no passage for a refusal.

    It is a gold passage, one that supports the reply, or one of the documents of gold passages that the row names itself:
    the words of such a reply need not be in them, and neighbouring passages overlap.
    """
    named = {passage.doc for passage in gold.passages} | gold.documents
    if chunk in gold.passages or (gold.by in ("document", "spans", "quote") and chunk.doc in named):
        return True
    fields = structured_fields(example.reply)
    return (
        evidence.best_support(example.reply, [chunk]) is not None
        or evidence.supported_share(fields, [chunk]) >= MIN_FIELDS_SUPPORTED
    )


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


def with_passages(hits: Sequence[Hit], gold: Sequence[Chunk], k: int) -> list[Hit]:
    """Return k hits with the gold passages among them: missing ones replace the lowest hits that are no gold.

    Of several gold passages only as many are shown as leave one place for a distractor.
    """
    ids = [chunk.id for chunk in gold[: max(1, k - 1)]]
    first = [hit for hit in hits[:k] if hit.chunk.id in ids]
    present = {hit.chunk.id for hit in first}
    missing = [Hit(chunk, 0.0, 0.0, 0.0) for chunk in gold if chunk.id in ids and chunk.id not in present]
    free = k - len(first) - len(missing)
    shown = []
    for hit in hits[:k]:
        if hit.chunk.id in ids or free > 0:
            shown.append(hit)
            free -= hit.chunk.id not in ids
    return [*shown, *missing]


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
