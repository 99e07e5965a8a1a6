"""Validation of typed answers while they are typed, and the hint below the input."""

from __future__ import annotations

from collections.abc import Callable

from prompt_toolkit.application import get_app
from prompt_toolkit.document import Document
from prompt_toolkit.validation import ValidationError, Validator

from advisor.questionnaire.answers import UNKNOWN_WORDS, format_answer, names_a_path, read_answer
from advisor.questionnaire.gather import check_model
from advisor.questionnaire.model_questions import parse_models
from advisor.questionnaire.question_types import Question
from rag.errors import BadInput

BACK_KEY = "<"


class TypedAnswerValidator(Validator):
    """Rejects, while it is typed, what the question does not allow."""

    def __init__(self, question: Question, words: tuple[str, ...] = ()) -> None:
        """Take the question whose answer is typed, and words that may be typed in place of an answer."""
        self.question = question
        self.words = words

    def validate(self, document: Document) -> None:
        """Raise ValidationError with what is allowed."""
        text = document.text.strip()
        if text == BACK_KEY or text.lower() in (*UNKNOWN_WORDS, *self.words):
            return
        try:
            read_answer(self.question.id, text)
            if self.question.id == "model":
                check_model(text)
            if self.question.id == "models":
                for name in parse_models(text).values():
                    check_model(name)
        except BadInput as problem:
            raise ValidationError(len(document.text), f"{problem.message}; {problem.hint}") from None
        if self.question.kind == "path" and not names_a_path(text):
            raise ValidationError(len(document.text), f"there is nothing at {text}")


class NameValidator(Validator):
    """Rejects a name that a check rejects; an empty name is allowed."""

    def __init__(self, check: Callable[[str], object]) -> None:
        """Take a check that raises BadInput for a name that is not allowed."""
        self.check = check

    def validate(self, document: Document) -> None:
        """Raise ValidationError with what is allowed."""
        if text := document.text.strip():
            try:
                self.check(text)
            except BadInput as problem:
                raise ValidationError(len(document.text), f"{problem.message}; {problem.hint}") from None


def typing_hint(question: Question, default: str) -> str:
    """Return how the number typed so far is read, and the keys."""
    text = get_app().current_buffer.text.strip()
    reading = ""
    if question.kind in ("count", "number", "share") and text and text not in (*UNKNOWN_WORDS, BACK_KEY):
        try:
            reading = f" = {format_answer(read_answer(question.id, text))} ·"
        except BadInput:
            reading = ""
    keys = f" {'Enter keeps it · unknown clears it' if default else 'Enter: I do not know'} · ? help · {BACK_KEY} back"
    return reading + keys + (f" · in {question.unit}" if question.unit else "")
