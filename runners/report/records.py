"""The report of a run as records, from the judgement to every view: terminal, HTML, Markdown, JSON, MCP, history.

The fields of a record are the keys of report.json, which :mod:`runners.report.report_file` writes and reads. What a step
recorded for itself (the plan's prediction, the result of a training, a refusal threshold) stays the object that it wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from rag.text.words import count_noun
from runners.report.checks import AnswerChecks, RiskPoint
from runners.report.lookups import LookupSummary

NOT_JUDGED = "–"
"""Shown where answers cannot be judged right or wrong, or something was not measured."""


class Outcome(StrEnum):
    """What a trial says about the recommendation."""

    CONFIRMED = "confirmed"
    OVERTURNED = "overturned"
    UNDECIDED = "undecided"


class Strength(StrEnum):
    """How much a verdict's numbers can carry."""

    MEASURED = "measured"
    LEANING = "leaning"
    """Fewer than 30 test questions, or one or two documents that they come from."""
    PROXY = "proxy"
    """Another model than the plan's."""
    MADE = "made"
    """Questions that were made from the documents alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def interval(self) -> str:
        """The ends of the interval: 0.61–0.72."""
        return f"{self.low:.2f}–{self.high:.2f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreEstimate(Estimate):
    """The mean of one score over the ``n`` answers that have it."""

    n: int

    @property
    def as_count(self) -> str:
        """A mean of zeros and ones as a count: 11 of 12."""
        return f"{round(self.mean * self.n, 1):g} of {self.n}" if self.n else NOT_JUDGED


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCount:
    """How many of some questions were answered rightly."""

    n: int
    of: int
    asked_share: float | None = None
    """Share of all that was asked, where rows of questions have weights."""

    @property
    def text(self) -> str:
        """The count in words: 48 of 65; "–" of no questions. With weights: 48 of 65 (71 % of what is asked)."""
        count = f"{self.n:g} of {self.of}" if self.of else NOT_JUDGED
        return (
            count
            if self.asked_share is None
            else f"{count} ({100 * self.asked_share:.0f}\u00a0% of what is asked)"
        )

    @property
    def share(self) -> float:
        """The share of them, by how often each is asked; of no questions there is none."""
        return self.n / self.of if self.asked_share is None else self.asked_share


@dataclass(frozen=True, slots=True, kw_only=True)
class RightAnswers(AnswerCount):
    """The right answers of one arm."""

    low: float
    """Lower end of the 95 % interval of the share, clustered by document and by question."""
    high: float
    answered: AnswerCount
    """Right answers to the questions that have an answer."""
    refused: AnswerCount
    """Right refusals of the questions without an answer."""

    @property
    def interval(self) -> str:
        """The 95 % interval of the share as "62–83 %", without a break."""
        return f"{100 * self.low:.0f}–{100 * self.high:.0f}\u00a0%"


@dataclass(frozen=True, slots=True, kw_only=True)
class WordingCounts:
    """What became of the questions as their rows have them, or of their other wordings."""

    right: RightAnswers | None
    """None where no answer could be judged."""
    refused_wrongly: AnswerCount
    """Of the questions that have an answer."""
    refused_rightly: AnswerCount
    """Of those without."""
    hit: AnswerCount | None = None
    """Questions whose gold document is among the passages shown; None where nothing was looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByWording:
    """An arm's counts of the questions as their rows have them, and of their other wordings."""

    question: WordingCounts
    wordings: WordingCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeColumn:
    """What an arm scored on made questions, beside the real ones that are judged."""

    n: int
    score: Estimate | None
    right: RightAnswers | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRows:
    """The rows that an arm was trained on."""

    arm: str
    rows: int
    of: int
    """Examples that the plan gives it."""
    with_passage: int | None
    """Of a hybrid: examples with a gold passage, and refusals, which need none."""
    by_document: int
    """Of those, examples whose passage is only known by the document that the row names."""
    unknown_documents: tuple[str, ...]
    """Some ids of rows that the documents do not have."""
    planned: bool
    """False where so many rows are lost that the verdict does not count the arm."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondsAlone:
    """Seconds of the ``n`` answers of an arm that were asked one at a time: median and 95th percentile."""

    seconds: float
    p95: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedScore:
    """The mean combined score of one training seed."""

    seed: int
    mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedAnswers:
    """Of a router: how many of ``n`` answers its first arm gave, with the 95 % interval of that share, and at what price."""

    first: str
    otherwise: str
    hits: int
    n: int
    low: float
    high: float
    cut: float | None
    """How sure the first arm must be; None where it is never sure enough."""
    usd_low: float | None
    """95 % interval of the price of 1,000 answers over the questions; None where no price is known."""
    usd_high: float | None
    usd_otherwise: float | None
    """Price of 1,000 answers of the other arm alone."""

    @property
    def share_text(self) -> str:
        """The share with its interval."""
        return f"{self.hits} of {self.n} ({self.low:.0%} to {self.high:.0%})"


@dataclass(frozen=True, slots=True, kw_only=True)
class CostPerRight:
    """What the answers of an arm that could be judged cost for each right one, all in USD or all in seconds."""

    in_usd: bool
    """Whether a price is known; else the seconds that answering took stand for the cost."""
    usd: float | None = None
    """None where no answer was right, or no price is known."""
    seconds: float | None = None
    """None where no answer was right, or a price is known."""
    low: float
    """Lower end of the 95 % interval; where no answer was right, what a right one costs at least."""
    high: float | None
    """None where no answer was right."""
    per_1000: Estimate
    """Of 1,000 calls."""
    month: float
    """Of the calls of a month (``volume`` of the report)."""

    @property
    def each(self) -> float | None:
        """The cost of a right answer in its unit; None where none was right."""
        return self.usd if self.in_usd else self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class MostRight:
    """The arm that gives most right answers for the money; for the time where no arm has a price."""

    arm: str
    in_usd: bool
    sure: bool
    """Whether a right answer of every other arm that can be used surely costs more."""
    perhaps: tuple[str, ...]
    """Arms of which that is not sure."""
    no_price: tuple[str, ...] = ()
    """Arms that can be used and have no price, where others have one: they are not compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncompleteArm:
    """An arm that did not answer all questions of a trial: it has no scores and is compared with none."""

    arm: str
    reason: str
    answered: int
    questions: int

    @property
    def text(self) -> str:
        """Why, and how many questions it answered."""
        return f"{self.reason} ({self.answered} of {count_noun(self.questions, 'question')} answered)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmReport:
    """One arm: its scores, its right answers, and what an answer takes."""

    arm: str
    retrieval: bool
    weights: str | None
    """The arm whose weights it answers with; None for an untuned one."""
    score: Estimate
    """The combined score."""
    scores: Mapping[str, ScoreEstimate]
    right: RightAnswers | None
    """None where no answer could be judged."""
    beside: AnswerCount | None = None
    """Of the answers given, those that cite something else than was asked; None in reports of 0.2.0."""
    repeats_prompt: AnswerCount | None = None
    """Of the answers that its model gave, those that repeat its instructions or the delimiter of its passages."""
    checks: AnswerChecks | None = None
    """Its answers with unsupported ones marked and refused; None for an arm that cites nothing."""
    risk_coverage: tuple[RiskPoint, ...] = ()
    """Its answers ranked by their support; () for an arm that cites nothing."""
    n: int
    """All that was asked, wordings included."""
    documents: int
    seeds: tuple[SeedScore, ...]
    seconds_per_answer: float
    ms_per_answer: float
    prompt_tokens: float
    completion_tokens: float
    usd_per_1000: float | None
    usd_basis: str
    questions: int | None = None
    """How many questions ``n`` are, where some are other wordings of others."""
    by_wording: ByWording | None = None
    backend: str | None = None
    """The server that generated its answers, where the plan names a backend."""
    alone: SecondsAlone | None
    """None where no question was asked alone, as in an evaluation on other questions."""
    batch: int | None
    """The largest batch; None where it was not recorded."""
    made: MadeColumn | None = None
    training_rows: TrainingRows | None = None
    routed: RoutedAnswers | None = None
    """None for an arm that is no router, and where the routes are not known."""
    cost_per_right: CostPerRight | None = None
    """None where no answer could be judged, and in reports of 0.2.0."""
    requests: SecondsAlone | None = None
    """Seconds of its requests to a server during the trial; None where it asks none, and in reports of 0.2.0."""
    lookups: LookupSummary | None = None
    """What its answers took, where its model looks things up itself; None for another arm."""

    @property
    def question_count(self) -> int:
        """How many questions it answered, other wordings of one not counted."""
        return self.n if self.questions is None else self.questions

    @property
    def planned(self) -> bool:
        """Whether it was trained as planned, or not trained at all; else the verdict does not count it."""
        return self.training_rows is None or self.training_rows.planned

    @property
    def right_text(self) -> str:
        """Right answers as "48 of 65"; "–" where none could be judged."""
        return self.right.text if self.right else NOT_JUDGED

    @property
    def made_cells(self) -> tuple[str, str]:
        """Right answers and combined score on made questions; "–" without them."""
        right, score = (self.made.right, self.made.score) if self.made else (None, None)
        return right.text if right else NOT_JUDGED, f"{score.mean:.2f}" if score else NOT_JUDGED


@dataclass(frozen=True, slots=True, kw_only=True)
class PairReport:
    """The scores of arm ``a`` minus those of ``b`` on the same ``n`` questions, with the 95 % interval."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    """Corrected for the number of arms."""
    units: int
    """Documents, of which questions are not independent."""
    n: int
    labels: int | None = None
    """Where the pair is compared by the grades of a calibrated judge: the labels of people behind it."""

    @property
    def compared_with(self) -> str:
        """The other arm, and by what the two are compared where that is not the combined score."""
        return self.b if self.labels is None else f"{self.b} (by grade)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """The comparison that a verdict's text names."""

    against: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    labels: int | None = None
    """As of :class:`PairReport`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedArm:
    """By how much the arm to use is above another one, with that one's right answers."""

    arm: str
    difference: float
    low: float
    high: float
    right: RightAnswers | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The arm to use against ``today``'s prompt and the cheapest useful ``alternative``; None where there is none."""

    today: ComparedArm | None
    alternative: ComparedArm | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """Why no arm is above that share, split by what was measured; counted are the questions that have an answer."""

    arm: str
    """The one with the largest share of right answers."""
    right: AnswerCount
    usable_from: float
    """The share of right answers from which an arm is usable."""
    split: str
    """The arm that the next three are about: the best that searches, else the best."""
    retrieved: AnswerCount | None
    """Questions whose document the search found; None where nothing was looked up, or it was not recorded."""
    read: AnswerCount | None
    """Right answers of the model where it was shown a passage of that document."""
    refused_wrongly: AnswerCount | None
    cause: str
    """few: it may be above that share; search, refusals or model: what alone keeps it below; arms: nothing was looked up."""
    tendency: bool
    """Whether the questions are too few to say whether any arm can be used."""
    more_questions_needed: int | None
    why: str
    """The same in one line."""
    next: str
    """What to do."""
    grade: Estimate | None = None
    """The mean grade of ``arm`` where a judge counts for it, with which that share is compared then."""

    @property
    def shortfall(self) -> str:
        """What is asked for and what the best arm answers, in a clause."""
        least = f"{10 * self.usable_from:g} of 10 questions" if self.usable_from else "at least one question"
        if grade := self.grade:
            best = f"the best, {self.arm}, has a mean grade of {grade.mean:.2f} [{grade.low:.2f}, {grade.high:.2f}]"
            return f"{least} with an answer must be right, and {best}"
        return f"{least} with an answer must be right, and the best, {self.arm}, answers {self.right.text}"

    @property
    def text(self) -> str:
        """Why no arm can be used, and what to do."""
        return f"{self.why}; {self.next}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotWorse:
    """A cheaper arm that may be as good as the one to use, which was not shown."""

    arm: str
    than: str
    by: float
    """The margin: worse by less counts as not worse."""
    more_questions_needed: int | None
    """None where no number would show it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the trial says about the recommendation."""

    outcome: Outcome
    strength: Strength
    recommended: str
    """The arm that the plan holds to account."""
    winner: str | None
    """The same as ``use``; in reports of 0.2.0 the cheapest arm within noise of the best, which no view shows."""
    model: str
    text: str
    more_questions_needed: int | None
    gate_met: bool | None
    """None when the interval still includes both answers."""
    more_documents_needed: int | None
    """The number of documents those questions come from, where questions share documents."""
    margin: Margin | None
    """None where the recommended arm was compared with no other."""
    taught: str
    """Which scores tuning surely raised and which stayed low; "" without tuning, or when all of them rose."""
    advised: str
    """The arm that was recommended: another than ``recommended`` where it could not be measured."""
    use: str | None
    """The arm that ask, chat, serve and export take; None where none can be used yet."""
    use_reason: str
    excluded: Mapping[str, str]
    """Arms that cannot meet what was said, each with the reason."""
    compared: Compared
    usable_from: float | None = None
    """The share of right answers from which an arm is usable; None without gold, and in reports of 0.2.0."""
    unusable: Unusable | None = None
    """Why no arm is above that share; None where one is."""
    tendency: bool = False
    """Whether the questions are too few to say whether an arm can be used."""
    in_place_of: str | None = None
    """The arm that did best, where the one to use costs less and is not worse; else None."""
    cheaper: NotWorse | None = None
    """The cheapest arm that may be as good as the one to use; None where there is none."""
    not_worse: str | None = None
    """The cheapest arm that is not worse than the one to use, where the plan prefers the best; None where there is none."""
    conclusion: tuple[str, ...] = ()
    """The plain sentences on top of every view; () while the verdict is not part of a report yet."""
    most_right_for_money: MostRight | None = None
    """None where no arm can be used, answers cannot be judged, and in reports of 0.2.0."""
    three_answers: tuple[str, ...] = ()
    """The best arm, the cheapest that is not worse, the one with most right answers for the money: a sentence each."""
    judged_labels: int | None = None
    """People's labels on which the judge was calibrated by whose grades arms are compared; None where by computed scores."""
    more_labels_needed: int | None = None
    """About how many more labels would decide it; None where no number would, or labels do not decide."""

    @property
    def use_text(self) -> str:
        """Which arm to use, in words."""
        return f"to use: {self.use}" if self.use else "none can be used yet"

    @property
    def none_reason(self) -> str:
        """Why none can be used, in a clause that fits into the line of an error."""
        return self.unusable.shortfall if self.unusable else self.use_reason
