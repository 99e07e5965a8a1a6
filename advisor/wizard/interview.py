"""The interview: which question comes next, going back, and the review at the end.

It knows nothing of terminals: a :class:`Prompter` asks and shows, and :class:`Interview` decides what is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from advisor.probe.offer import PROBED_QUESTIONS, ProbeOffer, offer_probe_of
from advisor.questionnaire.answers import PERSON_SOURCES, Answer, Answers, format_answer
from advisor.questionnaire.data_facts import STATE_FACTS
from advisor.questionnaire.gather import Situation, check_model, for_trial
from advisor.questionnaire.made_rows import making_offer
from advisor.questionnaire.model_questions import LIMITS, MACHINE_KEYS, SEVERAL_KEYS, parse_models
from advisor.questionnaire.profile import Profile
from advisor.questionnaire.question_types import Question
from advisor.questionnaire.questions import QUESTION_BY_ID, QUESTIONS
from advisor.recommendation.questions_left import can_decide, is_worth_asking, max_questions_left
from advisor.recommendation.ranking import Ranking, rank_methods
from advisor.wizard.model_choices import missing_packages
from rag.errors import Problem
from runners.data.examples import ColumnsNeeded
from runners.models.endpoint import is_private
from runners.models.resolve import parse_remote

MEASURED_KEYS = (
    "documents",
    "examples",
    "columns",
    "questions",
    "prompt",
    "models",
    "model",
    "model_params_b",
    "runs_on",
    *MACHINE_KEYS,
)
"""Answers after which files, model and machine are examined again."""

LEFT_OPEN = "it was measured, and this stayed open"
"""Why a probe is not offered again at a question."""


class InterviewMove:
    """What a person may choose instead of an answer."""

    BACK = "« back »"
    DONE = "« done »"
    RECORD = "« done, with a decision record »"
    TUNE = "« done, with a tuned retriever »"
    SAVE = "« save »"
    MORE = "« more »"
    PROBE = "« probe »"
    MEASURE = "« measure »"
    SEVERAL = "« several models »"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedQuestion:
    """One question as it is asked, with what is known about it.

    Attributes:
        question: the question.
        known: the answer so far, which is offered as the default; None if there is none.
        number: number of the question in the conversation, from 1; 0 when an answer is changed at the review.
        most: most questions that the conversation can have; it falls as answers make others unnecessary.
        decides: whether some answer to it alone would change the method that leads now.
        closed: the answers that other answers rule out, with the reason.
        profile: the situation as known so far.
        lacking: the methods for which a package is missing here, with what they need.
        measurement: the offer to measure the answer instead of giving it; None where a probe does not answer it.
    """

    question: Question
    known: Answer | None
    number: int
    most: int
    decides: bool
    closed: Mapping[Any, str]
    profile: Profile
    lacking: Mapping[str, str]
    measurement: ProbeOffer | None = None


class Prompter(Protocol):
    """What asks the questions: a terminal, or in tests a script with answers by question id."""

    def ask(self, asked: AskedQuestion) -> Any:
        """Return an answer (None is unknown), InterviewMove.BACK, or InterviewMove.MEASURE where that is offered.

        The known answer is offered as the default. A mapping is the answer with others that belong to it: the machine with
        the place, prices with the model.
        """

    def review(self, answers: Answers, profile: Profile) -> str:
        """Return the id of an answer to change, or an InterviewMove."""

    def say(self, line: str) -> None:
        """Show a line, such as why an answer was refused."""

    def note(self, line: str) -> None:
        """Show a note about an answer that was accepted."""

    def moved(self, before: Ranking, after: Ranking, answers: Answers) -> None:
        """Show how an answer changed the ranking."""

    def save(self, answers: Answers) -> None:
        """Save the answers as a profile."""

    def columns(self, names: Sequence[str]) -> str | None:
        """Return which of these columns hold prompt and reply (``prompt=a,reply=b``); None where none does."""

    def probe(self, answers: Answers) -> Answers:
        """Return the answers with those that a probe of the base model settled; unchanged if it is declined."""

    def measure(self, answers: Answers) -> Answers:
        """Do the same where the probe was already chosen: asked again only about downloads."""


class Interview:
    """One conversation; ``answers`` always holds what was answered so far."""

    def __init__(self, prompter: Prompter, answers: Answers, measure: Callable[[Answers], Situation]) -> None:
        """Start the conversation.

        Args:
            prompter: asks and shows.
            answers: the answers known before.
            measure: adds what files, model and machine tell; may raise a Problem about an answer.
        """
        self.prompter = prompter
        self.measure = measure
        self.situation = measure(answers)
        self.answers = self.situation.answers
        self.ranking = rank_methods(self.profile)
        self.asked_keys: list[str] = []
        self.ask_everything = False
        self.record = False
        self.tune_retriever = False
        self.probed = False
        """Whether a probe was done: it is not offered again at a question that it left open."""

    @property
    def profile(self) -> Profile:
        """The situation as known so far."""
        measured = self.situation.profile
        profile = Profile.of(
            self.answers, measured.question_count, measured.shape, cpu_bf16=measured.cpu_bf16
        )
        return replace(profile, data=measured.data)

    def run(self) -> Answers:
        """Ask until the person finishes the review; return the answers.

        KeyboardInterrupt is not caught; everything answered so far is then in ``answers``.
        """
        while True:
            if open_questions := self.questions_left():
                self.step(open_questions[0])
                continue
            chosen = self.prompter.review(self.answers, self.profile)
            if chosen in (InterviewMove.DONE, InterviewMove.RECORD, InterviewMove.TUNE):
                self.record = chosen == InterviewMove.RECORD
                self.tune_retriever = chosen == InterviewMove.TUNE
                return self.answers
            if chosen == InterviewMove.SAVE:
                self.prompter.save(self.answers)
            elif chosen == InterviewMove.PROBE:
                self._probe(self.prompter.probe)
            elif chosen == InterviewMove.MORE:
                self.ask_everything = True
            elif chosen == InterviewMove.BACK:
                self.back()
            else:
                self.ask_until_valid(QUESTION_BY_ID[chosen], changing=True)

    def questions_left(self) -> list[Question]:
        """Return the questions still to ask as far as is known now: those that can matter and are not settled."""
        known, settled = self.answers.values_known, self._settled_keys()
        return [
            question
            for question in QUESTIONS
            if question.id not in settled and is_worth_asking(question, known, self.ask_everything)
        ]

    def step(self, question: Question) -> None:
        """Ask one question; going back from it asks the one before again."""
        if self.ask_until_valid(question):
            self.asked_keys.append(question.id)
        else:
            self.back()

    def back(self) -> None:
        """Ask the last answered question again."""
        while self.asked_keys:
            question = QUESTION_BY_ID[self.asked_keys.pop()]
            if self.ask_until_valid(question):
                self.asked_keys.append(question.id)
                return

    def ask_until_valid(self, question: Question, changing: bool = False) -> bool:
        """Ask a question until its answer is valid.

        Args:
            question: the question.
            changing: whether an answer is changed at the review.

        Returns:
            False when the person goes back instead of answering.
        """
        while True:
            known = self.answers.get(question.id)
            value = self.prompter.ask(self._asked(question, known, changing))
            if value == InterviewMove.BACK:
                return False
            if value == InterviewMove.SEVERAL:
                # They are parts of the question about the model, and counted with it.
                if all(self.ask_until_valid(QUESTION_BY_ID[key], changing=True) for key in SEVERAL_KEYS):
                    return True
                continue
            if value == InterviewMove.MEASURE:
                if self._probe(self.prompter.measure) and self.answers.value(question.id) is not None:
                    answer = self.answers[question.id]
                    self.prompter.note(f"{question.text} {format_answer(answer.value)}: {answer.note}")
                    return True
                continue
            if not self._accept(question, value, known):
                continue
            before, self.ranking = self.ranking, rank_methods(self.profile)
            self.prompter.moved(before, self.ranking, self.answers)
            return True

    def _accept(self, question: Question, value: Any, known: Answer | None) -> bool:
        """Record an answer; examples with unusual columns are recorded once it was said what these hold.

        Returns:
            False when the answer is refused; then the reason was shown.
        """
        before = self.answers
        parts = dict(value) if isinstance(value, Mapping) else {}
        value = parts.pop(question.id, None) if parts else value
        if question.id == "runs_on" and (parts or known is None or value != known.value):
            for source in PERSON_SOURCES:
                self.answers = self.answers.drop(source, MACHINE_KEYS)  # they described another place
        for key, part in parts.items():
            self.answers = self.answers.override(key, part)
        if question.id == "examples" and known is not None and value != known.value:
            self.answers = before.drop("asked", ["columns"])  # they were those of the other file
        try:
            try:
                self._record_answer(question, value, known)
            except ColumnsNeeded as problem:
                names = ", ".join(problem.columns)
                self.prompter.say(
                    f"{value}: which column is the prompt, and which the reply? Its columns: {names}"
                )
                columns = self.prompter.columns(problem.columns)
                if columns is None:
                    self.answers = before
                    return False
                self.answers = self.answers.override("columns", columns)
                self._record_answer(question, value, known)
        except Problem as problem:
            self.answers = before
            self.prompter.say(f"{problem.message} ({problem.hint})" if problem.hint else problem.message)
            return False
        return True

    def _probe(self, probe: Callable[[Answers], Answers]) -> bool:
        """Probe the base model; what that settles counts like any answer, and can be changed.

        Returns:
            Whether the probe was done: False when it was declined, stopped or refused.
        """
        try:
            probed = probe(self.answers)
            if probed is self.answers:
                return False
            self.situation = self.measure(probed)
        except Problem as problem:
            self.prompter.say(f"{problem.message} ({problem.hint})" if problem.hint else problem.message)
            return False
        self.answers = self.situation.answers
        self.probed = True
        before, self.ranking = self.ranking, rank_methods(self.profile)
        self.prompter.moved(before, self.ranking, self.answers)
        return True

    def _asked(self, question: Question, known: Answer | None, changing: bool) -> AskedQuestion:
        values, profile, answered = self.answers.values_known, self.profile, len(self.asked_keys)
        most = answered + max(
            1, max_questions_left(values, self._settled_keys() - {question.id}, self.ask_everything)
        )
        number = 0 if changing else answered + 1
        return AskedQuestion(
            question=question,
            known=known,
            number=number,
            most=most,
            decides=can_decide(question, profile),
            closed=question.closed(values),
            profile=profile,
            lacking=missing_packages(self.answers),
            measurement=self._measurement(question),
        )

    def _measurement(self, question: Question) -> ProbeOffer | None:
        """Return the offer to measure the answer of a question; None for a question that a probe does not answer."""
        if question.id not in PROBED_QUESTIONS:
            return None
        offer = offer_probe_of(self.situation.profile)
        is_open = self.probed and self.answers.value(question.id) is None
        return replace(offer, missing=offer.missing or (LEFT_OPEN if is_open else ""))

    def _record_answer(self, question: Question, value: Any, known: Answer | None) -> None:
        """Record an answer; a counted or detected value that was only confirmed keeps its source."""
        if question.id == "model" and known and known.source == "default" and value == known.value:
            # It stays a suggestion, so that the trial here may ask another model in its place.
            self.prompter.note(for_trial(self.profile)[1] or f"{value}: {known.note}")
            return
        changed = self.answers.override(question.id, value)
        if question.id in ("model", "models"):
            changed = _with_one_way(changed, question.id)
        if (
            known
            and known.source not in (*PERSON_SOURCES, "default")
            and changed[question.id].value == known.value
        ):
            if value is None:
                self.prompter.note(f"{format_answer(known.value)} stays: it was {known.source}")
            return
        named = [value] if question.id == "model" else []
        named += parse_models(value or "").values() if question.id == "models" else []
        for note in filter(None, map(check_model, named)):
            self.prompter.note(note)
        if question.id in MEASURED_KEYS:
            before = _said_first(self.profile)
            self.situation = self.measure(changed)
            changed = self.situation.answers
            for text in _said_first(self.situation.profile):
                if text not in before:
                    self.prompter.note(text)
        if question.id == "examples" and self.situation.stats.facts.replies_state_facts:
            changed = self._with_documents_open(changed)
        if question.id in ("examples", "questions") and value is None:
            profile = self.situation.profile
            if offer := making_offer(profile, question.id):
                self.prompter.note(offer)
        if question.id == "model":
            changed = _with_hosted_allowed(changed)
            from advisor.probe.answers_from_probe import answers_of_this_model

            changed, line = answers_of_this_model(changed)
            if line:
                self.prompter.note(line)
        self.answers = changed

    def _with_documents_open(self, answers: Answers) -> Answers:
        """Return the answers without "no documents", so that they are asked for again: the examples state facts."""
        share = self.situation.stats.facts.facts_in_replies
        self.prompter.note(f"{share:.0%} of the replies {STATE_FACTS}: which documents hold these?")
        self.asked_keys = [key for key in self.asked_keys if key != "documents"]
        return answers.drop("asked", ["documents"])

    def _settled_keys(self) -> set[str]:
        return {
            *self.asked_keys,
            *(key for source in PERSON_SOURCES for key in self.answers.layers.get(source, {})),
        }


def _with_one_way(answers: Answers, key: str) -> Answers:
    """Return answers in which a person names one model, or several with their limits, and not both."""
    several = key == "models" and answers.value("models")
    for source in PERSON_SOURCES:
        answers = answers.drop(source, ["model", "model_params_b"] if several else LIMITS)
        if key == "model":
            answers = answers.drop(source, ["models"])
    return answers


def _with_hosted_allowed(answers: Answers) -> Answers:
    """Return answers in which a provider's model may be called, where one was chosen and nothing else is said."""
    remote = parse_remote(str(answers.value("model") or ""))
    answered = any(answers.value(key) is not None for key in ("hosted_api_allowed", "data_must_stay_local"))
    if remote is None or is_private(remote.url) or answered:
        return answers
    return answers.override("hosted_api_allowed", True)


def _said_first(profile: Profile) -> list[str]:
    """Return what the advice says before all reasons, such as that the documents do not hold the answers."""
    return [finding.text for finding in rank_methods(profile).findings if finding.rule.first]
