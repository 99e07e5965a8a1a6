"""The contents page of the scores: every one, what it says, and when it can be computed. Light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measure:
    """One score of an answer, between 0 and 1."""

    name: str
    what: str
    """What 1 means, or for a lower-is-better score what is counted."""
    needs: str
    """What a question, answer or plan must have; without it the score is absent, never zero."""
    lower: bool = False
    """Whether less is better; it enters the combined score as 1 minus its value."""

    def gain(self, value: float) -> float:
        """Return the value as the combined score takes it: more is better."""
        return 1 - value if self.lower else value


ABSENT_GOLD = (
    "a question whose references all say that nothing is stated, where the plan's answers allow that"
)
MEASURES: tuple[Measure, ...] = (
    Measure("style", "every check of the plan is met", "checks in the plan"),
    Measure("fact_recall", "share of the gold fact's content words that the answer has", "a gold fact"),
    Measure("agreement", "same yes or no as the gold fact, and all of its numbers", "a fact with either"),
    Measure("token_f1", "words shared with the nearest reference (SQuAD's F1)", "a reference"),
    Measure("exact_match", "equal to a reference, but for case, articles and punctuation", "a reference"),
    Measure("citation", "share of factual sentences that the cited passages bear out in full", "an answerable question"),
    Measure("refusal", "refused when, and only when, there is no answer", "any question"),
    Measure("rouge_l", "longest common subsequence of words with the nearest reference, as F (Lin 2004)", "a reference"),
    Measure("chrf", "runs of one to six characters shared with the nearest reference, as F2 (Popović 2015)", "a reference"),
    Measure("slot_f1", "keys and values of the JSON that are the reference's; 0 when it is not JSON", "a JSON reference"),
    Measure("valid_json", "the answer, all of it, is JSON", "a JSON reference"),
    Measure("label", "the right label, but for case, underscores and a full stop", "a labels check and a reference"),
    Measure("final_answer", "the part that a check's pattern calls `answer` (the number of a last line) is the reference's",
            "a check with a group of that name, and a reference that has it"),
    Measure("citation_precision", "share of the marks [n] whose sentence is borne out in full", "an answer with marks"),
    Measure("correct_refusal", "refused, as it should", "a question without an answer"),
    Measure("false_refusal", "refused although there is an answer", "a question with an answer", lower=True),
    Measure("spurious", "a value where none is: of a JSON reference the share of slots it lacks", f"JSON, or {ABSENT_GOLD}",
            lower=True),
)  # fmt: skip
RETIRED: tuple[Measure, ...] = (
    Measure(
        "house_style", "as the examples are written, where 0 is how the untuned model writes", "an older run"
    ),
)
"""Scores that are no longer computed: older plans and runs have them, and still open."""
NAMES: tuple[str, ...] = tuple(measure.name for measure in MEASURES)
BY_NAME: Mapping[str, Measure] = {measure.name: measure for measure in (*MEASURES, *RETIRED)}
