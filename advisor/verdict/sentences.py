"""Every sentence on a verdict: its text with the margin and what follows, the plain conclusion, and how strong it is.

:class:`VerdictFacts` has the text: right answers, the margin with its interval, and limits. :class:`Conclusion` has the few
plain sentences on top of every view: which arm to use, what it needs, and what is not settled yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advisor.verdict.arm_choice import ArmToUse
from advisor.verdict.comparison import (
    LEANING_BELOW,
    ArmComparison,
    ArmStanding,
    QuestionsNeeded,
    margin_text,
    mean_combined,
    mean_grade,
)
from advisor.verdict.right_answers import right_answers
from rag.text.words import count_noun
from runners.arms.few_shot import PLAN_INSTRUCTIONS
from runners.plan.arm_names import split_arm
from runners.report.records import AnswerCount, ArmReport, Estimate, Outcome, RightAnswers, Strength, Verdict
from runners.report.trial_report import DevBudget, ScoredReport, TrialReport, arm_named, question_count
from runners.trial.trial import ArmScores

JUDGED = "by the grades of a judge that was calibrated on people's labels of the same answers"
MOST_TIMES = 10
"""Times the questions that were asked beyond which more of them are not asked for: nobody collects 9,000 more."""
NONE_USABLE = "none of these can be used yet"
"""What every view says first where no arm is to be used."""
FOUND_WITH_MORE = (
    "with 30 a lead of 35 points in right answers is clear in 8 of 10 trials, with 120 one of 16"
)
"""What more questions find, of which each is about another document (``python -m benchmarks.simulated_verdicts``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictFacts:
    """Everything that a verdict's text states."""

    outcome: Outcome
    unbeaten: str
    """The cheapest arm within noise of the best."""
    standing: ArmStanding
    arms: Mapping[str, ArmScores]
    rival: ArmComparison | None
    """The comparison that decided, or that is still open; None when only one arm was measured."""
    missing: tuple[str, ...]
    """Arms of the gate that were not measured."""
    needed: QuestionsNeeded | None
    count: int
    model: str
    limits: tuple[str, ...]
    """What the numbers cannot say, a sentence each."""
    use: ArmToUse
    lost: frozenset[str]
    """Arms that were measured and left out, because they were not trained as planned."""
    incomplete: frozenset[str]
    """Arms that did not answer all questions."""
    substitute: str
    """A sentence on the recommended arm, where the plan holds another one to account; else ""."""
    more_labels: int | None
    """About how many more labels decide a rival that is compared by grades; None where no number would, and for others."""
    quick: bool
    """Whether the run was shortened by ``--quick``."""
    prefers_best: bool
    """Whether the best arm is used where a cheaper one is not worse."""

    @property
    def text(self) -> str:
        """The verdict's text: right answers, the margin with its interval, a conclusion, its limits."""
        choice = self.standing.choice
        right = right_answers(self.arms[choice])
        combined = f"{mean_combined(self.arms[choice]):.2f}"
        answers = f"{choice} answers {right.text} right and" if right else choice
        score = f"{answers} scored {combined} on {count_noun(self.count, 'question')} with {self.model}"
        if self.rival is None:
            only = f"Only {choice} was measured: {score}; there was no other arm to compare it with."
            return " ".join((only, *self.limits))
        other = self.rival.pair.b
        theirs = right_answers(self.arms[other])
        if self.rival.pair.labels is not None:
            grades = [grade.difference for name in (choice, other) if (grade := mean_grade(self.arms[name]))]
            score = (
                f"{choice} has a mean grade of {grades[0]:.2f} with {self.model}, {other} of {grades[1]:.2f}"
            )
        elif right and theirs:
            score = (
                f"{choice} answers {right.text} right with {self.model}, {other} {_beside(theirs, right)}; "
                f"combined score {combined}"
            )
        return " ".join((f"{score}, {margin_text(self.rival)}.", self._conclusion(other), *self.limits))

    def _conclusion(self, other: str) -> str:
        """Return what follows for the recommendation."""
        choice = self.standing.choice
        if self.substitute:
            beats = "clearly" if self.standing.gate_met else "not clearly"
            gate = f"{choice} is {beats} better than the arms it must beat; " if self.standing.gate else ""
            return f"{self.substitute} Of the arms measured: {gate}{self._use_clause}."
        if self.outcome is Outcome.CONFIRMED:
            holds = "The recommendation is confirmed"
            if other not in self.standing.beaten:
                holds += f": {other} costs more and is not clearly better"
            return f"{holds}."
        if self.outcome is Outcome.OVERTURNED:
            return f"The trial speaks against the recommendation: {self._overturned(other)}."
        return f"Not decided: {self._undecided(other)}{self._more_questions}"

    def _overturned(self, other: str) -> str:
        """Return what to use instead of an overturned recommendation."""
        use, clause = self.use.arm, self._use_clause
        if self.standing.better:
            within_noise = use == self.unbeaten and use != other and not self.prefers_best
            return clause + ", the cheapest arm that is not clearly worse than the best" * within_noise
        if self.rival and self.rival.by:
            return (
                f"{self.standing.choice} had to be more than {self.rival.by:g} better than {other}; {clause}"
            )
        return f"{clause}, no worse and cheaper" if use == other else clause

    @property
    def _use_clause(self) -> str:
        """Which arm to use, and why not the one that scored best; or that none can be used."""
        if self.use.arm is None:
            return NONE_USABLE if self.use.unusable else f"{NONE_USABLE}: {self.use.reason}"
        best = max(self.arms, key=lambda name: mean_combined(self.arms[name]))
        why = self.use.excluded.get(best)
        return f"use {self.use.arm}" + (f" ({best} {why})" if why and best not in self.lost else "")

    def _undecided(self, other: str) -> str:
        """Return what keeps the verdict open."""
        choice = self.standing.choice
        if self.standing.gate_met and self.unbeaten == choice and self.use.arm != choice and not self.missing:
            why = self.use.excluded.get(choice)
            instead = f"use {self.use.arm}" if self.use.arm else NONE_USABLE
            return (
                f"{choice} is clearly better than the arms it must beat, but "
                f"{f'it {why}' if why else self.use.reason}; {instead}."
            )
        until = f"stay with {choice}" if self.use.arm == choice else self._use_clause
        if self.missing:
            *most, last = self.missing
            were = "were" if most else "was"
            compared = "compared" if self.lost.intersection(self.missing) else "measured"
            if self.incomplete.issuperset(self.missing):
                compared = "finished"
            names = f"{', '.join(most)}{' and ' if most else ''}{last}"
            return f"{names}, which {choice} must beat, {were} not {compared}; until then {until}."
        by = self.rival.by if self.rival else 0.0
        better = f"more than {by:g} better" if by else "better"
        if self.rival and (self.rival.pair.low > by or self.rival.pair.high < by):
            other += f" (p {self.rival.pair.p_holm:.2f}, corrected for the number of arms)"
        return f"{choice} is not clearly {better} than {other}; until then {until}."

    @property
    def _more_questions(self) -> str:
        """What would decide: the full run after a quick one, else how many more questions."""
        if self.quick:
            return " This was a quick run; the full one is the next step."
        if self.more_labels and self.use.arm is not None:
            labels = f"About {count_noun(self.more_labels, 'more label')}"
            return f" {labels} would decide it 8 times in 10, if the difference is as large as seen."
        if self.needed is None or self.use.arm is None:
            return ""
        questions, of = self.needed.questions, self.needed.documents
        documents = f", from about {rounded_up(of)} more documents," if of else ""
        more = f"About {rounded_up(questions)} more question{'s' * (questions != 1)}{documents}"
        return f" {more} would decide it 8 times in 10, if the difference is as large as seen."


def rounded_up(count: int) -> str:
    """Return a count rounded up to two significant digits from a hundred on: 1,041 as 1,100."""
    step = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // step) * step:,}"


def duration_text(seconds: float) -> str:
    """Return a duration in words: 5 seconds, 17 minutes, 1.5 hours."""
    if seconds < 90:
        return count_noun(max(1, round(seconds)), "second")
    if seconds < 5400:
        return count_noun(round(seconds / 60), "minute")
    return f"{seconds / 3600:.1f} hours"


def own_prompt(dev_budget: Sequence[DevBudget], in_use: bool, arm: str = "prompting") -> str:
    """Return what the arm that answers as today is called beside the arm to use.

    Its instructions may have been worded anew on dev questions; then the words say so.

    Args:
        dev_budget: of a report.
        in_use: whether the plan holds instructions.
        arm: the name of that arm.
    """
    wording = next((row.chosen for row in dev_budget if row.arm == arm), None)
    if wording in (None, PLAN_INSTRUCTIONS):
        return "your prompt today" if in_use else "the model alone"
    return f"your prompt with its {wording}" if in_use else f"the model with its {wording}"


def _beside(right: AnswerCount, first: AnswerCount) -> str:
    """Return a count, with its number of questions where that is another one than in the count before."""
    return str(right.n) if right.of == first.of else right.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """The plain conclusion of a report; it says nothing that was not measured or stated in the run."""

    report: ScoredReport
    verdict: Verdict
    prompt_in_use: bool
    """Whether the plan holds instructions, so that the arm prompting answers as today."""
    today: str = "prompting"
    """The arm that answers as today."""

    @property
    def _trial(self) -> TrialReport | None:
        """The report, where it is not an evaluation on other questions: only a trial says what the run took."""
        return self.report if isinstance(self.report, TrialReport) else None

    @property
    def sentences(self) -> tuple[str, ...]:
        """One to seven entries of one or two sentences each; the first names the right answers where there are any."""
        if arm := arm_named(self.report.arms, self.verdict.use):
            lines = [
                self._use(arm),
                self._graded,
                self._cheaper,
                _weak(arm, self._grade(arm.arm)),
                self._standing(arm.arm),
                _refusals(arm),
            ]
            lines += [self._needs(arm), self._change(arm)]
        else:
            lines = [self._nothing_to_use, self._what_to_do]
        return tuple(filter(None, (*lines, self._limits)))

    @property
    def _first(self) -> str:
        """The arm to use."""
        verdict, use = self.verdict, self.verdict.use
        stay = "Stay with your prompt" if self.prompt_in_use else "A prompt is enough"
        stay += f", {use}" if split_arm(use or "")[1] else ""
        decided = verdict.outcome in (Outcome.CONFIRMED, Outcome.OVERTURNED)
        firm = decided and verdict.strength is Strength.MEASURED and not verdict.tendency
        return (stay if use == self.today else f"Use {use}") + ("." if firm else " for now.")

    def _use(self, arm: ArmReport) -> str:
        """Return which arm to use and how many answers are right, beside today's prompt and the best alternative."""
        right = arm.right
        if grade := self._grade(arm.arm):
            return self._by_grade(arm, grade)
        if not right:
            uncounted = "which answers are right was not counted, so whether enough are is not known"
            return f"{self._first} It scored {arm.score.mean:.2f}; {uncounted}."
        today, other = self.verdict.compared.today, self.verdict.compared.alternative
        beside = []
        if today and today.right:
            mine = own_prompt(self._trial.dev_budget if self._trial else (), self.prompt_in_use, today.arm)
            mine += f" ({today.arm})" if split_arm(today.arm)[1] else ""
            beside.append(f"{mine} answers {_beside(today.right, right)}")
        if other and other.right:
            verb = "" if beside else " answers"
            beside.append(f"{other.arm}{verb} {_beside(other.right, right)}")
        text = f"It answers {right.n} of {right.of} questions right{_as_asked(right)}{_in_both_wordings(arm)}"
        few = " These are too few questions to say whether any can be used." if self.verdict.tendency else ""
        return f"{self._first} {text}" + (f"; {', '.join(beside)}." if beside else ".") + few

    @property
    def _graded(self) -> str:
        """What decides where that is the grades of a judge, and not the counted answers."""
        margin, labels = self.verdict.margin, self.verdict.judged_labels
        if not margin or not labels:
            return ""
        if margin.labels is None:
            return f"Some arms are compared {JUDGED} ({count_noun(labels, 'label')})."
        better, sign = ("better", 1) if margin.difference >= 0 else ("worse", -1)
        low, high = sorted((sign * margin.low, sign * margin.high))
        away = f"{abs(margin.difference):.2f} [{low:.2f}, {high:.2f}] {better} than {margin.against}"
        return f"In mean grade {self.verdict.recommended} is {away}: that decides, and not the count of right answers."

    def _grade(self, name: str) -> Estimate | None:
        """Return the mean grade of an arm where the grades of a judge decide."""
        graded = self._trial.graded if self._trial and self.verdict.judged_labels else None
        return graded.arms.get(name) if graded else None

    def _by_grade(self, arm: ArmReport, grade: Estimate) -> str:
        """Return which arm to use by its mean grade, beside the counts by rule."""
        compared = self.verdict.compared
        others = dict.fromkeys(one.arm for one in (compared.today, compared.alternative) if one)
        beside = "".join(f", {name}'s {other.mean:.2f}" for name in others if (other := self._grade(name)))
        rule = f"; by rule {arm.right.text} are right" if arm.right else ""
        labels = count_noun(self.verdict.judged_labels or 0, "label")
        return (
            f"{self._first} The mean grade of its answers, from 0, wrong, to 1, right, is {grade.mean:.2f} "
            f"[{grade.low:.2f}, {grade.high:.2f}]{beside} (a judge calibrated on {labels}){rule}."
        )

    def _standing(self, use: str) -> str:
        """Return what the trial says of the recommendation."""
        verdict = self.verdict
        recommended, excluded, margin = verdict.recommended, verdict.excluded, verdict.margin
        if (advised := verdict.advised) != recommended:
            return f"{advised} was recommended but could not be measured, so whether it would do better is not known."
        if verdict.outcome is Outcome.CONFIRMED:
            if use == recommended:
                return f"{use} was recommended, and the trial confirms it."
            return f"{recommended} was recommended, but {self._why_not}."
        if use != recommended and recommended in excluded:
            return f"{recommended} was recommended, but it {excluded[recommended]}."
        best = self._best.arm
        beside = f" {best} scored best, but it {excluded[best]}." if best != use and best in excluded else ""
        if verdict.outcome is Outcome.OVERTURNED:
            return f"{recommended} was recommended, but the trial speaks against it: {self._why_not}.{beside}"
        if not margin:
            return ""
        arm = arm_named(self.report.arms, recommended)
        count = (arm.right.of if arm.right else arm.n) if arm else 0
        questions = f" with {count_noun(count, 'question')}" if count else ""
        pair = f"{recommended} and {margin.against}"
        return f"The result is too close to call{questions}: {pair} could be equally good.{beside}"

    @property
    def _best(self) -> ArmReport:
        """The arm with the highest combined score, whatever was said."""
        return max(self.report.arms, key=lambda arm: arm.score.mean)

    def _right(self, name: str) -> RightAnswers | None:
        arm = arm_named(self.report.arms, name)
        return arm.right if arm else None

    @property
    def _why_not(self) -> str:
        """Why the recommended arm is not the one to use, as a clause."""
        verdict = self.verdict
        if reason := verdict.excluded.get(verdict.recommended):
            return f"it {reason}"
        if margin := verdict.margin:
            mine, theirs = self._right(verdict.recommended), self._right(margin.against)
            if margin.labels is not None:
                return f"{margin.against} is {-margin.difference:.2f} better in mean grade"
            if mine and theirs:
                return f"it answers {mine.n} right, {margin.against} {_beside(theirs, mine)}"
        return verdict.use_reason or "another arm did better"

    def _trainings(self, arm: ArmReport) -> Sequence[Mapping[str, Any]]:
        """Return the results of the training whose weights an arm answers with; () for an untuned one."""
        return (self._trial.measured.training.get(arm.weights or arm.arm) if self._trial else None) or ()

    def _needs(self, arm: ArmReport) -> str:
        """Return what it takes: training, memory, and the seconds of an answer, alone and in a batch."""
        parts, runs = [], self._trainings(arm)
        gib = max((run.get("peak_gib") or 0.0 for run in runs), default=0.0)
        if seconds := sum(run.get("seconds") or 0.0 for run in runs):
            memory = f" and {gib:.2g} GiB of memory" if gib else ""
            parts.append(f"Training {arm.arm} took {duration_text(seconds)}{memory} on this machine.")
        each, batch = arm.seconds_per_answer, arm.batch
        in_batch = f"{each:.2g} s in a batch of {batch}" if each and batch and batch > 1 else ""
        if arm.alone:
            beside = f" ({in_batch})" if in_batch else ""
            parts.append(
                f"An answer takes {arm.alone.seconds:.2g} s when asked alone on this machine{beside}."
            )
        elif in_batch:
            parts.append(f"An answer takes {in_batch}; alone it takes longer, which was not measured.")
        elif each:
            parts.append(f"An answer took {each:.2g} s in the trial.")
        if arm.usd_per_1000:
            parts.append(f"1,000 answers cost {arm.usd_per_1000:.2g} USD.")
        return " ".join(parts)

    def _change(self, arm: ArmReport) -> str:
        """Return what to do when documents change, with what the staleness test measured."""
        trial = self._trial
        seconds = trial.measured.seconds.get("index") if trial else None
        tuned = bool(self._trainings(arm))
        if arm.retrieval:
            built = f": building it again took {duration_text(seconds)} here" if seconds else ""
            stays = "; no new training is needed" if tuned else ""
            line = f"When documents change, update the index{built}{stays}."
        elif tuned:
            line = f"When facts change, {arm.arm} must be trained again."
        else:
            return ""
        stale = trial.guards.staleness["arms"] if trial and trial.guards.staleness else ()
        if row := next((row for row in stale if row["arm"] == arm.arm and row["n"]), None):
            line += (
                f" After a test update it gave the new fact on {row['new_after']} of {row['n']} questions, "
                f"the old one on {row['old_after']}."
            )
        return line

    @property
    def _cheaper(self) -> str:
        """Why a cheaper arm than the best is used, or which cheaper one may be as good, and what would show it."""
        verdict = self.verdict
        if verdict.in_place_of:
            return f"{verdict.use_reason}."
        if verdict.not_worse:
            return f"{_sentence(verdict.use_reason)} To use the cheaper one, set prefer: cheapest in the plan's gate."
        if not (other := verdict.cheaper):
            return ""
        text = f"{other.arm} costs less, and may be no worse by {other.by:g} or more"
        needed = other.more_questions_needed
        if needed and needed <= MOST_TIMES * question_count(self.report.arms):
            return f"{text}: about {rounded_up(needed)} more question{'s' * (needed != 1)} would show that."
        return f"{text}; that was not shown."

    @property
    def _nothing_to_use(self) -> str:
        """The first line where no arm can be used: what the best one answers, and why it cannot be taken."""
        if self.verdict.unusable:
            return _sentence(NONE_USABLE)
        best = self._best
        if not best.right:
            return _sentence(NONE_USABLE)
        reason = self.verdict.excluded.get(best.arm)
        count = f"{best.arm}, the best by its score, answers {best.right.text} right"
        return _sentence(f"{NONE_USABLE}: {count}" + (f", but it {reason}" if reason else ""))

    @property
    def _what_to_do(self) -> str:
        """Why no arm can be used, and what to do."""
        if why := self.verdict.unusable:
            return f"{_sentence(why.why)} {_sentence(why.next)}"
        reason = self.verdict.use_reason
        return _sentence(reason) if reason else ""

    @property
    def _limits(self) -> str:
        """How far the numbers can be trusted: a quick run, another model, few questions."""
        if self._trial and (full := self._trial.full_run):
            about = f" (about {duration_text(60 * full.minutes)})" if full.minutes else ""
            return f"This was a quick run, for a first impression: run it in full before you decide{about}."
        count, strength = question_count(self.report.arms), self.verdict.strength
        if strength is Strength.PROXY:
            return f"Measured with {self.verdict.model} in place of the planned model: take the result as a hint."
        if strength is Strength.MADE:
            return (
                f"All {count_noun(count, 'test question')} were generated from the documents: take the result as a hint, "
                "and test with questions that people asked before you decide."
            )
        if strength is Strength.LEANING:
            if count >= LEANING_BELOW:
                return "The questions are about too few documents to say more than a tendency: ask about ten or more."
            return f"{count_noun(count, 'question')} show a tendency only; {FOUND_WITH_MORE}."
        return ""


def _sentence(clause: str) -> str:
    return f"{clause[:1].upper()}{clause[1:]}."


def _in_both_wordings(arm: ArmReport) -> str:
    """Return right answers in the questions' own words and in others, in brackets; "" without other wordings."""
    own, other = (
        (arm.by_wording.question.right, arm.by_wording.wordings.right) if arm.by_wording else (None,) * 2
    )
    return f" ({own.text} as the file words them, {other.text} in other words)" if own and other else ""


def _as_asked(right: RightAnswers) -> str:
    """Return the share of what is asked, in brackets; "" where questions have no weights."""
    return "" if right.asked_share is None else f" ({right.asked_share:.0%} of what is asked)"


def _weak(arm: ArmReport, grade: Estimate | None) -> str:
    """Return a warning where the arm to use answers fewer than half of the questions right."""
    if not arm.right or (grade.mean if grade else arm.right.share) >= 0.5:
        return ""
    return "That is fewer than half: have a person check its answers, or try a larger model first."


def _refusals(arm: ArmReport) -> str:
    """Return how it treats questions without an answer, and whether it refuses others wrongly."""
    if not arm.right or not arm.right.refused.of:
        return ""
    refused, answered = arm.right.refused, arm.right.answered
    line = f"Of {count_noun(refused.of, 'question')} without an answer in the documents {arm.arm} refuses {refused.n}"
    if (wrongly := arm.scores.get("false_refusal")) and answered.of:
        count = str(round(wrongly.mean * wrongly.n) or "none")
        if arm.right.asked_share is not None:
            count = f"{wrongly.mean:.0%}, by how often they are asked"
        line += f"; of the {answered.of} with an answer it wrongly refuses {count}"
    return f"{line}."
