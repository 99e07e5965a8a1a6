"""The interview: which question comes next, the way back, the review. Knows nothing of terminals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from advisor.answers import Answer, Answers
from advisor.questions import BY_ID, QUESTIONS, Question
from rag.errors import Problem

PERSON = ("flag", "file", "asked")
MEASURED = ("documents", "examples", "questions", "prompt", "model", "model_params_b", "gpu_kind",
            "gpu_count", "gpu_memory_gib")  # fmt: skip
"""Answers after which files, model and machine are looked at again."""


class Move:
    """What a person may choose instead of an answer."""

    BACK = "« back »"
    DONE = "« done »"
    MORE = "« more »"


class Prompter(Protocol):
    """Whoever asks: a terminal, or a script keyed by question ids."""

    def ask(self, question: Question, known: Answer | None, left: int) -> Any:
        """Return an answer (None is unknown) or Move.BACK; ``known`` is offered as the default."""

    def review(self, answers: Answers) -> str:
        """Return the id of an answer to change, Move.DONE, Move.MORE or Move.BACK."""

    def say(self, line: str) -> None:
        """Show a line, such as why an answer was refused."""


class Interview:
    """One conversation; ``answers`` is at any moment what was answered so far."""

    def __init__(self, prompter: Prompter, answers: Answers, measure: Callable[[Answers], Answers]) -> None:
        """``measure`` adds what files, model and machine say; it may raise a Problem about an answer."""
        self.prompter = prompter
        self.measure = measure
        self.answers = measure(answers)
        self.trail: list[str] = []
        self.everything = False

    def run(self) -> Answers:
        """Ask until the person is done with the review; return the answers.

        KeyboardInterrupt passes through, with everything answered so far in ``answers``.
        """
        while True:
            if open_questions := self.left():
                self.step(open_questions[0])
                continue
            chosen = self.prompter.review(self.answers)
            if chosen == Move.DONE:
                return self.answers
            if chosen == Move.MORE:
                self.everything = True
            elif chosen == Move.BACK:
                self.back()
            else:
                self.put(BY_ID[chosen])

    def left(self) -> list[Question]:
        """The questions still to ask: those that can matter and were not answered by a person."""
        known = self.answers.values_known
        return [
            question
            for question in QUESTIONS
            if question.id not in self.trail
            and (self.everything or not question.detail)
            and question.when(known)
            and not self._person(question.id)
        ]

    def step(self, question: Question) -> None:
        """Ask one question; going back asks the one before it again."""
        if self.put(question):
            self.trail.append(question.id)
        else:
            self.back()

    def back(self) -> None:
        """Ask the last answered question again."""
        while self.trail:
            question = BY_ID[self.trail.pop()]
            if self.put(question):
                self.trail.append(question.id)
                return

    def put(self, question: Question) -> bool:
        """Ask until the answer holds; False when the person goes back instead."""
        while True:
            known = self.answers.get(question.id)
            value = self.prompter.ask(question, known, len(self.left()))
            if value == Move.BACK:
                return False
            try:
                self._keep(question, value, known)
                return True
            except Problem as problem:
                self.prompter.say(f"{problem.message} ({problem.hint})" if problem.hint else problem.message)

    def _keep(self, question: Question, value: Any, known: Answer | None) -> None:
        """Record an answer; a confirmed detected value keeps its source."""
        changed = self.answers.override(question.id, value)
        if known and known.source not in PERSON and changed[question.id].value == known.value:
            return
        self.answers = self.measure(changed) if question.id in MEASURED else changed

    def _person(self, key: str) -> bool:
        return key in self.answers and self.answers[key].source in PERSON
