"""Pairs of a question and its gold passage, with hard negatives that the index's own search finds.

The negatives are what the present retriever, BM25 included, ranks high without being gold. They are mined with the index and
not with ``sentence_transformers.util.mine_hard_negatives``: that one embeds the corpus again, knows no BM25, and can tell a
false negative only by its score, whereas here the reply of the row is known. A false negative, a passage that answers too,
teaches the embedder to push the answer away, so five tests throw candidates out and count them (:data:`FALSE_NEGATIVES`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rag.grounding import evidence
from rag.grounding.citations import is_factual
from rag.grounding.fields import structured_fields
from rag.grounding.gold import MIN_FIELDS_SUPPORTED
from rag.index import Index
from rag.indexing.chunking import Chunker
from rag.search.postprocessing import is_redundant
from rag.text.words import sentences, words
from rag.training.settings import TextRow
from rag.types import Chunk, Hit

MINING_DEPTH = 30
"""Hits of a question from which its negatives are taken, best first."""
MAX_SCORE_SHARE = 0.95
"""A negative's cosine is at most this share of the gold passage's: nearer ones are mostly unlabelled positives
(NV-Retriever: Moreira et al. 2024, arXiv:2407.15831, "TopK-PercPos")."""
NEAR_REPEAT_SHARE = 0.8
"""Share of a passage's words that the gold passage also has, from which on it counts as the same text."""
MAX_ANSWER_WORDS = 8
"""Longer replies are sentences, whose words in a row no other passage has; they are compared by support."""
FALSE_NEGATIVES = {
    "gold": "is gold itself, or overlaps it",
    "answer": "contains the answer",
    "supports": "supports the reply",
    "repeat": "nearly repeats the gold passage",
    "near": f"is nearer to the question than {MAX_SCORE_SHARE:.0%} of the gold passage's cosine",
}
"""Why a candidate is no negative, in the order in which it is tested."""


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """A question, the passage that answers it, and passages that do not."""

    question: str
    gold: tuple[Chunk, ...]
    """The gold passages, best first: the first one is trained on, none is a negative."""
    reply: str = ""
    """The reply, by which false negatives are told."""
    documents: frozenset[str] = frozenset()
    """Documents whose passages may answer and are therefore no negatives."""
    negatives: tuple[Chunk, ...] = ()


@dataclass(frozen=True, slots=True)
class MinedPairs:
    """Pairs with their negatives, and what was thrown out."""

    pairs: tuple[TrainingPair, ...]
    dropped: Mapping[str, int]
    """Candidates that are false negatives, by reason (:data:`FALSE_NEGATIVES`)."""
    short: int
    """Pairs with fewer negatives than wanted."""


def mine_negatives(index: Index, pairs: Sequence[TrainingPair], count: int) -> MinedPairs:
    """Give each pair the ``count`` best hits of its question that are no false negatives.

    Args:
        index: opened with the embedder that is to be trained.
        pairs: questions with gold; their negatives are replaced.
        count: negatives of each pair; 0 for none.
    """
    dropped: Counter[str] = Counter()
    mined: list[TrainingPair] = []
    hits_of_each = (
        index.search_many([pair.question for pair in pairs], MINING_DEPTH) if count and pairs else []
    )
    for pair, hits in zip(pairs, hits_of_each, strict=False):
        limit = MAX_SCORE_SHARE * _gold_cosine(index, pair, hits)
        chosen: list[Chunk] = []
        for hit in hits:
            if len(chosen) == count:
                break
            reason = _why_false(pair, hit, limit)
            if reason:
                dropped[reason] += 1
            else:
                chosen.append(hit.chunk)
        mined.append(replace(pair, negatives=tuple(chosen)))
    if not hits_of_each:
        mined = [replace(pair, negatives=()) for pair in pairs]
    return MinedPairs(tuple(mined), dict(dropped), sum(len(pair.negatives) < count for pair in mined))


def supports_reply(reply: str, chunk: Chunk) -> bool:
    """Return whether a passage supports a reply: a whole sentence of it, or enough fields of a structured one."""
    if any(
        is_factual(sentence) and evidence.best_support(sentence, [chunk]) is not None
        for sentence in sentences(reply)
    ):
        return True
    fields = structured_fields(reply)
    return bool(fields) and evidence.supported_share(fields, [chunk]) >= MIN_FIELDS_SUPPORTED


def text_rows(index: Index, pairs: Sequence[TrainingPair], negatives: int) -> tuple[TextRow, ...]:
    """Return the texts of pairs as the index embeds them: title, headings and text of each passage.

    All rows have the same number of negatives, as a trainer's columns must; a pair with fewer repeats those that it has, one
    without any takes the gold passage of the pair before it, which is of another question.
    """
    chunker = Chunker(index.encoder, index.settings)
    rows: list[TextRow] = []
    for number, pair in enumerate(pairs):
        own = list(pair.negatives) or [_other_gold(pairs, number)]
        chosen = [own[n % len(own)] for n in range(negatives)]
        texts = tuple(chunker.embedded_text(chunk) for chunk in chosen)
        rows.append(TextRow(pair.question, chunker.embedded_text(pair.gold[0]), texts))
    return tuple(rows)


def _other_gold(pairs: Sequence[TrainingPair], number: int) -> Chunk:
    """Return the gold passage of the nearest earlier pair that has another one; the own one where all have the same."""
    own = {chunk.id for chunk in pairs[number].gold}
    earlier = (pairs[number - back].gold[0] for back in range(1, len(pairs)))
    return next((chunk for chunk in earlier if chunk.id not in own), pairs[number].gold[0])


def _gold_cosine(index: Index, pair: TrainingPair, hits: Sequence[Hit]) -> float:
    """Return the cosine of the question and its first gold passage."""
    ids = {chunk.id for chunk in pair.gold}
    if cosines := [hit.dense for hit in hits if hit.chunk.id in ids]:
        return max(cosines)
    question = index.encoder.encode([pair.question], query=True)[0]
    return float(index.vectors([pair.gold[0].id])[0] @ question)


def _why_false(pair: TrainingPair, hit: Hit, limit: float) -> str:
    """Return the key of :data:`FALSE_NEGATIVES` by which a hit is no negative of a pair; "" where it is one."""
    chunk = hit.chunk
    if chunk.doc in pair.documents or any(_overlap(chunk, gold) for gold in pair.gold):
        return "gold"
    answer = words(pair.reply)
    if 0 < len(answer) <= MAX_ANSWER_WORDS and f" {' '.join(answer)} " in f" {' '.join(words(chunk.text))} ":
        return "answer"
    if pair.reply and supports_reply(pair.reply, chunk):
        return "supports"
    if any(is_redundant(chunk, gold, NEAR_REPEAT_SHARE) for gold in pair.gold):
        return "repeat"
    return "near" if hit.dense > limit else ""


def _overlap(chunk: Chunk, gold: Chunk) -> bool:
    """Return whether two passages share text of one document."""
    return chunk.id == gold.id or (
        chunk.doc == gold.doc and chunk.start < gold.end and gold.start < chunk.end
    )
