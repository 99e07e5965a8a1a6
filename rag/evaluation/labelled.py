"""Questions with gold, made ready to judge the passages of a prompt by the strongest gold each carries.

Gold spans are judged by the share of their characters that is shown, answers by whether one of them stands in
a passage, a gold document by whether a passage of it is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from rag.evaluation.metrics import measure_evidence
from rag.grounding.context import Passage
from rag.text.words import content_words, words
from rag.types import Document

GOLD_KINDS = {
    "spans": "the share of the gold spans that is shown",
    "answers": "whether an answer stands in a passage",
    "document": "whether a passage of the gold document is shown",
}
"""How a question can be judged, strongest first."""


class QuestionRow(Protocol):
    """A row of a questions file."""

    @property
    def question(self) -> str:
        """The question."""

    @property
    def answers(self) -> Sequence[str]:
        """Short answers, each of them right."""

    @property
    def doc_id(self) -> str | None:
        """The id of the gold document."""

    @property
    def spans(self) -> Sequence[tuple[int, int]]:
        """Character offsets of the gold passages in the gold document."""

    @property
    def answerable(self) -> bool:
        """Whether the documents hold an answer."""


@dataclass(frozen=True, slots=True)
class LabelledQuestion:
    """A question and the yardstick for what is shown to answer it."""

    question: str
    kind: str
    """A key of ``KINDS``."""
    doc: str = ""
    raw: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    answers: tuple[str, ...] = ()
    """As stemmed words between blanks."""

    def score(self, passages: Sequence[Passage]) -> float:
        """Return how well the passages hold the gold, 0 to 1."""
        if self.kind == "spans":
            return measure_evidence(passages, self.doc, self.raw, self.spans).recall
        there = [p for p in passages if not self.doc or p.hit.chunk.doc == self.doc]
        if self.kind == "document":
            return float(bool(there))
        return float(any(answer in _worded(p.text) for p in there for answer in self.answers))


@dataclass(frozen=True, slots=True)
class LabelledQuestions:
    """The questions that can be judged, and how many cannot, by reason."""

    questions: tuple[LabelledQuestion, ...]
    left_out: Mapping[str, int]

    @property
    def kinds(self) -> dict[str, int]:
        """How many questions are judged in which way."""
        return dict(Counter(asked.kind for asked in self.questions))


def label_questions(rows: Sequence[QuestionRow], documents: Sequence[Document]) -> LabelledQuestions:
    """Find each question's gold in the documents.

    A gold document may be named without its ending where that is unambiguous.
    """
    shelf = _Shelf(documents)
    found: list[LabelledQuestion] = []
    left_out: Counter[str] = Counter()
    for row in rows:
        asked = shelf.find(row)
        if isinstance(asked, LabelledQuestion):
            found.append(asked)
        else:
            left_out[asked] += 1
    return LabelledQuestions(tuple(found), dict(left_out))


class _Shelf:
    """Documents by id, and by id without ending."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._documents = {document.id: document for document in documents}
        stems = Counter(PurePosixPath(id).stem for id in self._documents)
        self._stems = {stem: id for id in self._documents if stems[stem := PurePosixPath(id).stem] == 1}
        self._worded: dict[str, str] = {}

    def find(self, row: QuestionRow) -> LabelledQuestion | str:
        """Return the question with its gold, or the reason why it cannot be judged."""
        if not row.answerable:
            return "have no answer in the documents"
        name = row.doc_id or ""
        document = self._documents.get(name) or self._documents.get(self._stems.get(name, ""))
        if name and document is None:
            return "name a gold document that is not among the documents"
        answers = tuple(_worded(answer) for answer in row.answers if content_words(answer))
        if document is None:
            there = tuple(a for a in answers if any(a in self._words(id) for id in self._documents))
            return (
                LabelledQuestion(row.question, "answers", answers=there)
                if there
                else "carry no gold that can be found"
            )
        if any(end > len(document.raw) for _, end in row.spans):
            return "have spans beyond the end of their document"
        if row.spans:
            return LabelledQuestion(row.question, "spans", document.id, document.raw, tuple(row.spans))
        there = tuple(answer for answer in answers if answer in self._words(document.id))
        return LabelledQuestion(row.question, "answers" if there else "document", document.id, answers=there)

    def _words(self, id: str) -> str:
        if id not in self._worded:
            self._worded[id] = _worded(self._documents[id].raw)
        return self._worded[id]


def _worded(text: str) -> str:
    """Return the text's stemmed words between blanks, so that whole words are compared."""
    return f" {' '.join(words(text))} "
