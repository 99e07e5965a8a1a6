"""How sure the advice is: the probability that another arm does not come out surely ahead of the advised one.

A logistic regression with few coefficients, each bounded to one sign, fitted to published decisions and to the public
trials (``python -m benchmarks.advice_probability``, which prints the coefficients). The rules decide the choice; this
decides only how much to trust it.

The log odds are an intercept less the :class:`AdviceDoubts`, each times its coefficient. Published decisions and
trials have intercepts of their own: a paper compares the few ways that its authors chose, and a trial of a small model
on one's own files has more arms that can win.

scikit-learn's ``LogisticRegression`` cannot fit it: it has no bounds on the sign of a coefficient. The fit is scipy's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from advisor.questionnaire.profile import MIN_RAW_TOKENS, Profile
from advisor.questionnaire.questions import QUESTION_BY_ID
from advisor.recommendation.ranking import Ranking, ScoredMethod, first_choice
from advisor.rules.data import ADAPTER_CAPACITY_TOKENS
from runners.plan.train_config import TUNING_METHODS

METHOD_FAMILIES = (frozenset(TUNING_METHODS), frozenset({"prompting", "few-shot"}))
"""Methods that are no rivals of each other: tuning methods, and prompting methods."""
RETRIEVING = ("rag", "hybrid")
SPREAD = 1.0
"""Difference in weight that makes one of two methods e times as likely as the other: the strongest rules weigh 2 to 3."""
ARM_DOUBTS = {"classifier": "rival_classifier", "long-context": "rival_long_context"}
"""The doubt that each arm in ``also_measure`` raises."""
RIVAL_ARM_DEFICIT = 1.0
"""Weights by which an arm that is no method starts behind the advised one."""
ENOUGH_EXAMPLES = 1_000
"""Examples from which their number raises no doubt about tuning (Zhou et al., LIMA, arXiv 2305.11206)."""
ENOUGH_FOR_SMALL_GAP = 5_000
"""The same where the gap in behaviour is small, so that there is less to gain."""
SURE_CLASSIFIER = 0.9
"""Share of right labels in cross-validation from which a classifier is as strong a rival as it can be."""
LARGE_FOR_FULL_B = 1.0
"""Models from this many billion parameters on are seldom much better tuned in full than with adapters."""


@dataclass(frozen=True, slots=True)
class AdviceDoubts:
    """What lowers the probability of the advice (``memory_decides`` raises it); 0 where it does not apply.

    Attributes:
        close_rival: exp(-margin in weight) over the best feasible method of another family, 0 to 1.
        unknown_answers: half the number of answers that are unknown among what is missing, how many examples there
            are where behaviour may have to change, and for retrieval how large the corpus is.
        unknown_decides: of the typical values of one of these unknown answers, the share with which another method would be
            chosen, 0 to 1; the largest of them.
        stable_facts: 1 where a hybrid is advised for facts that never change, .5 where that is not known: such facts
            can also be put into the prompt or trained.
        few_examples: powers of ten by which the examples fall short of enough for tuning, 0 to 1; .5 where their
            number is unknown.
        unused_hardware: 1 where no training is advised though there is a GPU that can train; that there are no examples
            does not count against it, as they can be written.
        full_of_large_model: 1 where all weights of a model of a billion parameters or more are to be tuned on less
            than a billion tokens of text.
        memory_decides: 1 where QLoRA is advised because LoRA does not fit the memory well: of the ways to tune, the
            hardware leaves this one.
        rival_classifier: where a classifier should be measured too, how much speaks for it, 0 to 1: where a probe measured
            one, how far it is right above one half (1 from :data:`SURE_CLASSIFIER` on), else half the power of ten of the
            number of labels (.5 where that is not known), since of many labels it learns what each is about.
        rival_long_context: 1 where all documents in one prompt should be measured too.
    """

    close_rival: float = 0.0
    unknown_answers: float = 0.0
    unknown_decides: float = 0.0
    stable_facts: float = 0.0
    few_examples: float = 0.0
    unused_hardware: float = 0.0
    full_of_large_model: float = 0.0
    memory_decides: float = 0.0
    rival_classifier: float = 0.0
    rival_long_context: float = 0.0


COEFFICIENTS = AdviceDoubts(
    close_rival=1.42,
    unknown_answers=0.36,
    unknown_decides=1.04,
    stable_facts=0.83,
    few_examples=0.38,
    unused_hardware=1.94,
    full_of_large_model=1.01,
    memory_decides=-1.75,
    rival_classifier=2.4,
    rival_long_context=0.0,
)
"""Log odds that each doubt takes from the advice."""
PUBLISHED_INTERCEPT = 2.57
"""Log odds of the advice in a published case without any doubt."""
TRIAL_INTERCEPT = 2.81
"""Log odds of the advice in a trial on one's own files without any doubt."""


@dataclass(frozen=True, slots=True)
class AdviceProbability:
    """How sure the advice is.

    Attributes:
        value: probability, 0 to 1, that a trial of at least 200 questions, or a published comparison, does not put
            another arm surely ahead of the advised one.
        shares: probability that an arm comes out best, by name: the feasible methods and the arms that should also be
            measured; they sum to 1.
        doubts: what lowers ``value``.
    """

    value: float
    shares: Mapping[str, float]
    doubts: AdviceDoubts = AdviceDoubts()


def advice_probability(profile: Profile, ranking: Ranking, also: Mapping[str, str]) -> AdviceProbability:
    """Return how sure the first method of a ranking is.

    Args:
        profile: the situation; one that names files can be tried, and gets the intercept of the trials.
        ranking: the methods, best first.
        also: arms beside the methods that should be measured, with reasons.
    """
    doubts = advice_doubts(profile, ranking, also)
    value = probability_of(doubts, has_files(profile))
    return AdviceProbability(value, _shares(profile, ranking, also, doubts), doubts)


def probability_of(doubts: AdviceDoubts, trial: bool) -> float:
    """Return the probability, 0 to 1, for doubts; ``trial``: of a trial, else of a published comparison."""
    odds = TRIAL_INTERCEPT if trial else PUBLISHED_INTERCEPT
    odds -= sum(
        getattr(COEFFICIENTS, part.name) * getattr(doubts, part.name) for part in fields(AdviceDoubts)
    )
    return logistic(odds)


def logistic(odds: float) -> float:
    """Return the probability, 0 to 1, of log odds."""
    return 1 / (1 + math.exp(-odds))


def has_files(profile: Profile) -> bool:
    """Return whether the profile names files, so that its advice can be tried."""
    return bool(profile.documents or profile.examples or profile.questions)


def advice_doubts(profile: Profile, ranking: Ranking, also: Mapping[str, str]) -> AdviceDoubts:
    """Return what speaks against trusting the first method of a ranking, and for it."""
    first = ranking.methods[0]
    choice = first.method.name
    margin = first.sum - max((scored.sum for scored in rivals(profile, ranking)), default=-math.inf)
    trains = choice in TUNING_METHODS or choice == "hybrid"
    trainable = any(
        scored.method.name in TUNING_METHODS and {blocker.rule for blocker in scored.blockers} <= {"BL001"}
        for scored in ranking.methods
    )
    changing = {"static": 1.0, None: 0.5}.get(profile.facts_change, 0.0)
    unknown = missing_answers(profile, choice)
    large = choice == "full" and (profile.params_b or 0) >= LARGE_FOR_FULL_B
    return AdviceDoubts(
        close_rival=math.exp(-max(0.0, margin)),
        unknown_answers=len(unknown) / 2,
        unknown_decides=max((_share_of_changes(profile, key, choice) for key in unknown), default=0.0),
        stable_facts=changing if choice == "hybrid" else 0.0,
        few_examples=_shortfall(profile) if trains else 0.0,
        unused_hardware=float(not trains and profile.has_gpu is True and trainable),
        full_of_large_model=float(large and profile.raw_text < ADAPTER_CAPACITY_TOKENS),
        memory_decides=float(choice == "qlora"),
        rival_classifier=_classifier_strength(profile) if "classifier" in also else 0.0,
        rival_long_context=float("long-context" in also),
    )


def rivals(profile: Profile, ranking: Ranking) -> list[ScoredMethod]:
    """Return the feasible methods of other families than the first one's, best first.

    Retrieval is no rival where the task needs no facts and no sources.
    """
    useless = RETRIEVING if profile.facts_needed == "none" and not profile.must_cite else ()
    first = ranking.methods[0]
    return [
        scored
        for scored in ranking.methods[1:]
        if not scored.blockers and not same_family(first, scored) and scored.method.name not in useless
    ]


def enough_examples(profile: Profile) -> int:
    """Return the number of examples from which it raises no doubt about tuning."""
    return ENOUGH_FOR_SMALL_GAP if profile.behaviour_gap == "low" else ENOUGH_EXAMPLES


def _classifier_strength(profile: Profile) -> float:
    """Return how much speaks for a classifier, 0 to 1: what a probe measured of one, else the number of labels.

    Measured, it is 0 for one half right in cross-validation and 1 from :data:`SURE_CLASSIFIER` on; of labels, half the power
    of ten of their number, .5 where that is not known.
    """
    measured = profile.probe.classifier
    if measured is not None:
        return min(1.0, max(0.0, (measured.rate - 0.5) / (SURE_CLASSIFIER - 0.5)))
    count = profile.data.label_count
    return min(1.0, math.log10(max(1, count)) / 2) if count else 0.5


def _shortfall(profile: Profile) -> float:
    """Return the powers of ten by which the examples fall short of enough, 0 to 1; 0 with raw text to train on."""
    if profile.raw_text >= MIN_RAW_TOKENS:
        return 0.0
    if profile.labelled_examples is None:
        return 0.5
    return min(1.0, max(0.0, math.log10(enough_examples(profile) / max(1, profile.labelled_examples))))


def missing_answers(profile: Profile, choice: str) -> tuple[str, ...]:
    """Return the unknown answers among those that decide most: withholding any other one seldom changed the advice."""
    keys = ["behaviour_gap", "task_needs_facts"]
    if profile.behaviour_needed:
        keys.append("labelled_examples")
    if profile.facts_needed != "none" and choice in ("rag", "hybrid"):
        keys.append("corpus_tokens")
    return tuple(key for key in keys if is_unknown(profile, key))


def is_unknown(profile: Profile, key: str) -> bool:
    """Return whether an answer was neither given, counted nor detected: it is missing, or only a default."""
    if getattr(profile, key) is None:
        return True
    return key in profile.sources and profile.sources[key].source == "default"


def _share_of_changes(profile: Profile, key: str, choice: str) -> float:
    """Return the share of an answer's typical values, 0 to 1, with which another method than ``choice`` would be chosen."""
    question = QUESTION_BY_ID[key]
    values: list[Any] = [option.value for option in question.choices] or [*question.tries]
    changed = [first_choice(profile.change(key, value)).choice != choice for value in values]
    return sum(changed) / len(changed)


def better_blocked(ranking: Ranking) -> ScoredMethod | None:
    """Return the best method of another family that is better than the choice, and that data, hardware or policy block."""
    first = ranking.methods[0]
    forbidden = [
        scored
        for scored in ranking.methods
        if scored.sum > first.sum and is_forbidden(scored) and not same_family(first, scored)
    ]
    return max(forbidden, key=lambda scored: scored.sum, default=None)


def is_forbidden(scored: ScoredMethod) -> bool:
    """Return whether data, hardware, policy or money block a method, not that half of it has no use."""
    rules = {blocker.rule for blocker in scored.blockers}
    return bool(rules) and rules <= {"BL001", "BL002", "BL003", "BL004", "BL005"}


def same_family(a: ScoredMethod, b: ScoredMethod) -> bool:
    """Return whether two methods are of one family: two tuning methods, or two prompting methods."""
    return any({a.method.name, b.method.name} <= family for family in METHOD_FAMILIES)


def _shares(
    profile: Profile, ranking: Ranking, also: Mapping[str, str], doubts: AdviceDoubts
) -> dict[str, float]:
    """Return the probability of being best for each feasible method and each arm that should also be measured.

    The advised method and its family share the probability of the advice. An arm that is no method has what its doubt takes
    from that; the rest belongs to the rivals and these arms. Inside a group each counts by its weight: a difference of
    :data:`SPREAD` is a factor of e. A method that is no rival gets 0.
    """
    feasible = [scored for scored in ranking.methods if not scored.blockers]
    first = feasible[0]
    own = {
        scored.method.name: scored.sum for scored in feasible if scored is first or same_family(first, scored)
    }
    others = {scored.method.name: scored.sum for scored in rivals(profile, ranking)}
    others |= dict.fromkeys(also, first.sum - RIVAL_ARM_DEFICIT)
    value = probability_of(doubts, has_files(profile))
    taken: dict[str, float] = {}
    left = doubts
    for arm, part in ARM_DOUBTS.items():
        before = probability_of(left, has_files(profile))
        left = replace(left, **{part: 0.0})
        taken[arm] = probability_of(left, has_files(profile)) - before
    shares = _split(own, value if others else 1.0) | _split(others, 1 - value - sum(taken.values()))
    names = [*(scored.method.name for scored in feasible), *also]
    return {name: shares.get(name, 0.0) + taken.get(name, 0.0) for name in names}


def _split(sums: Mapping[str, float], total: float) -> dict[str, float]:
    """Return ``total`` divided among names by the exponential of their sums."""
    if not sums:
        return {}
    most = max(sums.values())
    odds = {name: math.exp((value - most) / SPREAD) for name, value in sums.items()}
    return {name: total * part / sum(odds.values()) for name, part in odds.items()}
