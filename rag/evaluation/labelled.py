"""Questions with gold, prepared to score the passages of a prompt by the strongest gold that each question has.

:func:`label_questions` finds each question's gold in the documents. Gold spans are scored by the share of their
characters that is shown, short answers by whether one of them occurs in a passage, a gold document by whether a
passage of it is shown.
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
    "answers": "whether an answer is in a passage",
    "document": "whether a passage of the gold document is shown",
}
"""How a question can be scored, strongest first."""


class QuestionRow(Protocol):
    """A row of a questions file."""

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

    def score(self, passages: Sequence[Passage]) -> float:
        """Return how much of the gold the passages show, 0 to 1."""
        if self.kind == "spans":
            return measure_evidence(passages, self.doc, self.raw, self.spans).recall
        candidates = [passage for passage in passages if not self.doc or passage.hit.chunk.doc == self.doc]
        if self.kind == "document":
            return float(bool(candidates))
        return float(
            any(answer in _stemmed(passage.text) for passage in candidates for answer in self.answers)
        )


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
        answers = tuple(_stemmed(answer) for answer in row.answers if content_words(answer))
        if document is None:
            present = tuple(
                answer for answer in answers if any(answer in self._words(id) for id in self._documents)
            )
            return (
                LabelledQuestion(row.question, "answers", answers=present)
                if present
                else "carry no gold that can be found"
            )
        if any(end > len(document.raw) for _, end in row.spans):
            return "have spans beyond the end of their document"
        if row.spans:
            return LabelledQuestion(row.question, "spans", document.id, document.raw, tuple(row.spans))
        present = tuple(answer for answer in answers if answer in self._words(document.id))
        return LabelledQuestion(
            row.question, "answers" if present else "document", document.id, answers=present
        )

    def _words(self, id: str) -> str:
        if id not in self._stemmed_texts:
            self._stemmed_texts[id] = _stemmed(self._documents[id].raw)
        return self._stemmed_texts[id]


def _stemmed(text: str) -> str:
    """Return the text's stemmed words between blanks, so that only whole words match."""
    return f" {' '.join(words(text))} "
