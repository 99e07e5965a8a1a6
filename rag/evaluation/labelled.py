"""Questions with gold, prepared to score the passages of a prompt by the strongest gold that each question has.

:func:`label_questions` finds each question's gold in the documents. Gold spans are scored by the share of their
characters that is shown, parts that an answer must all have by the share of them that is shown, short answers by whether
one of them occurs in a passage, a gold document by whether a passage of it is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rag.evaluation.gold_documents import match_documents
from rag.evaluation.metrics import measure_evidence
from rag.grounding.context import Passage
from rag.text.words import content_words, words
from rag.types import Document

GOLD_KINDS = {
    "spans": "the share of the gold spans that is shown",
    "parts": "the share of the parts (all_of) that is shown",
    "answers": "whether an answer is in a passage",
    "document": "whether a passage of the gold document is shown",
}
"""How a question can be scored, strongest first."""


class QuestionRow(Protocol):
    """A row of a questions file; it may have ``all_of`` besides, the parts that a right answer must all have."""

    @property
    def question(self) -> str:
        """The question."""

    @property
    def answers(self) -> Sequence[str]:
        """Short answers, each of them correct."""

    @property
    def doc_id(self) -> str | None:
        """The id of the gold document."""

    @property
    def spans(self) -> Sequence[tuple[int, int]]:
        """Character offsets of the gold passages in the gold document."""

    @property
    def answerable(self) -> bool:
        """Whether the documents contain an answer."""


@dataclass(frozen=True, slots=True)
class LabelledQuestion:
    """A question and the gold that the shown passages are scored by."""

    question: str
    kind: str
    """A key of :data:`GOLD_KINDS`."""
    doc: str = ""
    raw: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    answers: tuple[str, ...] = ()
    """As stemmed words between blanks; see ``_stemmed``."""
    parts: tuple[str, ...] = ()
    """The same of the parts; with short answers besides, one of them is a part more."""

    def score(self, passages: Sequence[Passage]) -> float:
        """Return how much of the gold the passages show, 0 to 1."""
        if self.kind == "spans":
            return measure_evidence(passages, self.doc, self.raw, self.spans).recall
        candidates = [passage for passage in passages if not self.doc or passage.hit.chunk.doc == self.doc]
        if self.kind == "document":
            return float(bool(candidates))
        texts = [_stemmed(passage.text) for passage in candidates]
        groups = [*((part,) for part in self.parts), *([self.answers] if self.answers else [])]
        shown = [any(answer in text for text in texts for answer in group) for group in groups]
        return sum(shown) / len(shown)


@dataclass(frozen=True, slots=True)
class LabelledQuestions:
    """The questions that can be scored, and how many cannot, by reason."""

    questions: tuple[LabelledQuestion, ...]
    left_out: Mapping[str, int]

    @property
    def kinds(self) -> dict[str, int]:
        """How many questions are scored by each kind of gold."""
        return dict(Counter(question.kind for question in self.questions))


def label_questions(rows: Sequence[QuestionRow], documents: Sequence[Document]) -> LabelledQuestions:
    """Find each question's gold in the documents.

    A gold document may be named by the end of its path or without its file ending: see
    :func:`rag.evaluation.gold_documents.match_documents`.
    """
    names = (row.doc_id for row in rows if row.doc_id)
    lookup = _GoldLookup(documents, match_documents(names, [document.id for document in documents]).ids)
    labelled: list[LabelledQuestion] = []
    left_out: Counter[str] = Counter()
    for row in rows:
        question = lookup.find(row)
        if isinstance(question, LabelledQuestion):
            labelled.append(question)
        else:
            left_out[question] += 1
    return LabelledQuestions(tuple(labelled), dict(left_out))


class _GoldLookup:
    """Documents by id, and by the names that questions have for them."""

    def __init__(self, documents: Sequence[Document], ids: Mapping[str, str]) -> None:
        self._documents = {document.id: document for document in documents}
        self._ids = ids
        self._stemmed_texts: dict[str, str] = {}

    def find(self, row: QuestionRow) -> LabelledQuestion | str:
        """Return the question with its gold, or the reason why it cannot be scored."""
        if not row.answerable:
            return "have no answer in the documents"
        name = row.doc_id or ""
        document = self._documents.get(self._ids.get(name, ""))
        if name and document is None:
            return "name a gold document that is not among the documents"
        answers, parts = (_stems(texts) for texts in (row.answers, getattr(row, "all_of", ())))
        if document is None:
            present, present_parts = (
                self._present(texts, tuple(self._documents)) for texts in (answers, parts)
            )
            if not (present or present_parts):
                return "carry no gold that can be found"
        else:
            if any(end > len(document.raw) for _, end in row.spans):
                return "have spans beyond the end of their document"
            if row.spans:
                return LabelledQuestion(row.question, "spans", document.id, document.raw, tuple(row.spans))
            present, present_parts = (self._present(texts, (document.id,)) for texts in (answers, parts))
        kind = "parts" if present_parts else "answers" if present else "document"
        return LabelledQuestion(
            row.question,
            kind,
            document.id if document else "",
            answers=present,
            parts=present_parts,
        )

    def _present(self, texts: Sequence[str], ids: Sequence[str]) -> tuple[str, ...]:
        """Return the texts that one of these documents has."""
        return tuple(text for text in texts if any(text in self._words(id) for id in ids))

    def _words(self, id: str) -> str:
        if id not in self._stemmed_texts:
            self._stemmed_texts[id] = _stemmed(self._documents[id].raw)
        return self._stemmed_texts[id]


def _stems(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the texts that have content words, as :func:`_stemmed` does."""
    return tuple(_stemmed(text) for text in texts if content_words(text))


def _stemmed(text: str) -> str:
    """Return the text's stemmed words between blanks, so that only whole words match."""
    return f" {' '.join(words(text))} "
