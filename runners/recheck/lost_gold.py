"""Questions whose gold answer the documents no longer hold: their facts changed, so their gold must be written anew.

An answer that follows changed documents would count as wrong by the old gold, which is no regression of the arm.
:func:`find_lost_gold` compares, for each question, the sentences of its gold document that state its gold answer with the
documents of today; for a question that names no document, the sentences of all documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from rag.evaluation.question_words import gold_sentences, normalised_words, states_any
from rag.text.words import content_words, sentence_spans
from runners.data.questions import Question
from runners.scoring.correctness import gold_texts

if TYPE_CHECKING:
    from rag.index import Index

SAME_SENTENCE_SHARE = 0.5
"""Share of the content words of a sentence, without those of the fact, that another sentence must share to say it of the
same thing: a number alone occurs anywhere."""
GONE = "its document {} no longer exists, and no other one states its answer"
CHANGED = "its document {} no longer states its answer"
NOWHERE = "the documents no longer state its answer"


class DocumentTexts:
    """The texts of an index's documents, read when they are asked for."""

    def __init__(self, index: Index) -> None:
        """Take an open index."""
        self._index = index

    def of(self, document: str) -> str | None:
        """Return a document's source text; None when the index has no such document."""
        return self._index.raw(document)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The ids of all documents."""
        return tuple(dict.fromkeys(chunk.doc for chunk in self._index.chunks))

    @cached_property
    def all_words(self) -> tuple[str, ...]:
        """The normalised texts of all documents."""
        return tuple(normalised_words(self._index.raw(name) or "") for name in self.names)


def gold_spans_text(question: Question, texts: DocumentTexts) -> str:
    """Return the text of a question's gold spans, "" without spans or without their document."""
    raw = texts.of(question.doc_id) if question.spans and question.doc_id else None
    return " ".join(raw[start:end] for start, end in question.spans) if raw else ""


def find_lost_gold(
    questions: Sequence[Question], before: DocumentTexts | None, now: DocumentTexts
) -> dict[str, str]:
    """Return the questions whose gold is no longer in the documents, by id, each with the reason.

    A question without an answer, or whose answer no sentence of its document stated, is never among them; one without a
    gold document only where a sentence of any document stated the answer with half of the question's words.

    Args:
        questions: the questions, with the document ids of ``before``.
        before: the documents that the run was measured with; None where they are not known any more. Then the documents of
            today must state the short answers of most questions, and those of the others are lost.
        now: the documents of today.
    """
    if before is None:
        return _not_stated(questions, now)
    lost: dict[str, str] = {}
    for question in questions:
        raw = before.of(question.doc_id) if question.doc_id and question.answerable else None
        if raw is None or question.doc_id is None:
            continue
        facts = gold_texts(question, gold_spans_text(question, before))
        evidence = gold_sentences(raw, question.question, facts, question.spans)
        if not evidence:
            continue
        present = now.of(question.doc_id)
        if present is not None and _still_held(present, evidence, facts, question):
            continue
        # A renamed document, one that was merged with others or cut in parts holds the sentence itself.
        wanted = [normalised_words(sentence) for sentence in evidence]
        if any(sentence.strip() in text for text in now.all_words for sentence in wanted):
            continue
        lost[question.id] = (GONE if present is None else CHANGED).format(question.doc_id)
    return lost | _no_longer_anywhere(questions, before, now)


def _no_longer_anywhere(
    questions: Sequence[Question], before: DocumentTexts, now: DocumentTexts
) -> dict[str, str]:
    """Return the questions without a gold document whose answer some document stated before, and none states now."""
    open_ones = [q for q in questions if q.answerable and not q.doc_id and gold_texts(q, "")]
    stated = _stating_sentences(open_ones, before)
    today = _stating_sentences([q for q in open_ones if q.id in stated], now)
    lost: dict[str, str] = {}
    for id in stated.keys() - today.keys():
        wanted = [normalised_words(sentence).strip() for sentence in stated[id]]
        if not any(sentence in text for text in now.all_words for sentence in wanted):
            lost[id] = NOWHERE
    return {question.id: lost[question.id] for question in open_ones if question.id in lost}


def _stating_sentences(questions: Sequence[Question], texts: DocumentTexts) -> dict[str, list[str]]:
    """Return the sentences of all documents that state each question's answer and speak of what it asks, by its id.

    The documents are read once; a sentence is looked at only where its document has enough of a question's words.
    """
    facts = {q.id: gold_texts(q, "") for q in questions}
    about = {q.id: set(content_words(q.question)) - _all_words(facts[q.id]) for q in questions}
    stated: dict[str, list[str]] = {}
    for name in texts.names if questions else ():
        raw = texts.of(name) or ""
        known = set(content_words(raw))
        wanted = [q for q in questions if about[q.id] and _share(about[q.id], known) >= SAME_SENTENCE_SHARE]
        for start, end in sentence_spans(raw) if wanted else ():
            sentence = raw[start:end]
            words = set(content_words(sentence))
            for question in wanted:
                same = _share(about[question.id], words) >= SAME_SENTENCE_SHARE
                if same and states_any(sentence, facts[question.id]):
                    stated.setdefault(question.id, []).append(sentence)
    return stated


def _not_stated(questions: Sequence[Question], now: DocumentTexts) -> dict[str, str]:
    """Return the questions whose short answers their documents do not state; {} where that is so of most."""
    lost: dict[str, str] = {}
    asked = [q for q in questions if q.doc_id and q.short_answers and q.answerable]
    for question in asked:
        text = now.of(str(question.doc_id))
        if text is None or not states_any(text, question.short_answers):
            lost[question.id] = (GONE if text is None else CHANGED).format(question.doc_id)
    return lost if 2 * len(lost) <= len(asked) else {}


def _still_held(text: str, evidence: Sequence[str], facts: Sequence[str], question: Question) -> bool:
    """Return whether a document still holds one of the sentences, or states the fact in one about the same thing."""
    plain = normalised_words(text)
    if any(normalised_words(sentence).strip() in plain for sentence in evidence):
        return True
    of_facts = _all_words(facts)
    about = [set(content_words(sentence)) - of_facts for sentence in evidence]
    asked = set(content_words(question.question)) - of_facts
    for start, end in sentence_spans(text):
        sentence = text[start:end]
        words = set(content_words(sentence))
        same = any(_share(known, words) >= SAME_SENTENCE_SHARE for known in (*about, asked))
        if same and states_any(sentence, facts):
            return True
    return False


def _share(wanted: set[str], words: set[str]) -> float:
    return len(wanted & words) / len(wanted) if wanted else 1.0


def _all_words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in content_words(text)}
