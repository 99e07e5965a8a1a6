"""The interview: which question comes next, the way back, the review. Knows nothing of terminals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from advisor.questionnaire.answers import PERSON_SOURCES, Answer, Answers
from advisor.questionnaire.gather import Situation, check_model
from advisor.questionnaire.profile import Profile
from advisor.questionnaire.questions import QUESTION_BY_ID, QUESTIONS, Question
from advisor.recommendation.questions_left import can_decide, is_worth_asking, max_questions_left
from advisor.recommendation.ranking import Ranking, rank_methods
from advisor.wizard.model_choices import missing_packages
from rag.errors import Problem

MEASURED_KEYS = (
    "documents",
    "examples",
    "questions",
    "prompt",
    "model",
    "model_params_b",
    "gpu_kind",
    "gpu_count",
    "gpu_memory_gib",
)
"""Answers after which files, model and machine are looked at again."""


class InterviewMove:
    """What a person may choose instead of an answer."""

    BACK = "« back »"
    DONE = "« done »"
    RECORD = "« done, with a decision record »"
    SAVE = "« save »"
    MORE = "« more »"
    PROBE = "« probe »"


@dataclass(frozen=True, slots=True)
class AskedQuestion:
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

    def ask(self, asked: AskedQuestion) -> Any:
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
        self.ranking = rank_methods(self.profile)
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
            if chosen in (InterviewMove.DONE, InterviewMove.RECORD):
                self.record = chosen == InterviewMove.RECORD
                return self.answers
            if chosen == InterviewMove.SAVE:
                self.prompter.save(self.answers)
            elif chosen == InterviewMove.PROBE:
                self._probe()
            elif chosen == InterviewMove.MORE:
                self.everything = True
            elif chosen == InterviewMove.BACK:
                self.back()
            else:
                self.put(QUESTION_BY_ID[chosen], changing=True)

    def left(self) -> list[Question]:
        """The questions still to ask, as far as is known now: those that can matter and are not settled."""
        known, settled = self.answers.values_known, self._settled()
        return [
            question
            for question in QUESTIONS
            if question.id not in settled and is_worth_asking(question, known, self.everything)
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
            question = QUESTION_BY_ID[self.trail.pop()]
            if self.put(question):
                self.trail.append(question.id)
                return

    def put(self, question: Question, changing: bool = False) -> bool:
        """Ask until the answer holds; False when the person goes back instead."""
        while True:
            known = self.answers.get(question.id)
            value = self.prompter.ask(self._asked(question, known, changing))
            if value == InterviewMove.BACK:
                return False
            try:
                self._keep(question, value, known)
            except Problem as problem:
                self.prompter.say(f"{problem.message} ({problem.hint})" if problem.hint else problem.message)
                continue
            before, self.ranking = self.ranking, rank_methods(self.profile)
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
        before, self.ranking = self.ranking, rank_methods(self.profile)
        self.prompter.moved(before, self.ranking, self.answers)

    def _asked(self, question: Question, known: Answer | None, changing: bool) -> AskedQuestion:
        values, profile, done = self.answers.values_known, self.profile, len(self.trail)
        most = done + max(1, max_questions_left(values, self._settled() - {question.id}, self.everything))
        number = 0 if changing else done + 1
        return AskedQuestion(
            question,
            known,
            number,
            most,
            can_decide(question, profile),
            question.closed(values),
            profile,
            missing_packages(self.answers),
        )

    def _keep(self, question: Question, value: Any, known: Answer | None) -> None:
        """Record an answer; a confirmed counted or detected value keeps its source."""
        changed = self.answers.override(question.id, value)
        if (
            known
            and known.source not in (*PERSON_SOURCES, "default")
            and changed[question.id].value == known.value
        ):
            return
        if question.id == "model" and (note := check_model(changed["model"].value)):
            self.prompter.note(note)
        if question.id in MEASURED_KEYS:
            self.situation = self.measure(changed)
            changed = self.situation.answers
        self.answers = changed

    def _settled(self) -> set[str]:
        return {*self.trail, *(key for key in self.answers if self.answers[key].source in PERSON_SOURCES)}
