"""What every view of a report states in words: right answers, the task, the conclusion, the weights, times and costs.

The functions read the object of report.json, those of earlier versions too: what a run did not record is shown as "–" or
not shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advisor.glossary import Term, terms_in
from advisor.methods.arm_titles import arms_in_words
from advisor.questionnaire.answers import PERSON_SOURCES
from advisor.questionnaire.probe_facts import PROBE_FACTS
from advisor.verdict.conclusion import duration_text, question_count
from rag.evaluation.statistics import risk_coverage
from rag.text.words import count_noun
from runners.plan.schema import Plan
from runners.resources.usage import is_contended

NOT_JUDGED = "–"
"""Shown where answers cannot be judged right or wrong, or an earlier version did not count them."""
P_VALUE_NOTE = (
    "p: the probability of a difference this large if both arms were equally good, corrected for the number of arms "
    "compared (Holm); a p of .05 or less counts as a clear difference"
)


STRENGTHS = {
    "measured": "measured",
    "leaning": "a tendency only",
    "proxy": "with another model",
    "made": "on generated questions",
}
"""The strength of a verdict as people read it, by its value in report.json."""


def right_count(counts: Mapping[str, Any] | None) -> str:
    """Return right answers as "48 of 65" from ``right`` of an arm or a part of it; "–" where there is none."""
    if not counts or not counts.get("of"):
        return NOT_JUDGED
    return f"{counts['n']:g} of {counts['of']}"


def right_interval(counts: Mapping[str, Any] | None) -> str:
    """Return the 95 % interval of the share of right answers as "62–83 %" without a break; "" where there is none."""
    if not counts or counts.get("low") is None:
        return ""
    return f"{100 * counts['low']:.0f}–{100 * counts['high']:.0f}\u00a0%"


def made_cells(arm: Mapping[str, Any]) -> tuple[str, str]:
    """Return right answers and combined score of an arm on the made questions beside the real ones; "–" without them."""
    column = arm.get("made") or {}
    score = column.get("score")
    return right_count(column.get("right")), f"{score['mean']:.2f}" if score else NOT_JUDGED


_READ_BY = {
    "answers": "a question is refused where none of the first passages, which are read, seems to answer it",
    "logistic": "a question is refused by signals of the search, most of which count the words that it shares with passages",
    "default": "a question is refused where no passage is near it in meaning, by a fixed limit",
}
"""By what a gate refuses, by ``how`` of its threshold."""


def refusal_gate(refusal: Mapping[str, Any]) -> str:
    """Return which gate refuses before the model is asked, by what, and for which wordings; "" for a run without one."""
    if not refusal:
        return ""
    how, note = str(refusal["how"]), str(refusal.get("note") or "")
    gate = str(refusal.get("gate") or "fitted")
    if gate == "off" or how == "off":
        return "Gate: off. No question is refused before the model is asked."
    name = "default" if how == "default" and gate == "fitted" else gate
    noted = f" {note[:1].upper()}{note[1:].rstrip('.')}." if note else ""
    return f"Gate: {name}; {_READ_BY.get(how, how)}.{noted}"


def refusal_line(data: Mapping[str, Any]) -> str:
    """Return when a run refuses, in one line with what that means on its dev questions; "" for a run without a gate."""
    refusal = (data.get("guards") or {}).get("refusal") or {}
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


@dataclass(frozen=True, slots=True, kw_only=True)
class WordingTable:
    """Questions as their rows have them beside their other wordings: two rows for each arm, none without any."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def wording_table(data: Mapping[str, Any]) -> WordingTable:
    """Return right answers, passages found and refusals of each arm in the documents' words and in others."""
    rows = tuple(
        (
            arm["arm"],
            title,
            right_count(counts.get("right")),
            *(right_count(counts.get(part)) for part in ("hit", "refused_wrongly", "refused_rightly")),
        )
        for arm in data["arms"]
        for key, title in (("question", "documents' words"), ("wordings", "other words"))
        if (counts := (arm.get("by_wording") or {}).get(key))
    )
    columns = ("arm", "asked in", "right", "passage found", "refused wrongly", "refused rightly")
    return WordingTable(title="In the documents' words and in others", columns=columns, rows=rows)


def questions_asked(data: Mapping[str, Any]) -> str:
    """Return how many held-out questions the arms answered, and how often with their other wordings."""
    count = question_count(data)
    asked = max((arm["n"] for arm in data["arms"]), default=0)
    more = f" and {count_noun(asked - count, 'other wording')} of them" if asked > count else ""
    return f"{count} held-out questions{more}"


def share_as_count(score: Mapping[str, Any] | None) -> str:
    """Return a mean of zeros and ones over ``n`` questions as a count, "11 of 12"; "–" where it was not measured."""
    if not score or not score.get("n"):
        return NOT_JUDGED
    return f"{round(score['mean'] * score['n'], 1):g} of {score['n']}"


def used_arm(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arm of the report that is to be used; None when no arm can meet what was said.

    In reports of earlier versions, which do not name it, it is the winner.
    """
    verdict = data["verdict"] or {}
    name = verdict["use"] if "use" in verdict else verdict.get("winner")
    return next((arm for arm in data["arms"] if arm["arm"] == name), None)


def conclusion(data: Mapping[str, Any]) -> list[str]:
    """Return the sentences for the top of every view; [] in reports of earlier versions."""
    return [str(sentence) for sentence in (data["verdict"] or {}).get("conclusion") or ()]


def task_asked(plan: Plan) -> dict[str, Any]:
    """Return what was to be decided and who answered the questionnaire, as in report.json.

    Returns:
        ``goal``: the sentence in which a person named the task, "" without one; ``answers``: the number of answers by
        their source; ``prompt``: whether there are instructions, so that the arm prompting answers as today.
    """
    goal = plan.answers.get("goal")
    sources: dict[str, int] = {}
    for key, answer in plan.answers.items():
        if answer.value is not None and key != PROBE_FACTS:
            sources[answer.source] = sources.get(answer.source, 0) + 1
    return {
        "goal": str(goal.value) if goal and goal.value else "",
        "answers": sources,
        "prompt": bool(plan.prompts.system),
    }


def task_line(data: Mapping[str, Any]) -> str:
    """Return the task, who answered for it and the date of the run in one line; "" where nothing of it is known."""
    task = data.get("task") or {}
    goal = str(task.get("goal") or "")
    parts = [f"Task: {goal}" + "." * (not goal.endswith((".", "?", "!")))] if goal else []
    if sources := task.get("answers"):
        by_person = sum(sources.get(source, 0) for source in PERSON_SOURCES)
        measured = sum(sources.values()) - by_person
        parts.append(
            f"The advice used {count_noun(by_person, 'answer')} of a person and {measured} that "
            f"{'was' if measured == 1 else 'were'} counted, measured or assumed."
        )
    if date := (data.get("environment") or {}).get("date"):
        parts.append(f"Run of {date}.")
    return " ".join(parts)


def arms_line(data: Mapping[str, Any]) -> str:
    """Return what each arm of the report is, in one sentence; "" where only arms of the plan's author were measured."""
    return arms_in_words(arm["arm"] for arm in data["arms"])


def words_used(data: Mapping[str, Any]) -> list[Term]:
    """Return the terms to explain beside a report: those of its arms and its conclusion, and those every report uses."""
    names = ", ".join(arm["arm"] for arm in data["arms"])
    return terms_in(f"arm, verdict, held-out; {names}; {arms_line(data)}; {' '.join(conclusion(data))}")


def counts_right_answers(data: Mapping[str, Any]) -> bool:
    """Return whether the combined scores of a report were computed from right answers."""
    return any("right" in arm["scores"] for arm in data["arms"])


def grading_weights(data: Mapping[str, Any]) -> dict[str, float]:
    """Return the weights by which answers are graded: where right answers are counted, those of what these may lack."""
    from runners.scoring.scores import PART_OF_RIGHT

    left_out = PART_OF_RIGHT if counts_right_answers(data) else frozenset()
    return {name: weight for name, weight in data["weights"].items() if weight and name not in left_out}


def combined_score_rule(data: Mapping[str, Any]) -> str:
    """Return how the combined score of an answer is computed, in one sentence."""
    from runners.scoring.scores import RIGHT_SHARE

    if not counts_right_answers(data):
        return "The combined score of an answer is the weighted mean of its scores."
    names = [name.replace("_", " ") for name in grading_weights(data)]
    if not names:
        return "The combined score of an answer is 1 if the answer is right, else 0."
    return (
        f"The combined score of an answer is 0 if the answer is not right; if it is right, {RIGHT_SHARE:g} and up to "
        f"{1 - RIGHT_SHARE:.2g} more by {'the weighted mean of ' if len(names) > 1 else ''}{_joined(names)}."
    )


def batch_text(data: Mapping[str, Any], arm: Mapping[str, Any]) -> str:
    """Return how an arm's answers were timed: "batch of 32", "alone", "4 at once"; "in batches" where it is not known."""
    conditions = ((data.get("measured") or {}).get("answering") or {}).get(arm["arm"]) or {}
    if at_once := conditions.get("at_once"):
        return "alone" if at_once == 1 else f"{at_once} at once"
    batch = arm.get("batch")
    return "in batches" if not batch else "alone" if batch == 1 else f"batch of {batch}"


def median_alone(arm: Mapping[str, Any]) -> float | None:
    """Return the median seconds of an arm's answers to questions asked one at a time; None where it was not timed."""
    alone = arm.get("alone")
    return float(alone["seconds"]) if alone else None


def milliseconds(seconds: float) -> str:
    """Return seconds of an answer in whole milliseconds: 1,240; below 10 with a decimal."""
    return f"{1000 * seconds:,.0f}" if seconds >= 0.01 else f"{1000 * seconds:.1f}"


def timing_notes(data: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know of the times of an answer: batches, and what else the machine did."""
    answering = (data.get("measured") or {}).get("answering") or {}
    shares = {arm["arm"]: (answering.get(arm["arm"]) or {}).get("busy") or 0.0 for arm in data["arms"]}
    busy = [f"{name} ({share:.0%})" for name, share in shares.items() if is_contended(share)]
    notes = []
    if any(batch_text(data, arm).startswith(("batch", "in")) for arm in data["arms"]):
        timed = max(((arm.get("alone") or {}).get("n", 0) for arm in data["arms"]), default=0)
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


def costs_nothing(data: Mapping[str, Any]) -> bool:
    """Return whether calls cost no money: the advice or, without one, every measured arm is for a machine at hand."""
    even = data["predicted"].get("break_even") or {}
    if even:
        return bool(even.get("hosted_equivalent"))
    # Arms of a server without a price have another basis: what it asks for is not known.
    return all(str(arm.get("usd_basis") or "").startswith("no price of an hour") for arm in data["arms"])


def answer_price(arm: Mapping[str, Any], free: bool) -> str:
    """Return the cost of 1,000 answers of an arm, with its basis; on one's own machine that there is no price."""
    if arm.get("usd_per_1000") is not None:
        basis = arm.get("usd_basis")
        return f"{arm['usd_per_1000']:.4f} USD" + (f" ({basis})" if basis else "")
    return "0 USD: your own machine" if free else str(arm.get("usd_basis") or NOT_JUDGED)


def effort_sentence(data: Mapping[str, Any]) -> str:
    """Return the hours that building and measuring the arms took, where they cost no money."""
    seconds = {str(step): float(took) for step, took in (data["measured"].get("seconds") or {}).items()}
    trained = {step.partition(":")[2]: took for step, took in seconds.items() if step.startswith("train:")}
    parts = [f"training {arm} took {duration_text(took)}" for arm, took in trained.items()]
    parts += [f"the whole run {duration_text(sum(seconds.values()))}"] if seconds else []
    took_text = f": {_joined(parts)}" if parts else ""
    return f"Costs 0 USD: your own machine, no price applies{took_text}."


def p_text(p_value: float | None) -> str:
    """Return a p-value as printed, "<.001" below that; "–" where a run of an early version has none."""
    if p_value is None:
        return NOT_JUDGED
    return "<.001" if p_value < 0.001 else f"{p_value:.3f}".lstrip("0")


def corrected_p(pair: Mapping[str, Any]) -> float:
    """Return the p-value of a pair, corrected for the number of arms where that was done."""
    corrected = pair.get("p_holm")
    return float(pair["p"] if corrected is None else corrected)


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
