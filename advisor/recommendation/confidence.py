"""What speaks against an advice, and what would settle it, in words; the rate says how often advice is right at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from advisor.questionnaire.profile import MIN_RAW_TOKENS, Profile
from advisor.questionnaire.questions import QUESTION_BY_ID
from advisor.recommendation.probability import AdviceRate, Level
from advisor.recommendation.ranking import Ranking, ScoredMethod, first_choice
from advisor.rules.agentic import NOT_MEASURED
from advisor.rules.data import ADAPTER_CAPACITY_TOKENS
from runners.plan.train_config import TUNING_METHODS

METHOD_FAMILIES = (frozenset(TUNING_METHODS), frozenset({"prompting", "few-shot", "long-context"}))
"""Methods that are no rivals of each other: tuning methods, and prompting methods."""
RETRIEVING = ("rag", "agentic-search", "hybrid")
UNTRAINED = ("prompting", "few-shot", "long-context", "rag", "agentic-search")
"""Methods that ask the language model as it is."""
CLOSE_MARGIN = 1.0
"""Difference in weight up to which a method of another family is close behind: the strongest rules weigh 2 to 3."""
ENOUGH_EXAMPLES = 1_000
"""Examples from which their number raises no doubt about tuning (Zhou et al., LIMA, arXiv 2305.11206)."""
ENOUGH_FOR_SMALL_GAP = 5_000
"""The same where the gap in behaviour is small, so that there is less to gain."""
FEW_SHARE = 0.5
"""Share of enough examples below which there are few."""
LARGE_FOR_FULL_B = 1.0
"""Models from this many billion parameters on are seldom much better tuned in full than with adapters."""
USELESS_CLASSIFIER = 0.5
"""Share of right labels up to which a classifier that a probe measured is no rival."""


@dataclass(frozen=True, slots=True)
class Confidence:
    """The word for the rate of right advice, the same for all advice, and what to know of this one."""

    level: Level
    because: str


@dataclass(frozen=True)
class AdviceDoubts:
    """What is open about the first method of a ranking.

    Attributes:
        profile: the situation.
        ranking: the methods, best first.
        also: arms beside the methods that should be measured, with reasons.
    """

    profile: Profile
    ranking: Ranking
    also: Mapping[str, str]

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """The unknown answers among those that decide most: withholding any other one seldom changed the advice."""
        keys = ["behaviour_gap", "task_needs_facts"]
        if self.profile.behaviour_needed:
            keys.append("labelled_examples")
        if self.profile.facts_needed != "none" and self.ranking.choice in RETRIEVING:
            keys.append("corpus_tokens")
        return tuple(key for key in keys if is_unknown(self.profile, key))

    @cached_property
    def deciding(self) -> Mapping[str, frozenset[str]]:
        """The missing answers on which the choice depends, each with the methods that its typical values would choose."""
        chosen = {key: self._choices_by(key) for key in self.missing}
        return {key: methods for key, methods in chosen.items() if methods}

    def _choices_by(self, key: str) -> frozenset[str]:
        """Return the other methods that the typical values of an answer would choose."""
        question = QUESTION_BY_ID[key]
        values: list[Any] = [option.value for option in question.choices] or [*question.tries]
        chosen = {first_choice(self.profile.change(key, value)).choice for value in values}
        return frozenset(chosen - {self.ranking.choice})

    @cached_property
    def close(self) -> tuple[str, ...]:
        """The feasible methods of other families that are close behind, best first.

        Retrieval is no rival where the task needs no facts and no sources.
        """
        useless = RETRIEVING if self.profile.facts_needed == "none" and not self.profile.must_cite else ()
        first = self.ranking.methods[0]
        return tuple(
            other.method.name
            for other in self.ranking.methods[1:]
            if not other.blockers
            and not same_family(first, other)
            and other.method.name not in useless
            and first.sum - other.sum <= CLOSE_MARGIN
        )

    @property
    def classifier(self) -> bool:
        """Whether a classifier should be measured too, and a probe did not show that it is no rival."""
        measured = self.profile.probe.classifier
        return "classifier" in self.also and (measured is None or measured.rate > USELESS_CLASSIFIER)

    @property
    def better_blocked(self) -> ScoredMethod | None:
        """The best method of another family that is better than the choice, and that data, hardware or policy block."""
        first = self.ranking.methods[0]
        forbidden = (
            scored
            for scored in self.ranking.methods
            if scored.sum > first.sum and _is_forbidden(scored) and not same_family(first, scored)
        )
        return max(forbidden, key=lambda scored: scored.sum, default=None)

    @property
    def unused_hardware(self) -> bool:
        """Whether a language model is advised as it is though there is a GPU to train it; examples can still be written."""
        trainable = any(
            scored.method.name in TUNING_METHODS
            and {blocker.rule for blocker in scored.blockers} <= {"BL001"}
            for scored in self.ranking.methods
        )
        return self.ranking.choice in UNTRAINED and self.profile.has_gpu is True and trainable

    @property
    def trains(self) -> bool:
        """Whether training of the language model is advised."""
        return self.ranking.choice in (*TUNING_METHODS, "hybrid")

    @property
    def enough_examples(self) -> int:
        """The number of examples from which it raises no doubt about tuning."""
        return ENOUGH_FOR_SMALL_GAP if self.profile.behaviour_gap == "low" else ENOUGH_EXAMPLES

    @property
    def few_examples(self) -> bool:
        """Whether training is advised on few examples, without raw text to train on."""
        count = self.profile.labelled_examples
        few = count is not None and count < FEW_SHARE * self.enough_examples
        return self.trains and few and self.profile.raw_text < MIN_RAW_TOKENS

    def against(self) -> Iterator[str]:
        """Yield what speaks against the advice, the weightiest first."""
        profile, choice = self.profile, self.ranking.choice
        if choice == "agentic-search":
            yield NOT_MEASURED
        if self.deciding:
            yield f"the choice depends on {' and '.join(self.deciding)}, which {_are(self.deciding)} not known"
        if self.close:
            yield f"{self.close[0]} is close behind"
        if self.classifier and "classifier" not in self.close[:1]:
            yield "a classifier may do better"
        if self.unused_hardware:
            yield "there is a GPU that could train"
        large = choice == "full" and (profile.params_b or 0) >= LARGE_FOR_FULL_B
        if large and profile.raw_text < ADAPTER_CAPACITY_TOKENS:
            yield "LoRA usually does as well on a model of this size"
        if choice == "hybrid" and profile.facts_change == "static":
            yield "facts that never change can also be put in the prompt or trained"
        if choice == "hybrid" and profile.facts_change is None:
            yield "it is not known whether the facts change"
        if self.few_examples:
            yield f"{profile.labelled_examples:,} examples are not many"
        if others := [key for key in self.missing if key not in self.deciding]:
            yield f"{' and '.join(others)} {_are(others)} not known"
        if better := self.better_blocked:
            yield f"{better.method.name} would fit better but cannot be done here"

    def settling(self) -> Iterator[str]:
        """Yield what the user can do about it."""
        choice = self.ranking.choice
        if self.missing:
            yield f"an answer to {' and '.join(self.missing)}"
        if self.few_examples:
            yield f"{self.enough_examples:,} examples"
        if self.also:
            yield f"measuring {' and '.join(self.also)}"
        if self.close or self.unused_hardware:
            yield f"measuring {choice} against {self.close[0] if self.close else self._best_trained()}"

    def _best_trained(self) -> str:
        """Return the best tuning method."""
        return next(s.method.name for s in self.ranking.methods if s.method.name in TUNING_METHODS)


def confidence(doubts: AdviceDoubts, rate: AdviceRate) -> Confidence:
    """Return the word for the rate with the rate itself, what speaks against this advice, and what would settle it."""
    against, settling = tuple(doubts.against()), tuple(doubts.settling())
    parts = [
        rate.text,
        *([f"against it: {'; '.join(against)}"] if against else []),
        *([f"to settle it: {', '.join(settling)}"] if settling else []),
    ]
    return Confidence(rate.level, "; ".join(parts))


def is_unknown(profile: Profile, key: str) -> bool:
    """Return whether an answer was neither given ("none" is: no limit), counted nor detected, or is a default."""
    answer = profile.sources.get(key)
    if getattr(profile, key) is None:
        return answer is None or answer.value is None
    return answer is not None and answer.source == "default"


def same_family(a: ScoredMethod, b: ScoredMethod) -> bool:
    """Return whether two methods are of one family: two tuning methods, or two prompting methods."""
    return any({a.method.name, b.method.name} <= family for family in METHOD_FAMILIES)


def _is_forbidden(scored: ScoredMethod) -> bool:
    """Return whether data, hardware, policy or money block a method, not that half of it has no use."""
    rules = {blocker.rule for blocker in scored.blockers}
    return bool(rules) and rules <= {"BL001", "BL002", "BL003", "BL004", "BL005"}


def _are(keys: Sized) -> str:
    return "is" if len(keys) == 1 else "are"
