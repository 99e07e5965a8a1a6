"""Where the gold passage of a question is: in the documents, in the search, and in the prompt that the arm was shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rag.evaluation.question_words import gold_sentences, normalised_words
from rag.grounding.answer_search import states_something
from rag.grounding.refusal import RefusalDecision, RefusalSignals
from rag.refusal.gate import read_hits
from rag.text.words import content_words, sentence_spans
from rag.types import Chunk, Hit
from runners.arms.retriever import PassageFinder, Retrieved, Retriever
from runners.data.questions import Question
from runners.scoring.correctness import references_of

FOUND_DEPTH = 10
"""Hits among which a gold passage counts as found: about as many passages as a small model reads."""
SEARCHED_DEPTH = 50
"""Hits among which a passage is looked for that may state the gold."""
_NEVER = RefusalDecision(False, 0.0, RefusalSignals())


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldPlace:
    """A question's gold passage beside what the search returned for it."""

    question: Question
    gold: Chunk
    sentence: str
    """The sentence of the gold passage that states the answer."""
    shown: bool
    """Whether the arm's prompt has, or would have had, that sentence."""
    rank: int | None
    """Position of the first hit that has it, from 1; None where none of the first ones does."""
    retrieved: Retrieved | None
    """None for an arm that looks nothing up."""


def likeliest_passage(searcher: Retriever, question: Question, facts: Sequence[str]) -> Chunk | None:
    """Return the passage that may state the gold where a question in other words than the documents' cannot tell.

    It is the first of many hits that has a fact's words, of the document that the row names where the index has it; for a
    bare yes or no the first hit of that document. None without.
    """
    hits = searcher.index.search(question.question, SEARCHED_DEPTH)
    of_document = [hit.chunk for hit in hits if hit.chunk.doc == question.doc_id]
    wanted = [normalised_words(fact).strip() for fact in facts if states_something(fact)]
    if not wanted:
        return next(iter(of_document), None)
    is_named = question.doc_id is not None and searcher.index.raw(question.doc_id) is not None
    chunks = of_document if is_named else [hit.chunk for hit in hits]
    return next(
        (chunk for chunk in chunks if any(fact in normalised_words(chunk.text) for fact in wanted)), None
    )


def gold_sentence(chunk: Chunk, question: Question, facts: Sequence[str]) -> str:
    """Return the sentence of a passage that states a fact, else the one that shares most words with question and gold."""
    asked = " ".join((question.question, *references_of(question)))
    if stating := gold_sentences(chunk.text, asked, facts, ()):
        return stating[0]
    words = set(content_words(asked))
    parts = [chunk.text[start:end] for start, end in sentence_spans(chunk.text)] or [chunk.text]
    return max(parts, key=lambda part: len(words & set(content_words(part))))


class GoldSearch:
    """Searches as an arm does, and looks for gold passages in what comes back."""

    def __init__(self, finder: PassageFinder | None, searcher: Retriever) -> None:
        """Take what provides the arm's passages, None for an arm without, and a retriever of the run's index."""
        self._finder, self._searcher = finder, searcher

    def places(
        self, questions: Sequence[Question], gold: Mapping[str, tuple[Chunk, str]]
    ) -> dict[str, GoldPlace]:
        """Return the place of each question's gold passage.

        Args:
            questions: those that have one.
            gold: by question id, the passage and its sentence that states the answer.
        """
        texts = [question.question for question in questions]
        retrieved: Sequence[Retrieved | None] = (
            self._finder.find(texts) if self._finder and texts else [None] * len(texts)
        )
        ranked = self._searcher.candidates(texts, self.depth) if texts else []
        places = {}
        for question, own, hits in zip(questions, retrieved, ranked, strict=True):
            chunk, sentence = gold[question.id]
            rank = next((n for n, hit in enumerate(hits, 1) if _holds(hit.chunk.text, sentence)), None)
            places[question.id] = GoldPlace(
                question=question,
                gold=chunk,
                sentence=sentence,
                shown=own is not None and _holds(own.passages, sentence),
                rank=rank,
                retrieved=own,
            )
        return places

    @property
    def depth(self) -> int:
        """How many hits are looked through."""
        return max(FOUND_DEPTH, 2 * self._searcher.step.k)

    def with_gold(self, place: GoldPlace, refused: bool) -> Retrieved:
        """Return the gold passage alone; where the gate refused the question, with what it decides of that passage first.

        Where the question was not refused, or the passage was shown, the gate is not asked: what the model does with the
        passage is the question then.
        """
        hit = self._hit(place)
        decision = _NEVER
        if refused and not place.shown and place.retrieved is not None and place.retrieved.is_searched:
            others = [other for other in place.retrieved.hits if not _holds(other.chunk.text, place.sentence)]
            threshold, reader = self._searcher.threshold, self._searcher.reader
            _, decision = read_hits(
                self._searcher.index, threshold, reader, place.question.question, [hit, *others]
            )
        passages = self._searcher.format_hits([hit], place.question.question)
        return Retrieved((hit,), passages, decision)

    def _hit(self, place: GoldPlace) -> Hit:
        """Return the gold passage as a hit of the question, with the scores of a search in its document alone."""
        index = self._searcher.index
        others = {chunk.doc for chunk in index.chunks} - {place.gold.doc}
        count = sum(chunk.doc == place.gold.doc for chunk in index.chunks)
        hits = index.search_many([place.question.question], count, [others])[0]
        same = (hit for hit in hits if hit.chunk.start == place.gold.start)
        return next(same, Hit(place.gold, 0.0, 0.0, 0.0))


class GivenPassages:
    """Passages that were chosen beforehand for a list of questions, in place of a search."""

    def __init__(self, retrieved: Sequence[Retrieved]) -> None:
        """Take the passages of each question."""
        self._retrieved = list(retrieved)

    def find(self, questions: Sequence[str]) -> list[Retrieved]:
        """Return the passages of each question of that list, which two questions in the same words may have."""
        assert len(questions) == len(self._retrieved)
        return self._retrieved


def _holds(text: str, sentence: str) -> bool:
    return normalised_words(sentence).strip() in normalised_words(text)
