"""The checks that every made row must pass, and what is recorded of each.

In this order, cheapest first; the first that fails names the reason: the form, the support of the reply by its passage,
retrieval of that passage for the question, repeats and leaks. That the base model knows the answer without the passage
(:func:`closed_book`) is recorded and no reason by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rag.embedding.language import detect_language
from rag.index import Index
from rag.types import Chunk, Hit
from runners.data.examples import Example, normalise_text
from runners.data.questions import Question
from runners.inference.types import Generator
from runners.plan.schema import StyleCheck
from runners.scoring.free_text import text_states_fact
from runners.scoring.scores import missing_form
from runners.synthesis.passage_reading import SUPPORTED, ReplySupport
from runners.synthesis.question_form import question_fault, reply_fault
from runners.synthesis.repeats import RepeatFinder
from runners.synthesis.reply_support import check_reply

FORM, UNSUPPORTED, NOT_RETRIEVED, LEAK, REPEAT, KNOWN = (
    "form",
    "unsupported",
    "not retrieved",
    "leak",
    "repeat",
    "known",
)
MALFORMED = "malformed"
"""The teacher's text holds no question and reply."""
REJECTIONS = (MALFORMED, FORM, UNSUPPORTED, NOT_RETRIEVED, LEAK, REPEAT, KNOWN)
"""Kinds of reasons for which a row is thrown out, in the order in which they are looked at."""
DEFAULT_K = 10
"""Passages among which retrieval must find the row's own."""
CLOSED_TOKENS = 64
"""Most tokens of an answer without the passage."""
_BATCH = 32


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """A question with a reply that was made from a passage."""

    question: str
    reply: str
    """The reply, or the short answer of a question."""
    passage: Chunk
    by_grammar: bool = False
    """Whether it was made from a statement by rule, so that its answer needs no check."""
    spans: tuple[tuple[int, int], ...] = ()
    """(start, end) in the document of the statement that it was made from; () where it is to be looked for."""


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """A row with what the checks found."""

    row: CandidateRow
    kind: str = ""
    """One of :data:`REJECTIONS`; "" for a row that passed."""
    reason: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    """(start, end) in the document of what bears out the reply."""
    checks: dict[str, Any] = field(default_factory=dict)
    """Values that were measured: support, rank, known and others."""


class RowChecker:
    """Checks rows against an index of all documents, the user's examples, held-out questions and the rows before them."""

    def __init__(
        self,
        index: Index,
        *,
        k: int = DEFAULT_K,
        language: str = "",
        strict: bool = False,
        examples: Sequence[Example] = (),
        held_out: Sequence[Question] = (),
        answer_checks: Sequence[StyleCheck] = (),
    ) -> None:
        """Take what rows are checked against.

        Args:
            index: of all documents, opened with its embedder.
            k: passages among which retrieval must find the row's own.
            language: name of the language of questions and replies; "" takes that of each passage.
            strict: refuse replies that only the claim check's second reading accepts.
            examples: rows that new ones must not repeat.
            held_out: questions that no row may contain.
            answer_checks: checks of the examples' replies; a reply must have the form of their final answers.
        """
        self._index = index
        self._k = k
        self._language = language
        self._strict = strict
        self._answer_checks = answer_checks
        self._vectors: dict[str, np.ndarray] = {}
        self.repeats = RepeatFinder(self.encode, examples, held_out)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return the unit vectors of texts, float32 [texts, dimensions]; each text is embedded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, self._index.encoder.encode(new), strict=True))
        return np.stack([self._vectors[text] for text in texts])

    def similarity(self, text: str, others: Sequence[str]) -> list[float]:
        """Return the cosine of a text with each of the others."""
        vectors = self.encode([text, *others])
        return [float(value) for value in vectors[1:] @ vectors[0]]

    def check_all(self, rows: Sequence[CandidateRow]) -> list[CheckedRow]:
        """Check rows in order; a row that passes is one that later ones must not repeat."""
        checked = [self._check_text(row) for row in rows]
        passed = [n for n, row in enumerate(checked) if not row.kind]
        hits = self._index.search_many([rows[n].question for n in passed], self._k) if passed else []
        for n, found_hits in zip(passed, hits, strict=True):
            checked[n] = self._check_retrieval(checked[n], found_hits)
        return [row if row.kind else self._check_repeats(row) for row in checked]

    def _check_text(self, row: CandidateRow) -> CheckedRow:
        """Return the row after the checks of its form and of its reply."""
        language = self._language or detect_language(row.passage.text)
        if fault := question_fault(row.question, language):
            return CheckedRow(row, FORM, fault)
        if rule := missing_form([row.reply], self._answer_checks):
            return CheckedRow(row, FORM, f"the reply is not of the form of the examples: {rule}")
        if (
            f" {normalise_text(row.question)} " in f" {normalise_text(row.passage.text)} "
            and "?" not in row.question
        ):
            return CheckedRow(row, FORM, "no question")  # a line of the passage
        if row.by_grammar:
            return CheckedRow(row, spans=row.spans, checks={"support": "statement"})
        quoted = f" {normalise_text(row.reply)} " in f" {normalise_text(row.passage.text)} "
        if fault := reply_fault(row.question, row.reply, "" if quoted else language):
            return CheckedRow(row, FORM, fault)
        support = check_reply(row.question, row.reply, row.passage, self.similarity)
        if not support.level:
            return CheckedRow(row, UNSUPPORTED, support.reason)
        if self._strict and support.level != SUPPORTED:
            return CheckedRow(row, UNSUPPORTED, f"only {support.level}, and --strict is given")
        return CheckedRow(row, spans=_in_document(row.passage, support), checks={"support": support.level})

    def _check_retrieval(self, checked: CheckedRow, hits: Sequence[Hit]) -> CheckedRow:
        rank = next(
            (n for n, hit in enumerate(hits, 1) if self._holds(checked, hit.chunk)),
            0,
        )
        if not rank:
            reason = f"its passage is not among the first {self._k} for its question"
            return CheckedRow(checked.row, NOT_RETRIEVED, reason, checked.spans, checked.checks)
        return CheckedRow(checked.row, spans=checked.spans, checks={**checked.checks, "rank": rank})

    def _holds(self, checked: CheckedRow, chunk: Chunk) -> bool:
        """Return whether a passage that was retrieved is the row's own, or holds what bears out its reply."""
        own = checked.row.passage
        if chunk.doc == own.doc:
            overlapping = any(chunk.start < end and start < chunk.end for start, end in checked.spans)
            return overlapping or (chunk.start < own.end and own.start < chunk.end and not checked.spans)
        if normalise_text(chunk.text) == normalise_text(own.text):
            return True
        # another document may state the same: then either passage is right
        return not checked.row.by_grammar and (
            check_reply(checked.row.question, checked.row.reply, chunk).level == SUPPORTED
        )

    def _check_repeats(self, checked: CheckedRow) -> CheckedRow:
        row = checked.row
        if fault := self.repeats.fault(row.question, row.reply, row.passage.doc):
            kind = LEAK if fault.startswith("leaks") else REPEAT
            return CheckedRow(row, kind, fault, checked.spans, checked.checks)
        self.repeats.add(row.question, row.reply, row.passage.doc)
        return checked


def closed_book(
    rows: Sequence[CandidateRow],
    generator: Generator,
    system: str = "",
    on_batch: Callable[[int], None] | None = None,
) -> list[bool]:
    """Return for each row whether a model answers its question rightly without the passage.

    Args:
        rows: the rows.
        generator: the base model.
        system: the instructions; "" for none.
        on_batch: called with the number of rows that are done.
    """
    head = [{"role": "system", "content": system}] if system else []
    chats = [[*head, {"role": "user", "content": row.question}] for row in rows]
    known: list[bool] = []
    for at in range(0, len(chats), _BATCH):
        answers = generator.generate(chats[at : at + _BATCH], CLOSED_TOKENS)
        for row, answer in zip(rows[at : at + _BATCH], answers, strict=True):
            known.append(text_states_fact(answer.text, row.reply, row.question))
        if on_batch:
            on_batch(len(known))
    return known


def _in_document(passage: Chunk, support: ReplySupport) -> tuple[tuple[int, int], ...]:
    """Return spans of a passage's text as spans of its document, or the passage's own where its text is no slice of it."""
    if len(passage.text) != passage.end - passage.start:
        return ((passage.start, passage.end),)
    return tuple((passage.start + start, passage.start + end) for start, end in support.spans)
