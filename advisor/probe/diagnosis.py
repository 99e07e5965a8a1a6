"""From the probe's answers to what they say: shares with intervals, a reading, and the answers that they settle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from advisor.rules.behaviour import PASSING_RATE
from rag.evaluation.statistics import PairedDifference, WilsonShare, paired_test
from runners.trial.base_probe import ALONE, CLOSED, OPEN, RETRIEVED, ProbeReplies, ProbeReply

MAJORITY = 0.5
"""Below it a way is wrong more often than right. Of tone it is also where tuning pays: prompts met it in 23 to 46 %
of replies, tuned models in over 95 % (Marquardt & Brule, arXiv 2507.04889)."""

MAX_CUT_SHARE = 0.1
"""With a larger share of answers cut before their end, style was judged on the short ones only: it settles nothing."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the probe measured and what follows."""

    shares: dict[str, WilsonShare]
    """Right answers of each way on the same questions; ``style``, ``stop_rule`` (right and in style, real examples)
    and ``passes`` (right and in style, everything asked without passages)."""
    lift: PairedDifference | None
    """Open-book less closed-book, on the same questions."""
    lost: PairedDifference | None
    """Open-book less retrieved."""
    brought: WilsonShare
    """Questions to which retrieval brought the supporting passage."""
    reading: tuple[str, ...]
    settled: dict[str, Any]
    """Answers of the questionnaire whose interval excludes the threshold."""
    because: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "shares": {name: share.to_json() for name, share in self.shares.items()},
            "retrieval_brought": self.brought.to_json(),
            "lift": _difference(self.lift),
            "lost": _difference(self.lost),
            "reading": list(self.reading),
            "settled": self.settled,
            "because": self.because,
        }


def diagnose(asked: ProbeReplies, seed: int = 0) -> Diagnosis:
    """Read the probe's answers. Intervals are Wilson's for shares, BCa of the paired bootstrap for differences.

    Closed-book, open-book and retrieved are compared on the same questions: those whose supporting passage is
    known, or all answerable ones where there are no documents.
    """
    same = {way: _judged(asked, way) for way in (CLOSED, OPEN, RETRIEVED)}
    alone = [r for way in (CLOSED, ALONE) for r in asked.of(way)]
    shares = {way: _share([r.right for r in replies]) for way, replies in same.items()}
    shares["style"] = _share([r.style for r in alone])
    shares["stop_rule"] = _share([_passes(r) for r in asked.of(ALONE)])
    shares["passes"] = _share([_passes(r) for r in alone])
    lift = _paired(same, OPEN, CLOSED, seed)
    lost = _paired(same, OPEN, RETRIEVED, seed)
    brought = WilsonShare.of(asked.brought, len(asked.grounded))
    settled, because = _settled(shares, lift, asked.cut <= MAX_CUT_SHARE * len(asked.replies))
    return Diagnosis(shares, lift, lost, brought, _reading(shares, lift, lost, brought), settled, because)


def _judged(asked: ProbeReplies, way: str) -> list[ProbeReply]:
    return [
        reply
        for reply in asked.of(way)
        if reply.answerable and reply.right is not None and (not asked.grounded or reply.id in asked.grounded)
    ]


def _passes(reply: ProbeReply) -> bool | None:
    """Right and in style, as far as either can be judged; None when neither can."""
    known = [value for value in (reply.right, reply.style) if value is not None]
    return all(known) if known else None


def _share(values: Sequence[bool | None]) -> WilsonShare:
    known = [value for value in values if value is not None]
    return WilsonShare.of(sum(known), len(known))


def _paired(same: dict[str, list[ProbeReply]], a: str, b: str, seed: int) -> PairedDifference | None:
    of_a, of_b = ({reply.id: float(bool(reply.right)) for reply in same[way]} for way in (a, b))
    ids = [id for id in of_a if id in of_b]
    return paired_test(a, b, [of_a[id] for id in ids], [of_b[id] for id in ids], seed) if ids else None


def _settled(
    shares: dict[str, WilsonShare], lift: PairedDifference | None, whole: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """The answers whose interval excludes the threshold, and what each rests on; ``whole``: few answers were cut."""
    settled: dict[str, Any] = {}
    because: dict[str, str] = {}
    passes, closed = shares["passes"], shares[CLOSED]
    if whole and passes.rate is not None and (passes.above(PASSING_RATE) or passes.below(PASSING_RATE)):
        settled["prompting_pass_rate"] = round(passes.rate, 2)
        because["prompting_pass_rate"] = f"right and in style by prompting alone: {passes.text()}"
    if closed.above(PASSING_RATE):
        settled["task_needs_facts"] = "known"
        because["task_needs_facts"] = f"right from memory: {closed.text()}"
    elif closed.below(MAJORITY) and lift is not None and lift.low > 0:
        settled["task_needs_facts"] = "new"
        because["task_needs_facts"] = f"right from memory: {closed.text()}; with the passage {_gain(lift)}"
    if gap := _gap(shares["style"] if whole else WilsonShare.of(0, 0), shares[OPEN]):
        settled["behaviour_gap"], because["behaviour_gap"] = gap
    return settled, because


def _gap(style: WilsonShare, opened: WilsonShare) -> tuple[str, str] | None:
    """How far behaviour is from what is needed, where intervals tell; the worse of style and skill counts."""
    told = f"in the house style: {style.text()}"
    skill = f"right with the supporting passage in hand: {opened.text()}"
    if style.below(MAJORITY):
        return "high", told
    if opened.below(MAJORITY):
        return "high", skill
    if not style.n or (opened.n and not opened.above(MAJORITY)):
        return None
    if style.above(PASSING_RATE):
        return ("none", told) if not opened.n or opened.above(PASSING_RATE) else None
    return ("low", told) if style.above(MAJORITY) and style.below(PASSING_RATE) else None


def _reading(
    shares: dict[str, WilsonShare],
    lift: PairedDifference | None,
    lost: PairedDifference | None,
    brought: WilsonShare,
) -> tuple[str, ...]:
    """What the ways say together, as sentences."""
    closed, opened = shares[CLOSED], shares[OPEN]
    said: list[str] = []
    if closed.above(PASSING_RATE):
        said.append("closed-book high: the model knows this already, so prompting comes first")
    if opened.above(MAJORITY) and closed.below(MAJORITY):
        said.append("open-book high, closed-book low: the facts are what is missing, so retrieval")
    elif opened.below(MAJORITY):
        said.append(
            "open-book low: even with the passage in hand it answers badly; that is behaviour or skill, so tuning"
        )
    elif lift is not None and lift.low > 0 and not closed.above(PASSING_RATE):
        said.append(f"the passage helps ({_gain(lift)}), so retrieval adds something")
    if lost is not None and lost.low > 0 and not opened.below(MAJORITY):
        said.append(_worse(lost, brought))
    style = shares["style"]
    if style.below(MAJORITY):
        said.append("the house style is missed more often than met by prompting alone, so tuning")
    elif style.above(PASSING_RATE):
        said.append("the house style is met by prompting alone: tuning for it is not needed")
    if closed.n and not opened.n and closed.below(MAJORITY):
        said.append("closed-book low, and no documents: whether facts or skill are missing cannot be told")
    return tuple(said) or (
        "undecided: the intervals hold both answers; more dev questions would narrow them",
    )


def _worse(lost: PairedDifference, brought: WilsonShare) -> str:
    """Say that retrieval loses what the passage gives, and whether finding it or reading past the others is why."""
    cost = f"retrieved below open-book by {100 * lost.difference:.0f} points ({100 * lost.low:.0f} to {100 * lost.high:.0f})"
    if brought.above(PASSING_RATE):
        return (
            f"{cost}, though the passage was brought to {brought.text()}: the passages beside it mislead the model; show "
            "fewer (k of the index step), or train on retrieval-aware rows (hybrid)"
        )
    return (
        f"{cost}; the passage was brought to {brought.text()}: fix retrieval first, with tunewise index tune"
    )


def _gain(lift: PairedDifference) -> str:
    return f"{100 * lift.difference:+.0f} points, {100 * lift.low:+.0f} to {100 * lift.high:+.0f}"


def _difference(found: PairedDifference | None) -> dict[str, float] | None:
    if found is None:
        return None
    values = {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p}
    return {name: round(value, 4) for name, value in values.items()}
