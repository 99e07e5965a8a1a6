"""The table of all scores: the meaning of each, and what it needs to be computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScoreDefinition:
    """One score of an answer, between 0 and 1."""

    name: str
    what: str
    """Meaning of 1, or of what is counted for a score where lower is better."""
    needs: str
    """What a question, answer or plan must have; without it the score is absent, never zero."""
    lower: bool = False
    """Whether lower is better; the combined score uses 1 minus its value."""

    def gain(self, value: float) -> float:
        """Return the value as used in the combined score, where higher is better."""
        return 1 - value if self.lower else value


ABSENT_GOLD = (
    "a question whose references all say that nothing is stated, where the plan's answers allow that"
)
SCORE_DEFINITIONS: tuple[ScoreDefinition, ...] = (
    ScoreDefinition(
        "right",
        "the answer is right: it refuses when there is no answer, and otherwise states the gold's value or fact",
        "gold: no answer, a label, JSON, a marked last line, a fact, short answers, spans or a reference",
    ),
    ScoreDefinition("style", "every check of the plan is met", "checks in the plan"),
    ScoreDefinition(
        "fact_recall", "share of the gold fact's content words that the answer has", "a gold fact"
    ),
    ScoreDefinition(
        "agreement", "same yes or no as the gold fact, and all of its numbers", "a fact with either"
    ),
    ScoreDefinition("token_f1", "words shared with the nearest reference (SQuAD's F1)", "a reference"),
    ScoreDefinition(
        "exact_match", "equal to a reference, but for case, articles and punctuation", "a reference"
    ),
    ScoreDefinition(
        "citation",
        "share of factual sentences that the cited passages fully support",
        "an answerable question",
    ),
    ScoreDefinition("refusal", "refused when, and only when, there is no answer", "any question"),
    ScoreDefinition(
        "rouge_l",
        "longest common subsequence of words with the nearest reference, as F (Lin 2004)",
        "a reference",
    ),
    ScoreDefinition(
        "chrf",
        "runs of one to six characters shared with the nearest reference, as F2 (Popović 2015)",
        "a reference",
    ),
    ScoreDefinition(
        "slot_f1",
        "keys and values of the JSON that are the reference's; 0 when it is not JSON",
        "a JSON reference",
    ),
    ScoreDefinition("valid_json", "the answer, all of it, is JSON", "a JSON reference"),
    ScoreDefinition(
        "label",
        "the right label, but for case, underscores and a full stop",
        "a labels check and a reference",
    ),
    ScoreDefinition(
        "final_answer",
        "the part that a check's pattern calls `answer` (the number of a last line) is the reference's",
        "a check with a group of that name, and a reference that has it",
    ),
    ScoreDefinition(
        "citation_precision",
        "share of the marks [n] whose sentence is fully supported",
        "an answer with marks",
    ),
    ScoreDefinition("correct_refusal", "refused, as it should", "a question without an answer"),
    ScoreDefinition(
        "false_refusal", "refused although there is an answer", "a question with an answer", lower=True
    ),
    ScoreDefinition(
        "spurious",
        "a value where none is: of a JSON reference the share of slots it lacks",
        f"JSON, or {ABSENT_GOLD}",
        lower=True,
    ),
)
SCORE_NAMES: tuple[str, ...] = tuple(definition.name for definition in SCORE_DEFINITIONS)
SCORE_BY_NAME: Mapping[str, ScoreDefinition] = {
    definition.name: definition for definition in SCORE_DEFINITIONS
}
