"""Need, Finding and Rule: the three words that rules and the engine share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import ClassVar

from advisor.evidence.claims import PAGE, ArmClaim, claim_text
from advisor.evidence.trials import MeasuredTrial
from advisor.questionnaire.profile import Profile, Thresholds


class Need(StrEnum):
    """What a situation asks for; methods declare how far they serve each."""

    FACTS = "facts"
    """Facts that the model does not know."""
    FRESH = "fresh_facts"
    """Facts that change."""
    UNWRITTEN = "answers_not_in_documents"
    """Getting by without documents, which do not hold the answers."""
    CITE = "citations"
    """Answers that name their source."""
    WHOLE = "whole_corpus_in_prompt"
    """Documents few enough to put all of them in the prompt."""
    GROUND = "grounding"
    """Answers that keep to given text."""
    HONESTY = "honest_absence"
    """Saying that something is not there."""
    STYLE = "behaviour"
    """Tone, format or skill that a prompt does not achieve."""
    FORMAT = "strict_format"
    """Output that code must be able to read."""
    SHOW = "examples_in_prompt"
    """Examples that are better shown in the prompt than trained on."""
    READING = "use_of_passages"
    """Answering from given passages better than a plain model does."""
    SPARING = "few_examples"
    """Getting by with few or no examples."""
    CAPACITY = "capacity"
    """Updating all weights."""
    PRECISION = "full_precision_base"
    """A base model that is not quantised."""
    HEADROOM = "memory_headroom"
    """Memory left on a GPU that is nearly full."""
    SCALE = "cheap_calls"
    """Short prompts on very many calls."""
    SPEED = "fast_answers"
    """Little to read and to search before answering."""
    SIMPLE = "simplicity"
    """Little to build, run and keep up to date."""
    LIGHT = "nothing_to_train"
    """Getting by without training."""
    LABELS = "labels_from_examples"
    """A label from a list, as the examples give them."""
    KNOWLEDGE = "knowledge_of_the_world"
    """What neither the text nor the examples say, and a language model has read."""
    VERBATIM = "replies_word_for_word"
    """Replies that are stored texts."""
    CASCADE = "cheap_first"
    """Many calls, most of them easy: cheap answers where they are sure, a language model for the rest."""
    LOOKUPS = "several_lookups"
    """Searching again for what is missing, in documents as they are."""
    STOP = "already_good"
    """A prompt is already good enough."""


METHOD_NEEDS = frozenset({Need.CAPACITY, Need.PRECISION, Need.HEADROOM})
"""Needs that only order the tuning methods; a hybrid uses whichever is best."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that applies to this situation, and why."""

    rule: type[Rule]
    text: str

    @property
    def need(self) -> Need | None:
        """The need it speaks for; None for a note that weighs nothing."""
        return self.rule.need

    @property
    def weight(self) -> float:
        """How much it counts."""
        return self.rule.weight

    def to_json(self) -> dict[str, object]:
        """Return rule, text and evidence."""
        return {"rule": self.rule.code(), "text": self.text, "evidence": list(self.rule.all_evidence())}


class Rule:
    """One rule: the class name is its code, the docstring what a user reads.

    A docstring states the rule in its first line, says why, and ends with when it does not apply. Codes are
    never used again for another rule.
    """

    family: ClassVar[str] = ""
    need: ClassVar[Need | None] = None
    weight: ClassVar[float] = 0.0
    evidence: ClassVar[tuple[str, ...]] = ()
    """Literature and measurements elsewhere."""
    claim: ClassVar[ArmClaim | None] = None
    """What trials should show where the rule applies; counted in the measured table."""
    always: ClassVar[bool] = False
    """Whether it applies to every situation, so that it says nothing about this one."""
    meets: ClassVar[frozenset[Need]] = frozenset()
    """Needs that a method which serves this rule's need meets by it here, so that they do not speak against it."""
    first: ClassVar[bool] = False
    """Whether it is said before all other reasons, whatever method is chosen."""
    at: ClassVar[Thresholds] = {}
    """For numeric answers the constants that ``applies`` compares them with."""

    def applies(self, profile: Profile) -> str:
        """Return why the rule applies to this profile, in words; "" when it does not."""
        raise NotImplementedError

    @classmethod
    def code(cls) -> str:
        """Return the rule's code."""
        return cls.__name__

    @classmethod
    def text(cls) -> str:
        """Return the user's text: the docstring, unindented."""
        return inspect.cleandoc(cls.__doc__ or "")

    @classmethod
    def applies_to_trial(cls, trial: MeasuredTrial) -> bool:
        """Return whether a measured trial is of the rule's kind: the rule applies to its profile."""
        return bool(cls().applies(trial.profile))

    @classmethod
    def measured(cls) -> tuple[str, ...]:
        """Return what the shipped trials say of the rule's claim; empty without a claim or without such a trial."""
        if cls.claim is None:
            return ()
        return _measured(cls.code(), cls.claim, cls.applies_to_trial)

    @classmethod
    def all_evidence(cls) -> tuple[str, ...]:
        """Return the literature, then what the shipped trials say."""
        return (*cls.evidence, *cls.measured())


@cache
def _measured(code: str, claim: ArmClaim, applies: Callable[[MeasuredTrial], bool]) -> tuple[str, ...]:
    """Return the sentence of a rule's claim, counted once in a process; ``code`` keeps the rules apart."""
    text = claim_text(claim, applies)
    return (f"{PAGE}: {text}",) if text else ()
