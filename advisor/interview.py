"""The interview: which question comes next, the way back, the review. Knows nothing of terminals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from advisor.answers import PERSON, Answer, Answers
from advisor.branching import decides, most_left, worth_asking
from advisor.gather import Situation
from advisor.lacking import missing
from advisor.naming import check_model
from advisor.profile import Profile
from advisor.questions import BY_ID, QUESTIONS, Question
from advisor.ranking import Ranking, rank
from rag.errors import Problem

MEASURED = ("documents", "examples", "questions", "prompt", "model", "model_params_b", "gpu_kind",
            "gpu_count", "gpu_memory_gib")  # fmt: skip
"""Answers after which files, model and machine are looked at again."""


class Move:
    """What a person may choose instead of an answer."""

    BACK = "« back »"
    DONE = "« done »"
    RECORD = "« done, with a decision record »"
    SAVE = "« save »"
    MORE = "« more »"
    PROBE = "« probe »"


@dataclass(frozen=True, slots=True)
class Asked:
    """One question as it is put: what is known of it, and how much it can matter."""

    question: Question
    known: Answer | None
    number: int
    """Which question of the conversation this is, from 1; 0 when an answer is changed at the review."""
    most: int
    """The most questions that the conversation can have; it falls as answers make others needless."""
    decides: bool
    """Whether some answer to it alone would change the method that leads now."""
    closed: Mapping[Any, str]
    """The answers that others rule out, with the reason."""
    profile: Profile
    lacking: Mapping[str, str]
    """The methods that miss a package here, with what they need."""


class Prompter(Protocol):
    """Whoever asks: a terminal, or a script keyed by question ids."""

    def ask(self, asked: Asked) -> Any:
        """Return an answer (None is unknown) or Move.BACK; what is known is offered as the default."""

    def review(self, answers: Answers, profile: Profile) -> str:
        """Return the id of an answer to change, or a Move."""

    def say(self, line: str) -> None:
        """Show a line, such as why an answer was refused."""

    def note(self, line: str) -> None:
        """Show what should be known about an answer that was taken."""

    def moved(self, before: Ranking, after: Ranking, answers: Answers) -> None:
        """Show how an answer moved the ranking."""

    def save(self, answers: Answers) -> None:
        """Keep the answers under a name."""

    def probe(self, answers: Answers) -> Answers:
        """Return the answers with what a probe of the base model settled; as they are when it is not wanted."""


class Interview:
    """One conversation; ``answers`` is at any moment what was answered so far."""

    def __init__(self, prompter: Prompter, answers: Answers, measure: Callable[[Answers], Situation]) -> None:
        """``measure`` adds what files, model and machine say; it may raise a Problem about an answer."""
        self.prompter = prompter
        self.measure = measure
        self.situation = measure(answers)
        self.answers = self.situation.answers
        self.ranking = rank(self.profile)
        self.trail: list[str] = []
        self.everything = False
        self.record = False

    @property
    def profile(self) -> Profile:
        """The situation as it is known by now."""
        seen = self.situation.profile
        return Profile.of(self.answers, seen.question_count, seen.shape, cpu_bf16=seen.cpu_bf16)

    def run(self) -> Answers:
        """Ask until the person is done with the review; return the answers.

        KeyboardInterrupt passes through, with everything answered so far in ``answers``.
        """
        while True:
            if open_questions := self.left():
                self.step(open_questions[0])
                continue
            chosen = self.prompter.review(self.answers, self.profile)
            if chosen in (Move.DONE, Move.RECORD):
                self.record = chosen == Move.RECORD
                return self.answers
            if chosen == Move.SAVE:
                self.prompter.save(self.answers)
            elif chosen == Move.PROBE:
                self._probe()
            elif chosen == Move.MORE:
                self.everything = True
            elif chosen == Move.BACK:
                self.back()
            else:
                self.put(BY_ID[chosen], changing=True)

    def left(self) -> list[Question]:
        """The questions still to ask, as far as is known now: those that can matter and are not settled."""
        known, settled = self.answers.values_known, self._settled()
        return [
            question
            for question in QUESTIONS
            if question.id not in settled and worth_asking(question, known, self.everything)
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

    def put(self, question: Question, changing: bool = False) -> bool:
        """Ask until the answer holds; False when the person goes back instead."""
        while True:
            known = self.answers.get(question.id)
            value = self.prompter.ask(self._asked(question, known, changing))
            if value == Move.BACK:
                return False
            try:
                self._keep(question, value, known)
            except Problem as problem:
                self.prompter.say(f"{problem.message} ({problem.hint})" if problem.hint else problem.message)
                continue
            before, self.ranking = self.ranking, rank(self.profile)
            self.prompter.moved(before, self.ranking, self.answers)
            return True

    def _probe(self) -> None:
        """Let the base model be measured; what that settles counts like any answer, and can be changed."""
        try:
            self.situation = self.measure(self.prompter.probe(self.answers))
        except Problem as problem:
            self.prompter.say(f"{problem.message} ({problem.hint})" if problem.hint else problem.message)
            return
        self.answers = self.situation.answers
        before, self.ranking = self.ranking, rank(self.profile)
        self.prompter.moved(before, self.ranking, self.answers)

    def _asked(self, question: Question, known: Answer | None, changing: bool) -> Asked:
        values, profile, done = self.answers.values_known, self.profile, len(self.trail)
        most = done + max(1, most_left(values, self._settled() - {question.id}, self.everything))
        number = 0 if changing else done + 1
        return Asked(
            question, known, number, most, decides(question, profile), question.closed(values), profile,
            missing(self.answers),
        )  # fmt: skip

    def _keep(self, question: Question, value: Any, known: Answer | None) -> None:
        """Record an answer; a confirmed counted or detected value keeps its source."""
        changed = self.answers.override(question.id, value)
        if known and known.source not in (*PERSON, "default") and changed[question.id].value == known.value:
            return
        if question.id == "model" and (note := check_model(changed["model"].value)):
            self.prompter.note(note)
        if question.id in MEASURED:
            self.situation = self.measure(changed)
            changed = self.situation.answers
        self.answers = changed

    def _settled(self) -> set[str]:
        return {*self.trail, *(key for key in self.answers if self.answers[key].source in PERSON)}
