"""The whole report of a run: verdict, arms, measurements, guards, forecast, and what all of it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag.evaluation.question_words import QuestionWords
from runners.plan.arm_names import arm_name, name_and_precision, split_arm
from runners.report.graded import GradedAnswers
from runners.report.records import (
    NOT_JUDGED,
    ArmReport,
    Estimate,
    IncompleteArm,
    PairReport,
    TrainingRows,
    Verdict,
)

QUESTION_WORDS = "questions.words"
"""The kind of event that says how near the test questions are to the words of the documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweringConditions:
    """Under which conditions an arm's answers were timed."""

    at_once: int | None = None
    """Requests under way at a time to a server; None for a model in this process."""
    busy: float | None = None
    """Share of the processor time that other processes took meanwhile; None on a GPU and for a server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """Measured over predicted, for the chosen arm; None where the two cannot be compared."""

    time: float | None
    memory: float | None
    not_compared: str = ""
    """Why they are about other work; "" where they are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """Seconds of one step, estimated before any correction and measured."""

    predicted: float
    measured: float
    kind: str
    arm: str
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the run took."""

    seconds: Mapping[str, float]
    """By step."""
    training: Mapping[str, tuple[Mapping[str, Any], ...] | None]
    """Results of each training, one for each seed, as the step recorded them."""
    busy: Mapping[str, float]
    """Steps during which other processes took much of the processor, with the share that they took."""
    answering: Mapping[str, AnsweringConditions]
    memory_gib: float | None
    """Of training the chosen arm; the next is the estimate of exactly that."""
    memory_expected_gib: float | None
    process_gib: float | None
    """The peak of everything."""
    held_gib: float | None
    """What was allocated before training began."""
    hours: float | None
    ratios: Ratios
    steps: tuple[StepReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """The checks beside a verdict, as their steps recorded them; None where nothing was measured."""

    leakage: Mapping[str, Any]
    forgetting: Mapping[str, Any] | None
    refusal_drift: tuple[Mapping[str, Any], ...] | None
    staleness: Mapping[str, Any] | None
    refusal: Mapping[str, Any] | None
    """The refusal threshold with its curve; None for a run without an index."""
    training_rows: tuple[TrainingRows, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DevBudget:
    """What one arm was given on dev questions to choose its prompt, what it tried and what it took."""

    arm: str
    allowed: int
    """The most answers on dev questions."""
    used: int | None
    """How many were generated."""
    tried: tuple[Mapping[str, Any], ...]
    """``prompt``, ``questions`` and ``score`` of each."""
    untried: tuple[str, ...]
    """Those beyond the budget."""
    chosen: str | None
    """None for an arm that had no prompt to choose."""
    lead: Mapping[str, Any] | None
    """Of the best other prompt over the default on fresh questions, as trial/prompts.json has it; None without one."""
    how: str

    @property
    def lead_text(self) -> str:
        """The lead as shown in a table."""
        lead = self.lead
        if not lead:
            return NOT_JUDGED
        return f"{lead['difference']:+.2f} on {lead['questions']}, {lead['differing']} differ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The share of right answers of an arm, expected or measured, with an interval."""

    likely: float
    low: float
    high: float
    because: str = ""
    """What an expected share rests on."""
    inside: bool | None = None
    """Whether the measured share is in the interval of an expected one; None where none was measured."""
    n: int | None = None
    """The number of questions of a measured share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastArm:
    """The forecast of an arm with its measurements."""

    arm: str
    probability: float | None
    """Of the advice, for the advised arm; up to 0.2.0 of coming out best, for every arm; else None."""
    rank: int | None
    """In the order of the advice; None for arms that it does not weigh."""
    right: Share | None
    minutes: float | None
    measured_rank: int
    measured_right: Share | None
    score: Estimate
    measured_minutes: float | None
    fit: float | None = None
    """In the ranking of the advice, 0 to 1; None for an arm without one, and up to 0.2.0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialForecast:
    """What was forecast before the trial beside what was measured."""

    probability: float
    """Of the advice."""
    outcome: str
    best: str
    """The arm with the best mean; the next is the probability that it was forecast with, if any."""
    best_probability: float | None
    pairs_in_order: int
    pairs: int
    """Pairs of arms of which one was forecast and one measured to be better."""
    minutes: float | None
    measured_minutes: float
    corrected: str | None
    not_compared: str
    """Why minutes and scores are of other work; "" where they are not."""
    arms: tuple[ForecastArm, ...]
    ties: int = 0
    """Pairs beside these that were forecast alike, or whose scores are equal in two decimals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeQuestions:
    """How many test questions, dev questions and training rows were made from the documents; None where not recorded."""

    test: int
    test_of: int
    dev: int | None
    dev_of: int | None
    rows: int | None
    rows_of: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FullRun:
    """What a quick run left out: the command of the full run and its minutes; None where they are not known."""

    quick: bool
    command: str | None
    minutes: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallVolume:
    """Calls a month, and where that number is from: yours, for low volume, assumed."""

    calls: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentReport:
    """How much of the teacher an arm reaches."""

    arm: str
    ratio: Estimate | None
    """Its right answers by the teacher's, on the same questions; None where the teacher has none."""
    rows: int
    """Rows by the teacher among those that its weights were trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherReport:
    """The teacher of a plan beside the arms that may learn from its replies."""

    model: str
    """Its name, with the host of an endpoint."""
    arm: str
    """Its arm with most right answers, with which the others are compared."""
    arms: tuple[str, ...]
    """All of its arms that were judged."""
    reference: bool
    """Whether its arms are measured for reference only."""
    license: str | None
    """Whether its licence allows training on its answers, as was answered; None where no row of it was trained on."""
    students: tuple[StudentReport, ...]
    """The arm to use, then the tuned arms."""
    line: str
    """How much of it the first of these reaches and at which price, in one sentence."""
    text: str
    """The same of all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAsked:
    """What was to be decided, and who answered the questionnaire."""

    goal: str
    """The sentence in which a person named the task; "" without one."""
    answers: Mapping[str, int]
    """Answers by their source."""
    prompt: bool
    """Whether there are instructions, so that the arm prompting answers as today."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataUsed:
    """Digests of plan, split, model, index input and data files, and the seeds; None for what is unknown."""

    plan: str
    split: str | None
    base: str | None
    model: str
    quantization: str | None = None
    backend: tuple[str, ...] = ()
    index_input: str | None
    seed: int
    training_seeds: tuple[int, ...]
    longest_answer_tokens: int
    how_asked: tuple[str, ...] = ()
    reasoning: tuple[str, ...] = ()
    held_to_a_form: tuple[str, ...] = ()
    files: Mapping[str, Mapping[str, str]]
    """``name`` and ``sha256`` of each file that the run read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialReport:
    """The report of a run: report.json as a record."""

    name: str
    verdict: Verdict
    warnings: tuple[str, ...]
    arms: tuple[ArmReport, ...]
    """The best by the combined score first."""
    paired: tuple[PairReport, ...]
    cost_order: tuple[str, ...]
    """The arms from cheapest to most expensive to keep up."""
    weights: Mapping[str, float]
    weight_reasons: Mapping[str, str]
    training_reasons: Mapping[str, Mapping[str, str]]
    judge: Mapping[str, Any] | None
    """What the model judge preferred, as :func:`runners.judging.pairs.summary` has it."""
    predicted: Mapping[str, Any]
    """The plan's prediction, as ``plan --json`` printed it; {} without one."""
    measured: Measured
    guards: Guards
    dev_budget: tuple[DevBudget, ...]
    full_run: FullRun | None
    """None for a run that was not shortened."""
    max_test: int | None
    without_gold: int = 0
    """Rows that are left out of scores and differences, as nothing says whether an answer to them is right."""
    made_questions: MadeQuestions | None = None
    question_words: QuestionWords | None = None
    """None where too few questions name their answer's place, or they are not English."""
    drift: Mapping[str, Any] | None
    """What was asked against what refusals were fitted on, as :class:`rag.refusal.drift.Drift` has it."""
    retriever: Mapping[str, Any] | None = None
    """What the gate of a tuned retriever decided, as its file has it, with its ``notes``."""
    forecast: TrialForecast | None = None
    """None for a plan without probabilities."""
    curves: tuple[Mapping[str, Any], ...] = ()
    """Learning curves, as their files have them."""
    curve_of_arms: Mapping[str, Any] | None = None
    """The curves of several arms held against each other, as their file has them; None without."""
    failures: tuple[Mapping[str, Any], ...] = ()
    """Why answers are wrong, by arm, as ``why --json`` prints it; () before that was asked."""
    task: TaskAsked
    environment: Mapping[str, Any]
    """The machine and package versions, as the run recorded them, and its date."""
    data: DataUsed
    volume: CallVolume | None = None
    """What the costs of a month are for; None in reports of 0.2.0."""
    teacher: TeacherReport | None = None
    """None for a plan without a teacher, and where none of its arms could be judged."""
    models: Mapping[str, str] | None = None
    """The names of several models that were compared, with ``(nf4)`` of one in 4 bits, by alias; None where there is one."""
    incomplete: tuple[IncompleteArm, ...] = ()
    """Arms that did not answer all questions, which are not among ``arms``."""
    graded: GradedAnswers | None = None
    """People's labels of the answers, and a judge's grades with them; None where there are neither."""

    @property
    def graded_note(self) -> str:
        """A sentence on the comparisons of the plan's choice for which its judge does not count yet; "" without one."""
        return self.graded.note(self.verdict.recommended) if self.graded else ""

    @property
    def candidates(self) -> tuple[ArmReport, ...]:
        """The arms but for those of a teacher that are measured for reference only."""
        reference = self.teacher.arms if self.teacher and self.teacher.reference else ()
        return tuple(arm for arm in self.arms if arm.arm not in reference)

    def own_arm(self, method: str) -> str:
        """Return the arm of a method with the plan's own model, which the advice is about; of one model the method."""
        asked = name_and_precision(self.data.model, self.data.quantization)
        own = next((alias for alias, name in (self.models or {}).items() if name == asked), "")
        return method if split_arm(method)[1] or arm_named(self.arms, method) else arm_name(method, own)

    @property
    def retriever_notes(self) -> tuple[str, ...]:
        """What became of a tuned retriever, in sentences."""
        return tuple((self.retriever or {}).get("notes", ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """A finished run's arms on other questions: eval.json as a record."""

    run: str
    name: str
    questions: Mapping[str, Any]
    """The file, and what was counted in it."""
    generation: int
    """Of the index that was searched; 0 without an index."""
    verdict: Verdict | None
    """None where the recommended arm was not asked."""
    warnings: tuple[str, ...]
    arms: tuple[ArmReport, ...]
    paired: tuple[PairReport, ...]
    weights: Mapping[str, float]
    trial: Mapping[str, float]
    """Each arm's mean combined score in the run's own trial."""
    drift: Mapping[str, Any] | None
    folder: str
    made_questions: MadeQuestions | None = None


ScoredReport = TrialReport | EvaluationReport
"""What has scored arms and their weights."""


def arm_named(arms: Sequence[ArmReport], name: str | None) -> ArmReport | None:
    """Return the arm of this name; None where it was not measured."""
    return next((arm for arm in arms if arm.arm == name), None)


def question_count(arms: Sequence[ArmReport]) -> int:
    """Return how many questions the arms answered, other wordings of one not counted."""
    return max((arm.question_count for arm in arms), default=0)
