"""What the measured trials say of a rule: counted in the table, never written by hand.

A rule may state an :class:`ArmClaim`: arms that should do better than others wherever the rule applies. The trials of a
rule are those whose own profile the rule applies to, so that the text follows the table when trials are added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from advisor.evidence.trials import MeasuredTrial, measured_trials

PAGE = "docs/accuracy.md"


@dataclass(frozen=True, slots=True)
class ArmClaim:
    """The best of some arms should be ahead of the best of others.

    Attributes:
        better: the arms that should be ahead.
        than: the arms that they are compared with.
        subject: the former in words, as the subject of a sentence.
        rival: the latter in words.
    """

    better: tuple[str, ...]
    than: tuple[str, ...]
    subject: str
    rival: str


RETRIEVAL = ArmClaim(
    ("rag", "rag-few-shot", "hybrid", "long-context"),
    ("prompting", "few-shot", "lora", "qlora", "full"),
    "the best arm with documents",
    "the best one without",
)
TUNING = ArmClaim(
    ("lora", "qlora", "full", "hybrid"),
    ("prompting", "few-shot", "rag", "rag-few-shot"),
    "the best tuned arm",
    "the best untuned one",
)
CLASSIFIER = ArmClaim(
    ("classifier",),
    (
        "prompting",
        "few-shot",
        "prompting-scored",
        "few-shot-scored",
        "lora",
        "qlora",
        "full",
    ),
    "the classifier",
    "the best arm of the language model",
)
SHOWING = ArmClaim(
    ("few-shot", "rag-few-shot"),
    ("lora", "qlora", "full", "hybrid"),
    "the best arm that shows examples",
    "the best tuned one",
)
EXAMPLES_IN_PROMPT = ArmClaim(
    ("few-shot", "rag-few-shot"),
    ("prompting", "rag"),
    "the best arm that shows examples",
    "the best one that does not",
)
READING = ArmClaim(("hybrid",), ("rag", "rag-few-shot"), "the hybrid", "retrieval with the untuned model")


@dataclass(frozen=True, slots=True)
class ClaimCounts:
    """In how many trials the claim was surely borne out, surely contradicted, or left open, by model."""

    ahead: int
    behind: int
    undecided: int
    models: tuple[tuple[str, int], ...]

    @property
    def n(self) -> int:
        """Trials that measured both sides."""
        return self.ahead + self.behind + self.undecided


def count_claim(claim: ArmClaim, trials: Iterable[MeasuredTrial]) -> ClaimCounts:
    """Count a claim over trials; those that measured one side only are not counted.

    Each side is its arm with the highest mean on the same questions, so the difference between two sides of several
    equal arms leans to neither but is somewhat less sure than its interval says.
    """
    signs: Counter[int] = Counter()
    models: Counter[str] = Counter()
    for trial in trials:
        first, second = trial.best(claim.better), trial.best(claim.than)
        pair = trial.difference(first.arm, second.arm) if first and second else None
        if pair is not None:
            signs[pair.sure] += 1
            models[trial.model] += 1
    return ClaimCounts(signs[1], signs[-1], signs[0], tuple(models.most_common()))


def claim_text(
    claim: ArmClaim,
    applies: Callable[[MeasuredTrial], bool],
    trials: Sequence[MeasuredTrial] | None = None,
) -> str:
    """Return one sentence that cites the trials for a claim; "" when none measured both sides.

    Args:
        claim: the arms to compare.
        applies: whether a trial is of the kind that is spoken of.
        trials: other trials than the shipped ones, such as those of the user's history.
    """
    counts = count_claim(
        claim, [trial for trial in (measured_trials() if trials is None else trials) if applies(trial)]
    )
    if not counts.n:
        return ""
    own = trials is not None and all(trial.own for trial in trials)
    origin = "of your own trials" if own else f"public trial{'s' * (counts.n != 1)}"
    others = [
        f"{number} clearly worse" if name == "behind" else f"{number} undecided"
        for name, number in (("behind", counts.behind), ("undecided", counts.undecided))
        if number
    ]
    rest = f", {', '.join(others)}" if others else ""
    return (
        f"{claim.subject} was clearly better than {claim.rival} in {counts.ahead} of {counts.n} {origin} of this kind"
        f"{rest} ({_models(counts.models)})"
    )


def _models(models: Sequence[tuple[str, int]]) -> str:
    return f"on {models[0][0]}" if len(models) == 1 else ", ".join(f"{n} on {name}" for name, n in models)
