"""What every view of a report states in words: right answers, the task, the conclusion, the weights, times and costs.

What a run did not record is shown as "–" or not shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from advisor.glossary import Term, terms_in
from advisor.methods.arm_titles import arms_in_words
from advisor.questionnaire.answers import PERSON_SOURCES
from advisor.questionnaire.probe_facts import PROBE_FACTS
from advisor.verdict.predictions import public_model_name
from advisor.verdict.right_costs import cost_text, right_cost_text
from advisor.verdict.sentences import JUDGED, duration_text
from rag.evaluation.statistics import risk_coverage
from rag.text.words import count_noun
from runners.plan.schema import Plan
from runners.report.lookups import LookupSummary, Spread
from runners.report.records import NOT_JUDGED, ArmReport, Strength, Verdict
from runners.report.trial_report import ScoredReport, TaskAsked, TrialReport, question_count
from runners.resources.usage import is_contended

STRENGTHS: Mapping[Strength, tuple[str, str]] = {
    Strength.MEASURED: ("measured", "on the plan's own model, with enough questions"),
    Strength.LEANING: ("a tendency only", "fewer than 30 test questions, or of one or two documents"),
    Strength.PROXY: ("with another model", "not with the plan's own, so a hint only"),
    Strength.MADE: (
        "on generated questions",
        "all test questions come from the documents, so nothing is confirmed",
    ),
}
"""The strength of a verdict as people read it, and its explanation."""
_READ_BY = {
    "answers": "a question is refused where none of the first passages, which are read, seems to answer it",
    "logistic": "a question is refused by signals of the search, most of which count the words that it shares with passages",
    "default": "a question is refused where no passage is near it in meaning, by a fixed limit",
}
"""By what a gate refuses, by ``how`` of its threshold."""


def strength_texts(verdict: Verdict) -> tuple[str, str]:
    """Return the strength of a verdict as people read it, its explanation, and the labels behind a judge that counts."""
    strength, why = STRENGTHS[verdict.strength]
    if not verdict.judged_labels:
        return strength, why
    beside = " with" if verdict.strength is Strength.MEASURED else ", with"
    labels = count_noun(verdict.judged_labels, "label")
    return f"{strength}{beside} a calibrated judge ({labels})", f"{why}; {JUDGED}"


def p_value_note(several_models: object = None) -> str:
    """Return what the p of a comparison is; of several models it is corrected for all pairs of arms."""
    number = "all pairs of arms" if several_models else "the number of arms compared"
    return (
        f"p: the probability of a difference this large if both arms were equally good, corrected for {number} (Holm); a p "
        "of .05 or less counts as a clear difference"
    )


def refusal_gate(refusal: Mapping[str, Any]) -> str:
    """Return which gate refuses before the model is asked, by what, and for which wordings; "" for a run without one."""
    if not refusal:
        return ""
    how, note = str(refusal["how"]), str(refusal.get("note") or "")
    gate = str(refusal["gate"])
    if gate == "off" or how == "off":
        return "Gate: off. No question is refused before the model is asked."
    name = "default" if how == "default" and gate == "fitted" else gate
    noted = f" {note[:1].upper()}{note[1:].rstrip('.')}." if note else ""
    return f"Gate: {name}; {_READ_BY.get(how, how)}.{noted}"


def refusal_line(report: TrialReport) -> str:
    """Return when a run refuses, in one line with what that means on its dev questions; "" for a run without a gate."""
    refusal = report.guards.refusal or {}
    chosen, text = refusal.get("chosen"), refusal_gate(refusal)
    points = risk_coverage(
        [(chosen["right"], chosen["wrong"])] if chosen else [],
        refusal.get("answerable", 0),
        refusal.get("unanswerable", 0),
    )
    for point in points:
        text += (
            f" On its dev questions it answers {point.coverage:.0%}; without an answer in the documents of these: "
            f"{point.risk.text()}."
        )
    return text


CHECK_COLUMNS = ("arm", "check", "wrong of those given, marked", "refused", "right answers lost", "on dev")
"""Titles of the table of :func:`check_rows`, and of its cells."""


def check_rows(arms: Sequence[ArmReport]) -> list[tuple[str, ...]]:
    """Return what the check of support makes of the answers of each arm that cites; [] without one."""
    rows: list[tuple[str, ...]] = []
    for arm in arms:
        if checks := arm.checks:
            mark, refuse = checks.mark, checks.refuse
            rows.append(
                (
                    arm.arm,
                    checks.applied,
                    f"{mark.wrong} of {mark.given}",
                    f"{refuse.wrong} of {refuse.given}",
                    f"{mark.right - refuse.right} of {mark.right}",
                    checks.why or "not asked for",
                )
            )
    return rows


WORDING_TITLE = "In the documents' words and in others"
WORDING_COLUMNS = ("arm", "asked in", "right", "passage found", "refused wrongly", "refused rightly")
"""Titles of the table of :func:`wording_rows`, and of its cells."""


def wording_rows(arms: Sequence[ArmReport]) -> list[tuple[str, ...]]:
    """Return questions as their rows have them beside their other wordings: two rows for each arm, [] without any."""
    return [
        (
            arm.arm,
            title,
            *(
                count.text if count else NOT_JUDGED
                for count in (counts.right, counts.hit, counts.refused_wrongly, counts.refused_rightly)
            ),
        )
        for arm in arms
        if arm.by_wording
        for counts, title in (
            (arm.by_wording.question, "documents' words"),
            (arm.by_wording.wordings, "other words"),
        )
    ]


def right_cost_table(report: TrialReport) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the titles and rows of what a right answer of each arm costs; no rows where that is not known.

    The times are those of questions asked alone, of a server those of the requests of the trial.
    """
    volume = report.volume
    month = f"{volume.calls:,.0f} calls a month" if volume else ""
    columns = ("arm", "right", "a right answer costs (95 %)", "1,000 calls", month, "ms p50", "ms p95")
    rows = []
    for arm in report.arms:
        if cost := arm.cost_per_right:
            amounts = (cost_text(amount, cost.in_usd) for amount in (cost.per_1000.mean, cost.month))
            timed = arm.requests or arm.alone
            times = (
                (milliseconds(timed.seconds), milliseconds(timed.p95)) if timed else (NOT_JUDGED, NOT_JUDGED)
            )
            rows.append((arm.arm, arm.right_text, right_cost_text(cost), *amounts, *times))
    return columns, rows


def right_cost_note(report: TrialReport) -> str:
    """Return what the costs of right answers are made of."""
    arms_of: dict[str, list[str]] = {}
    for arm in report.arms:
        if arm.cost_per_right and arm.usd_basis:
            # usd_basis keeps the words of 0.2.0, in which a machine without a GPU has one called none
            basis = arm.usd_basis.replace("hour of none is", "hour of this machine is")
            arms_of.setdefault(basis, []).append(arm.arm)
    bases = "; ".join(f"{basis}: {', '.join(arms)}" for basis, arms in arms_of.items())
    units = {arm.cost_per_right.in_usd for arm in report.arms if arm.cost_per_right}
    apart = " Costs in USD and in time are not compared with each other." if len(units) > 1 else ""
    return (
        "Cost of a right answer: what all answers that could be judged cost, by the number of right ones; without a price "
        f"the time that they took. Training is not part of it.{apart} By arm: {bases}."
    )


def retriever_notes(comparison: Mapping[str, Any], plan: Plan) -> list[str]:
    """Return what the gate of a tuned retriever decided, with its numbers on dev and on test questions; [] without one.

    Args:
        comparison: of the run (:func:`runners.runs.retrieval.read_comparison`).
        plan: the run's plan.
    """
    if not comparison:
        return []
    arms = ", ".join(step.arm for step in plan.arms if step.retriever == "tuned") or "no arm"
    outcome = "is used" if comparison["accepted"] else f"was refused, so {arms} was not asked"
    notes = [f"the tuned retriever {outcome}: {comparison['reason']}"]
    if test := comparison.get("test"):
        labels = {"evidence": "evidence", "ndcg": "nDCG@10"}
        parts = [
            f"{label} {row['before']:.3f} to {row['after']:.3f} ({row['difference']:+.3f}, "
            f"95 % {row['low']:+.3f} to {row['high']:+.3f})"
            for key, label in labels.items()
            if (row := test.get(key))
        ]
        notes.append(
            f"the tuned retriever on {test['questions']} test questions, measured after the trial: "
            + "; ".join(parts)
        )
    return notes


def questions_asked(arms: Sequence[ArmReport]) -> str:
    """Return how many held-out questions the arms answered, and how often with their other wordings."""
    count = question_count(arms)
    asked = max((arm.n for arm in arms), default=0)
    more = f" and {count_noun(asked - count, 'other wording')} of them" if asked > count else ""
    return f"{count} held-out questions{more}"


def task_asked(plan: Plan) -> TaskAsked:
    """Return what was to be decided and who answered the questionnaire."""
    goal = plan.answers.get("goal")
    sources: dict[str, int] = {}
    for key, answer in plan.answers.items():
        if answer.value is not None and key != PROBE_FACTS:
            sources[answer.source] = sources.get(answer.source, 0) + 1
    return TaskAsked(
        goal=str(goal.value) if goal and goal.value else "",
        answers=sources,
        prompt=bool(plan.prompts.system),
    )


def task_line(report: TrialReport) -> str:
    """Return the task, who answered for it and the date of the run in one line; "" where nothing of it is known."""
    goal, sources = report.task.goal, report.task.answers
    parts = [f"Task: {goal}" + "." * (not goal.endswith((".", "?", "!")))] if goal else []
    if sources:
        by_person = sum(sources.get(source, 0) for source in PERSON_SOURCES)
        measured = sum(sources.values()) - by_person
        parts.append(
            f"The advice used {count_noun(by_person, 'answer')} of a person and {measured} that "
            f"{'was' if measured == 1 else 'were'} counted, measured or assumed."
        )
    if date := report.environment.get("date"):
        parts.append(f"Run of {date}.")
    return " ".join(parts)


def arms_line(report: TrialReport) -> str:
    """Return what each arm of the report is, in one sentence; "" where only arms of the plan's author were measured.

    Of several models their names follow.
    """
    models = [f"{alias} = {name}" for alias, name in short_models(report).items()]
    return "; ".join(filter(None, (arms_in_words(arm.arm for arm in report.arms), *models)))


def models_asked(report: TrialReport) -> str:
    """Return the model that answered, or the several that were compared."""
    names = [f"{alias} ({name})" for alias, name in short_models(report).items()]
    return _joined(names) if names else report.verdict.model


def short_models(report: TrialReport) -> dict[str, str]:
    """Return the names of several models that were compared, by alias, without where they are; {} where there is one."""
    return {alias: public_model_name(name) for alias, name in (report.models or {}).items()}


def words_used(report: TrialReport) -> list[Term]:
    """Return the terms to explain beside a report: those of its arms and its conclusion, and those every report uses."""
    names = ", ".join(arm.arm for arm in report.arms)
    conclusion = " ".join(report.verdict.conclusion)
    return terms_in(f"arm, verdict, held-out; {names}; {arms_line(report)}; {conclusion}")


def grading_weights(report: ScoredReport) -> dict[str, float]:
    """Return the weights by which answers are graded: where right answers are counted, those of what these may lack."""
    from runners.scoring.scores import PART_OF_RIGHT

    left_out = PART_OF_RIGHT if _counts_right_answers(report) else frozenset()
    return {name: weight for name, weight in report.weights.items() if weight and name not in left_out}


def _counts_right_answers(report: ScoredReport) -> bool:
    """Return whether the combined scores of a report were computed from right answers."""
    return any("right" in arm.scores for arm in report.arms)


def combined_score_rule(report: ScoredReport) -> str:
    """Return how the combined score of an answer is computed, in one sentence."""
    from runners.scoring.scores import RIGHT_SHARE

    if not _counts_right_answers(report):
        return "The combined score of an answer is the weighted mean of its scores."
    names = [name.replace("_", " ") for name in grading_weights(report)]
    if not names:
        return f"The combined score of an answer is 1 if the answer is right, else 0.{_rows_without_gold(report)}"
    return (
        f"The combined score of an answer is 0 if the answer is not right; if it is right, {RIGHT_SHARE:g} and up to "
        f"{1 - RIGHT_SHARE:.2g} more by {'the weighted mean of ' if len(names) > 1 else ''}{_joined(names)}."
        f"{_rows_without_gold(report)}"
    )


def _rows_without_gold(report: ScoredReport) -> str:
    """Return how many rows of a trial no rule can judge, as a sentence after another one; "" where all have gold."""
    if isinstance(report, TrialReport) and (left := report.without_gold):
        return (
            f" {count_noun(left, 'row')} without gold do not count: nothing says whether an answer to them is right. People "
            "can grade these answers: tunewise label QUESTIONS --run RUN."
        )
    asked = max(arm.n for arm in report.arms)
    judged = max((arm.right.of for arm in report.arms if arm.right), default=asked)
    if not isinstance(report, TrialReport) or asked == judged:
        return ""
    return (
        f" {asked - judged:,} of {count_noun(asked, 'row')} have no gold, so that nothing says whether an answer to them is "
        "right: they count with the mean of what else is scored, 0 without any. People can grade these answers: tunewise "
        "label QUESTIONS --run RUN."
    )


def batch_text(report: ScoredReport, arm: ArmReport) -> str:
    """Return how an arm's answers were timed: "batch of 32", "alone", "4 at once"; "in batches" where it is not known."""
    conditions = report.measured.answering.get(arm.arm) if isinstance(report, TrialReport) else None
    if conditions and conditions.at_once:
        return "alone" if conditions.at_once == 1 else f"{conditions.at_once} at once"
    return "in batches" if not arm.batch else "alone" if arm.batch == 1 else f"batch of {arm.batch}"


def milliseconds(seconds: float) -> str:
    """Return seconds of an answer in whole milliseconds: 1,240; below 10 with a decimal."""
    return f"{1000 * seconds:,.0f}" if seconds >= 0.01 else f"{1000 * seconds:.1f}"


def timing_notes(report: TrialReport) -> list[str]:
    """Return what a reader must know of the times of an answer: batches, and what else the machine did; first of routers."""
    shares = {name: conditions.busy or 0.0 for name, conditions in report.measured.answering.items()}
    busy = [
        f"{arm.arm} ({shares[arm.arm]:.0%})" for arm in report.arms if is_contended(shares.get(arm.arm, 0.0))
    ]
    notes = [routed_text(arm) for arm in report.arms if arm.routed]
    notes += [lookups_text(arm.arm, arm.lookups) for arm in report.arms if arm.lookups]
    if any(batch_text(report, arm).startswith(("batch", "in")) for arm in report.arms):
        timed = max((arm.alone.n for arm in report.arms if arm.alone), default=0)
        alone = (
            f"a time alone is the median of {count_noun(timed, 'question')} asked one at a time"
            if timed
            else "a question asked alone takes longer"
        )
        notes.append(
            f"A time in a batch is that of the whole batch divided by its number of answers; {alone}"
        )
    if busy:
        notes.append(
            "The machine was busy, so these arms' times are too long (in brackets the share of the processor time they "
            f"needed that other programs took): {', '.join(busy)}"
        )
    return notes


def routed_text(arm: ArmReport) -> str:
    """Return what a router's arms answered, what 1,000 answers cost, and how many are right; "" for another arm."""
    routed = arm.routed
    if routed is None:
        return ""
    text = f"{arm.arm}: {routed.first} answered {routed.share_text}, {routed.otherwise} the others"
    if arm.usd_per_1000 is not None and routed.usd_low is not None and routed.usd_high is not None:
        text += (
            f"; 1,000 answers cost {arm.usd_per_1000:.2g} USD ({routed.usd_low:.2g} to {routed.usd_high:.2g})"
        )
        text += f", of {routed.otherwise} alone {routed.usd_otherwise:.2g}"
    return text + (f"; {arm.right_text} right ({arm.right.interval})" if arm.right else "")


def lookups_text(arm: str, lookups: LookupSummary) -> str:
    """Return what the answers of a model took that looks things up itself, and how many ended at a limit."""
    requests, tokens, seconds = map(spread_text, (lookups.requests, lookups.tokens, lookups.seconds))
    took = (
        f"{requests} requests, {tokens} tokens and {seconds} s an answer "
        "(median, in brackets from the least to the most)"
    )
    ended = sum(lookups.limits.values())
    which = ", ".join(f"{name} {count}" for name, count in lookups.limits.items())
    parts = [f"{ended} of {lookups.n} ended at a limit" + (f" ({which})" if which else "")]
    own = f"{count_noun(lookups.own, 'look-up')} of its own"
    if not (lookups.own or lookups.nothing_read):
        own = f"made no look-up of its own in {count_noun(lookups.n, 'question')}: it is rag with more tokens"
    parts.append(own)
    parts += [f"nothing was read for {lookups.nothing_read}"] if lookups.nothing_read else []
    parts += [f"empty: {lookups.empty}"] if lookups.empty else []
    wrong = ", ".join(f"{name} {count}" for name, count in lookups.problems.items())
    parts += [f"calls that were not carried out: {wrong}"] if wrong else []
    parts += [f"{count_noun(lookups.repeated, 'call')} made twice or more"] if lookups.repeated else []
    parts += (
        [f"{count_noun(lookups.withheld, 'sentence')} that repeated the instructions, not shown"]
        if lookups.withheld
        else []
    )
    return f"{arm}: {took}; {'; '.join(parts)}"


def spread_text(spread: Spread) -> str:
    """Return a median with the least and the most: 4 (1–8)."""
    middle, least, most = (
        f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"
        for value in (spread.median, spread.least, spread.most)
    )
    return f"{middle} ({least}–{most})"


def costs_nothing(report: TrialReport) -> bool:
    """Return whether calls cost no money: the advice or, without one, every measured arm is for a machine at hand."""
    even = report.predicted.get("break_even") or {}
    if even:
        return bool(even.get("hosted_equivalent"))
    # Arms of a server without a price have another basis: what it asks for is not known.
    return all(arm.usd_basis.startswith("no price of an hour") for arm in report.arms)


def answer_price(arm: ArmReport, free: bool) -> str:
    """Return the cost of 1,000 answers of an arm, with its basis; on one's own machine that there is no price."""
    if arm.usd_per_1000 is not None:
        return f"{arm.usd_per_1000:.4f} USD" + (f" ({arm.usd_basis})" if arm.usd_basis else "")
    return "0 USD: your own machine" if free else arm.usd_basis or NOT_JUDGED


def effort_sentence(report: TrialReport) -> str:
    """Return the hours that building and measuring the arms took, where they cost no money."""
    seconds = report.measured.seconds
    parts = [
        f"training {step.partition(':')[2]} took {duration_text(took)}"
        for step, took in seconds.items()
        if step.startswith("train:")
    ]
    parts += [f"the whole run {duration_text(sum(seconds.values()))}"] if seconds else []
    took_text = f": {_joined(parts)}" if parts else ""
    return f"Costs 0 USD: your own machine, no price applies{took_text}."


def p_text(p_value: float) -> str:
    """Return a p-value as printed, "<.001" below that."""
    return "<.001" if p_value < 0.001 else f"{p_value:.3f}".lstrip("0")


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
