"""Rows that repeat other rows or leak held-out questions, in the same words or by the same fact in others.

Words are compared as everywhere (:mod:`runners.data.duplicates`, :mod:`runners.data.leakage`). A fact that is asked for in
other words is noticed where both rows come from one document and have one answer, or where their questions are near in
meaning and have one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rag.grounding.fields import structured_fields
from rag.quantities.reading import read_quantities
from rag.text.words import STOP_WORDS
from runners.data import duplicates
from runners.data.examples import Example, normalise_text
from runners.data.leakage import LEAKING, NEAR_REPEAT, find_all_leaks
from runners.data.questions import Question, with_wordings
from runners.scoring.scores import token_f1
from runners.synthesis.passage_reading import CODE_MARK, CODE_QUOTES

Encode = Callable[[Sequence[str]], np.ndarray]
"""Texts as unit vectors, float32 [texts, dimensions]."""
SAME_QUESTION = 0.93
"""Cosine from which two questions ask the same, whatever the replies: "Could you tell me ..." before a question."""
SAME_WITH_ANSWER = 0.75
"""Cosine from which two questions with one answer ask for one fact."""
SAME_IN_DOCUMENT = 0.5
"""The same of two questions about one document."""
SHARED_F1 = 0.2
"""Token F1 below which two answers are of two questions, however near these are."""
SAME_ANSWER_F1 = 0.6
"""Token F1 from which two answers are one."""


@dataclass(frozen=True, slots=True)
class KnownRow:
    """A row that new rows must not repeat."""

    kind: str
    """row, example or held-out."""
    question: str
    answers: tuple[str, ...]
    doc: str = ""


class RepeatFinder:
    """The rows so far, the user's examples and the held-out questions, to compare new rows with."""

    def __init__(
        self, encode: Encode, examples: Sequence[Example] = (), held_out: Sequence[Question] = ()
    ) -> None:
        """Take what new rows must not repeat.

        Args:
            encode: embeds questions.
            examples: the user's own rows.
            held_out: questions that no row may contain, in any of their wordings.
        """
        held_out = with_wordings(held_out)
        self._encode = encode
        self._held_out = held_out
        self._known: list[KnownRow] = []
        self._vectors: list[np.ndarray] = []
        known = [
            KnownRow("held-out", question.question, _answers_of(question), question.doc_id or "")
            for question in held_out
        ]
        known += [
            KnownRow("example", row.question, (row.reply,), str(row.meta.get("doc_id") or ""))
            for row in examples
            if not row.raw
        ]
        if known:
            self._known += known
            self._vectors += list(encode([row.question for row in known]))

    def fault(self, question: str, reply: str, doc: str) -> str:
        """Return what a row repeats, "" where it repeats nothing.

        Args:
            question: its question.
            reply: its reply, or short answer.
            doc: id of its document.
        """
        messages = ({"role": "user", "content": question}, {"role": "assistant", "content": reply or "-"})
        example = Example(messages, {"doc_id": doc} if doc else {}, 1)
        for held, leaks in zip(self._held_out, find_all_leaks([example], self._held_out), strict=True):
            kind = next((leak.kind for leak in leaks if leak.kind in LEAKING), "")
            if kind == NEAR_REPEAT and self._is_another(question, reply, held.question, _answers_of(held)):
                continue
            if kind:
                return f"leaks a held-out question ({kind})"
        if not self._known:
            return ""
        own = normalise_text(question)
        others = [row.question for row in self._known]
        near = set(duplicates.near_duplicate_matches([question], others)[0])
        cosines = np.stack(self._vectors) @ self._encode([question])[0]
        for n, (row, cosine) in enumerate(zip(self._known, cosines, strict=True)):
            if self._is_another(question, reply, row.question, row.answers):
                continue  # "... in Spain?" and "... in France?"
            elsewhere = bool(doc and row.doc and row.doc != doc)
            same_words = own == normalise_text(row.question) or n in near
            alike = cosine >= SAME_QUESTION and (
                not row.answers or not reply or _may_be_one(reply, row.answers)
            )
            if (same_words or alike) and not (elsewhere and own != normalise_text(row.question)):
                if elsewhere and not _one_answer(reply, row.answers):
                    continue  # "When does it open?" of two places
                return _repeat_text(row, "nearly" if same_words else "in other words")
            if not elsewhere and _one_answer(reply, row.answers):
                bound = SAME_IN_DOCUMENT if doc and row.doc == doc else SAME_WITH_ANSWER
                if cosine >= bound:
                    return _repeat_text(row, "by the same fact")
        return ""

    @staticmethod
    def _is_another(question: str, reply: str, other: str, answers: Sequence[str]) -> bool:
        """Return whether two questions ask the same of two things, and have two answers."""
        return (
            bool(reply and answers) and not _one_answer(reply, answers) and _asks_of_another(question, other)
        )

    def add(self, question: str, reply: str, doc: str) -> None:
        """Add a row that later ones must not repeat."""
        self._known.append(KnownRow("row", question, (reply,) if reply else (), doc))
        self._vectors.append(self._encode([question])[0])


def _repeat_text(row: KnownRow, how: str) -> str:
    return {
        "held-out": f"leaks a held-out question ({how})",
        "example": f"repeats one of your examples ({how})",
        "row": f"repeats another row ({how})",
    }[row.kind]


def _answers_of(question: Question) -> tuple[str, ...]:
    given = (*question.short_answers, *question.references, question.reference or "", question.fact or "")
    return tuple(dict.fromkeys(filter(None, given)))


def _asks_of_another(question: str, other: str) -> bool:
    """Return whether each of two questions has a name, a number or a piece of code that the other does not have."""
    own, its = distinctive_words(question), distinctive_words(other)
    own_words, its_words = (
        frozenset(word.strip(CODE_QUOTES + "?!").lower() for word in text.split())
        for text in (question, other)
    )
    return bool(own - its_words) and bool(its - own_words)


def distinctive_words(question: str) -> frozenset[str]:
    """Return the names, numbers and pieces of code of a question in small letters; its first words are no names."""
    tokens = [word.strip(CODE_QUOTES + "?!") for word in question.split()]
    return frozenset(
        token.lower()
        for n, token in enumerate(tokens)
        if token
        and (
            token[0].isdigit()
            or CODE_MARK.search(token)
            or (n and token[0].isupper() and token.lower() not in STOP_WORDS)
        )
    )


def _may_be_one(reply: str, answers: Sequence[str]) -> bool:
    """Return whether a reply shares words with an answer: "what year" and "what battle" ask two things."""
    return _one_answer(reply, answers) or any(token_f1(reply, answer) >= SHARED_F1 for answer in answers)


def _fields_of(reply: str) -> dict[str, str]:
    """Return the values of a structured reply by their keys; {} for prose."""
    fields = structured_fields(reply)
    joined: dict[str, str] = {}
    for field in fields:
        joined[field.key] = f"{joined.get(field.key, '')} {field.value}".strip()
    return joined


def _one_value(value: str, other: str) -> bool:
    """Return whether two values of one key say the same: code and numbers exactly, prose in most words."""
    if CODE_MARK.search(f"{value} {other}") or read_quantities(f"{value} {other}"):
        return value.split() == other.split()
    return normalise_text(value) == normalise_text(other) or token_f1(value, other) >= SAME_ANSWER_F1


def _one_answer(reply: str, answers: Sequence[str]) -> bool:
    """Return whether a reply is one of the answers, or one contains the other word for word."""
    own = f" {normalise_text(reply)} "
    fields = _fields_of(reply)
    for answer in answers:
        others = _fields_of(answer)
        if fields and set(fields) == set(others):
            # two cards about one thing share most lines; one line that differs makes another answer
            if all(_one_value(value, others[key]) for key, value in fields.items()):
                return True
            continue
        other = f" {normalise_text(answer)} "
        if own.strip() and other.strip() and (own in other or other in own):
            return True
        if token_f1(reply, answer) >= SAME_ANSWER_F1:
            return True
    return False
